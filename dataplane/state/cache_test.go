package state

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// touched is what an Apply passes to end.
func touched(key string, version uint64) *dirty {
	return &dirty{key: key, exists: true, rec: record{version: version, metadata: []byte("{}")}}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := NewCache(64 << 10)
	view := c.view(0)
	for i := range 1000 {
		view.begin()
		d := touched(fmt.Sprintf("key%d", i), 1)
		d.rec.metadata = make([]byte, i%300)
		d.ids = &idSet{slots: make([]uint32, i%50)}
		view.end([]*dirty{d})
		require.LessOrEqual(t, c.Bytes(), 64<<10/cacheShards)
	}
	_, _, found := view.lookup("key999")
	require.True(t, found)
	_, _, found = view.lookup("key0")
	require.False(t, found)

	view.drop()
	require.Zero(t, c.Bytes())
	view.offer("key", &record{}, 1000)
	require.Zero(t, c.Bytes(), "a dropped view takes no more")
}

func TestCacheEvictsTheLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	size := cacheEntryBytes + 1 + 2
	c := NewCache(3 * size * cacheShards)
	view := c.view(0)
	put := func(key string) { view.begin(); view.end([]*dirty{touched(key, 1)}) }
	put("a")
	put("b")
	put("c")
	view.lookup("a")
	put("d")
	for key, want := range map[string]bool{"a": true, "b": false, "c": true, "d": true} {
		_, _, found := view.lookup(key)
		require.Equal(t, want, found, key)
	}
}

// A reader may only cache what it loaded while nothing was applied.
func TestCacheRefusesWhatMayBeStale(t *testing.T) {
	t.Parallel()
	old := &record{version: 1}
	fresh := func() *cacheView { return NewCache(1 << 20).view(0) }

	v := fresh()
	_, epoch, _ := v.lookup("a")
	v.offer("a", old, epoch)
	rec, _, found := v.lookup("a")
	require.True(t, found)
	require.EqualValues(t, 1, rec.version)

	v = fresh()
	_, epoch, _ = v.lookup("a")
	v.begin()
	v.offer("a", old, epoch)
	_, during, found := v.lookup("a")
	require.False(t, found, "an Apply began meanwhile")
	v.offer("a", old, during)
	_, _, found = v.lookup("a")
	require.False(t, found, "an Apply runs")
	v.end(nil)
	v.offer("a", old, epoch)
	_, _, found = v.lookup("a")
	require.False(t, found, "an Apply ran meanwhile")

	v = fresh()
	v.begin()
	v.end([]*dirty{touched("a", 2)})
	_, epoch, _ = v.lookup("b")
	v.offer("a", old, epoch)
	rec, _, _ = v.lookup("a")
	require.EqualValues(t, 2, rec.version, "what is there stays")

	v.begin()
	var d dirty
	require.True(t, v.checkout([]byte("a"), &d))
	require.EqualValues(t, 2, d.rec.version)
	_, _, found = v.lookup("a")
	require.False(t, found, "an Apply has it")
	d.exists, d.rec.version = true, 3
	v.end([]*dirty{&d, {key: "missing"}})
	rec, _, _ = v.lookup("a")
	require.EqualValues(t, 3, rec.version)
	_, _, found = v.lookup("missing")
	require.False(t, found)
}

// Machines share a cache without seeing each other's records.
func TestCacheIsShared(t *testing.T) {
	t.Parallel()
	cache := NewCache(1 << 20)
	h := setup(t, Options{Cache: cache})
	other, err := Open(h.db, 7+cacheShards, Options{Cache: cache})
	require.NoError(t, err)
	h.put("c", `{"a":1}`)
	_, err = other.Conversation("c")
	require.ErrorIs(t, err, rpc.ErrNotFound)
	_, err = other.Apply([]Entry{{Index: 5, Term: 1, Data: EncodeCommand(nil, epoch, PutOp(&rpc.PutRequest{Key: "c"}))}})
	require.NoError(t, err)
	require.Equal(t, `{"a":1}`, string(h.conversation("c").Metadata))
	before := cache.Bytes()
	require.NoError(t, other.Close())
	require.Less(t, cache.Bytes(), before)
}

func TestIDSet(t *testing.T) {
	t.Parallel()
	var s idSet
	require.False(t, s.has(1))
	for h := uint32(1); h < 3000; h += 3 {
		s.add(h * 1024) // collide in the low bits
		s.add(h * 1024)
	}
	require.Equal(t, 1000, s.used)
	for h := uint32(1); h < 3000; h++ {
		require.Equal(t, h%3 == 1, s.has(h*1024))
	}
}
