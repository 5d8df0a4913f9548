package raftlog

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// store is what Raft is given.
type store interface {
	raft.LogStore
	raft.StableStore
}

// step is one call of Raft and the bounds of the log after it.
type step struct {
	name        string
	do          func(store) error
	first, last uint64
}

func storing(from, to, term uint64) func(store) error {
	return func(s store) error { return s.StoreLogs(entries(from, to, term)) }
}

func deleting(low, high uint64) func(store) error {
	return func(s store) error { return s.DeleteRange(low, high) }
}

// conformance lists what hashicorp/raft relies on, as its own in-memory store
// behaves. Every case starts with an empty store.
var conformance = map[string][]step{
	"append": {
		{"first", storing(1, 3, 1), 1, 3},
		{"more", storing(4, 4, 2), 1, 4},
		{"nothing", func(s store) error { return s.StoreLogs(nil) }, 1, 4},
	},
	"compact": {
		{"store", storing(1, 100, 1), 1, 100},
		{"prefix", deleting(1, 40), 41, 100},
		{"prefix below the first", deleting(1, 50), 51, 100},
		{"gone already", deleting(1, 50), 51, 100},
		{"go on", storing(101, 102, 1), 51, 102},
	},
	"conflict": {
		{"store", storing(1, 100, 1), 1, 100},
		{"suffix", deleting(90, 100), 1, 89},
		{"other entries", storing(90, 95, 2), 1, 95},
		{"suffix beyond the last", deleting(95, 200), 1, 94},
	},
	"replace the last": {
		{"store", storing(1, 10, 1), 1, 10},
		{"replace", storing(10, 12, 2), 1, 12},
	},
	"remove all": {
		{"store", storing(1, 10, 1), 1, 10},
		{"all", deleting(1, 10), 0, 0},
		{"again", deleting(1, 10), 0, 0},
		{"store", storing(1, 2, 3), 1, 2},
	},
	"start behind a snapshot": {
		{"delete nothing", deleting(1, 0), 0, 0},
		{"jump", storing(1001, 1005, 4), 1001, 1005},
		{"all", deleting(1001, 1005), 0, 0},
		{"jump on", storing(5000, 5000, 4), 5000, 5000},
	},
	"more than is kept in memory": {
		{"store", storing(1, 3*maxRecentEntries, 1), 1, 3 * maxRecentEntries},
		{"cut into the recent", deleting(3*maxRecentEntries-5, 3*maxRecentEntries), 1, 3*maxRecentEntries - 6},
		{"replace", storing(3*maxRecentEntries-5, 3*maxRecentEntries+5, 9), 1, 3*maxRecentEntries + 5},
		{"compact into the recent", deleting(1, 3*maxRecentEntries), 3*maxRecentEntries + 1, 3*maxRecentEntries + 5},
	},
}

func stores(t testing.TB) map[string]store {
	return map[string]store{"inmem": raft.NewInmemStore(), "pebble": memLog(t)}
}

func TestLogStoreConformance(t *testing.T) {
	t.Parallel()
	for name, steps := range conformance {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kind, s := range stores(t) {
				terms := map[uint64]uint64{}
				for _, step := range steps {
					require.NoError(t, step.do(s), "%s: %s", kind, step.name)
					requireBounds(t, s, step.first, step.last)
				}
				// Both hold the same entries in the end.
				for i := uint64(0); i < 6000; i++ {
					var e raft.Log
					err := s.GetLog(i, &e)
					if first, _ := s.FirstIndex(); first == 0 || i < first {
						require.Equal(t, raft.ErrLogNotFound, err, kind)
						continue
					}
					if last, _ := s.LastIndex(); i > last {
						require.Equal(t, raft.ErrLogNotFound, err, kind)
						break
					}
					require.NoError(t, err)
					require.Equal(t, []byte{byte(i), byte(e.Term)}, e.Data)
					terms[i] = e.Term
				}
			}
		})
	}
}

func requireBounds(t require.TestingT, s raft.LogStore, first, last uint64) {
	gotFirst, err := s.FirstIndex()
	require.NoError(t, err)
	gotLast, err := s.LastIndex()
	require.NoError(t, err)
	require.Equal(t, [2]uint64{first, last}, [2]uint64{gotFirst, gotLast})
}

func TestStableStoreConformance(t *testing.T) {
	t.Parallel()
	key, other := []byte("CurrentTerm"), []byte("LastVoteCand")
	for kind, s := range stores(t) {
		n, err := s.GetUint64(key)
		require.True(t, n == 0 && (err == nil || err.Error() == "not found"), kind)
		value, err := s.Get(other)
		require.True(t, value == nil && (err == nil || err.Error() == "not found"), kind)

		require.NoError(t, s.SetUint64(key, 5))
		require.NoError(t, s.SetUint64(key, 6))
		require.NoError(t, s.Set(other, []byte("d1")))
		n, err = s.GetUint64(key)
		require.NoError(t, err)
		require.EqualValues(t, 6, n)
		value, err = s.Get(other)
		require.NoError(t, err)
		require.Equal(t, "d1", string(value))
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	want := []*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: []byte("conf")},
		{Index: 2, Term: 1<<63 + 1, Type: raft.LogNoop},
		{Index: 3, Term: 9, Type: raft.LogCommand, Data: make([]byte, 2*maxRecentBytes), AppendedAt: at},
		{Index: 4, Term: 9, Type: raft.LogBarrier, Extensions: []byte("ext"), AppendedAt: at},
		{Index: 5, Term: 9, Type: raft.LogCommand, Extensions: []byte("e"), Data: []byte("d")},
	}
	fsys := vfs.NewMem()
	e := mustEngine(t, engineOptions(fsys))
	l := mustLog(t, e, 3)
	require.NoError(t, l.StoreLogs(want))
	check := func(l *Log) {
		for _, w := range want {
			var got raft.Log
			require.NoError(t, l.GetLog(w.Index, &got))
			require.True(t, w.AppendedAt.Equal(got.AppendedAt))
			got.AppendedAt = w.AppendedAt
			require.Equal(t, *w, got)
			term, ok, err := l.TermAt(w.Index)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, w.Term, term)
		}
		_, ok, err := l.TermAt(6)
		require.NoError(t, err)
		require.False(t, ok)
	}
	check(l) // recent ones from memory
	require.NoError(t, e.Close())
	e = mustEngine(t, engineOptions(fsys))
	check(mustLog(t, e, 3)) // all from storage
	require.NoError(t, e.Close())
}

// Any sequence of calls that Raft may make leaves the same log in both stores,
// across restarts.
func TestLogStoreAgreesWithInmem(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fsys := vfs.NewMem()
		e := mustEngine(t, engineOptions(fsys))
		defer func() { require.NoError(t, e.Close()) }()
		got, want := mustLog(t, e, 1), raft.NewInmemStore()
		both := func(do func(store) error) {
			require.NoError(t, do(got))
			require.NoError(t, do(want))
		}
		term := uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				from, _ := want.LastIndex()
				if from == 0 {
					from = rapid.Uint64Range(0, 500).Draw(t, "jump")
				}
				n := rapid.SampledFrom([]uint64{1, 2, 10, maxRecentEntries + 1}).Draw(t, "n")
				both(storing(from+1, from+n, term))
			},
			"compact": func(t *rapid.T) {
				first, _ := want.FirstIndex()
				last, _ := want.LastIndex()
				if first == 0 {
					t.Skip("the in-memory store miscounts an empty log")
				}
				both(deleting(first, rapid.Uint64Range(first, last).Draw(t, "to")))
			},
			"conflict": func(t *rapid.T) {
				first, _ := want.FirstIndex()
				last, _ := want.LastIndex()
				if first == 0 {
					t.Skip("nothing conflicts with an empty log")
				}
				both(deleting(rapid.Uint64Range(first, last).Draw(t, "from"), last))
				term++
			},
			"restart": func(t *rapid.T) {
				require.NoError(t, e.Close())
				e = mustEngine(t, engineOptions(fsys))
				got = mustLog(t, e, 1)
			},
			"": func(t *rapid.T) {
				first, _ := want.FirstIndex()
				last, _ := want.LastIndex()
				requireBounds(t, got, first, last)
				for i := first; i <= last && i > 0; i++ {
					var a, b raft.Log
					require.NoError(t, want.GetLog(i, &a))
					require.NoError(t, got.GetLog(i, &b))
					if a.Term != b.Term || !bytes.Equal(a.Data, b.Data) {
						t.Fatalf("entry %d is %+v, want %+v", i, b, a)
					}
				}
			},
		})
	})
}

func TestGapsAreRefused(t *testing.T) {
	t.Parallel()
	l := memLog(t)
	require.NoError(t, l.StoreLogs(entries(10, 20, 1)))
	for name, do := range map[string]func(store) error{
		"after the last":   storing(22, 23, 1),
		"before the first": storing(9, 12, 1),
		"index 0":          storing(0, 1, 1),
		"within": func(s store) error {
			return s.StoreLogs(append(entries(21, 22, 1), entries(24, 24, 1)...))
		},
		"delete inside": deleting(12, 15),
	} {
		require.ErrorIs(t, do(l), ErrGap, name)
		requireBounds(t, l, 10, 20)
	}
}

// Entries above replaced ones go with them, durably.
func TestReplacingRemovesWhatFollows(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	e := mustEngine(t, engineOptions(fsys))
	l := mustLog(t, e, 1)
	require.NoError(t, l.StoreLogs(entries(1, 100, 1)))
	require.NoError(t, l.StoreLogs(entries(50, 52, 2)))
	requireBounds(t, l, 1, 52)
	require.NoError(t, e.Close())
	e = mustEngine(t, engineOptions(fsys))
	l = mustLog(t, e, 1)
	requireBounds(t, l, 1, 52)
	term, ok, err := l.TermAt(50)
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 2, term)
	require.NoError(t, e.Close())
}

// Raft itself runs on the store: it forms a group, commits, restarts, and finds
// what it had.
func TestRaftRunsOnIt(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	conf := raft.DefaultConfig()
	conf.LocalID, conf.LogLevel = "d1", "OFF"
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	for round := uint64(1); round <= 3; round++ {
		e := mustEngine(t, engineOptions(fsys))
		l := mustLog(t, e, 1)
		addr, transport := raft.NewInmemTransport("d1")
		snapshots := raft.NewInmemSnapshotStore()
		members := raft.Configuration{Servers: []raft.Server{{ID: "d1", Address: addr}}}
		err := raft.BootstrapCluster(conf, l, l, snapshots, transport, members)
		if round > 1 {
			require.Equal(t, raft.ErrCantBootstrap, err)
		} else {
			require.NoError(t, err)
		}
		fsm := &raft.MockFSM{}
		r, err := raft.NewRaft(conf, fsm, l, l, snapshots, transport)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return r.State() == raft.Leader }, 10*time.Second, time.Millisecond)
		for range 20 {
			require.NoError(t, r.Apply([]byte("command"), time.Second).Error())
		}
		require.NoError(t, r.Barrier(time.Second).Error())
		require.Len(t, fsm.Logs(), int(20*round), "replayed from the log and new")
		require.NoError(t, r.Shutdown().Error())
		require.NoError(t, errors.Join(transport.Close(), e.Close()))
	}
}
