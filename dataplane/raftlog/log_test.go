package raftlog

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestGroupsAreApart(t *testing.T) {
	t.Parallel()
	e := mustEngine(t, engineOptions(vfs.NewMem()))
	groups := []uint16{0, 1, 255, 256, 65535}
	for i, group := range groups {
		l := mustLog(t, e, group)
		require.NoError(t, l.StoreLogs(entries(uint64(10*i+1), uint64(10*i+5), 1)))
		require.NoError(t, l.SetUint64([]byte("k"), uint64(group)))
	}
	require.NoError(t, mustLog(t, e, 256).DeleteRange(0, 1000))
	for i, group := range groups {
		l := mustLog(t, e, group)
		n, err := l.GetUint64([]byte("k"))
		require.NoError(t, err)
		require.EqualValues(t, group, n)
		if group == 256 {
			requireBounds(t, l, 0, 0)
			continue
		}
		requireBounds(t, l, uint64(10*i+1), uint64(10*i+5))
	}
	require.NoError(t, e.Close())
}

// A wipe in a batch of the caller's happens with the rest of the batch or not
// at all, and leaves the stable state.
func TestAppendWipe(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	e := mustEngine(t, engineOptions(fsys))
	l := mustLog(t, e, 1)
	require.NoError(t, l.StoreLogs(entries(1, 100, 1)))
	require.NoError(t, l.SetUint64([]byte("CurrentTerm"), 4))

	b := e.DB().NewBatch()
	require.NoError(t, l.AppendWipe(b))
	require.NoError(t, b.Close())
	requireBounds(t, mustLog(t, e, 1), 1, 100)

	b = e.DB().NewBatch()
	require.NoError(t, b.Set([]byte("\x20state"), []byte("swapped"), nil))
	require.NoError(t, l.AppendWipe(b))
	require.NoError(t, b.Commit(pebble.Sync))
	l.Wiped()
	require.NoError(t, b.Close())
	requireBounds(t, l, 0, 0)
	require.Equal(t, raft.ErrLogNotFound, l.GetLog(100, &raft.Log{}))

	require.NoError(t, l.StoreLogs(entries(501, 502, 5)))
	require.NoError(t, e.Close())
	e = mustEngine(t, engineOptions(fsys))
	l = mustLog(t, e, 1)
	requireBounds(t, l, 501, 502)
	term, err := l.GetUint64([]byte("CurrentTerm"))
	require.NoError(t, err)
	require.EqualValues(t, 4, term)
	require.NoError(t, e.Close())
}

func TestWipeRemovesAGroup(t *testing.T) {
	t.Parallel()
	e := mustEngine(t, engineOptions(vfs.NewMem()))
	for _, group := range []uint16{1, 2} {
		l := mustLog(t, e, group)
		require.NoError(t, l.StoreLogs(entries(1, 5, 1)))
		require.NoError(t, l.SetUint64([]byte("CurrentTerm"), 4))
	}
	b := e.DB().NewBatch()
	require.NoError(t, Wipe(b, 1))
	require.NoError(t, b.Commit(pebble.Sync))
	require.NoError(t, b.Close())
	gone, kept := mustLog(t, e, 1), mustLog(t, e, 2)
	requireBounds(t, gone, 0, 0)
	requireBounds(t, kept, 1, 5)
	n, err := gone.GetUint64([]byte("CurrentTerm"))
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = kept.GetUint64([]byte("CurrentTerm"))
	require.NoError(t, err)
	require.EqualValues(t, 4, n)
	require.NoError(t, e.Close())
}

// An entry that must be there and is not, or is not what was stored, is
// corrupt, not merely absent.
func TestDamageIsCorrupt(t *testing.T) {
	t.Parallel()
	e := mustEngine(t, engineOptions(vfs.NewMem()))
	l := mustLog(t, e, 1)
	require.NoError(t, l.StoreLogs(entries(1, 10, 1)))
	l = mustLog(t, e, 1) // nothing recent
	value, closer, err := e.DB().Get(l.key(nil, 4))
	require.NoError(t, err)
	require.NoError(t, e.DB().Set(l.key(nil, 5), value, pebble.Sync)) // another's
	require.NoError(t, closer.Close())
	require.NoError(t, e.DB().Set(l.key(nil, 6), []byte{entryVersion}, pebble.Sync))
	require.NoError(t, e.DB().Delete(l.key(nil, 7), pebble.Sync))
	for index := uint64(5); index <= 7; index++ {
		require.ErrorIs(t, l.GetLog(index, &raft.Log{}), rpc.ErrCorrupt)
		_, _, err := l.TermAt(index)
		require.ErrorIs(t, err, rpc.ErrCorrupt)
	}
	require.NoError(t, l.SetUint64([]byte("k"), 1))
	require.NoError(t, l.Set([]byte("k"), []byte("not a number")))
	_, err = l.GetUint64([]byte("k"))
	require.ErrorIs(t, err, rpc.ErrCorrupt)

	// A key that is not an entry's.
	require.NoError(t, e.DB().Set(append(l.key(nil, 99), 0), nil, pebble.Sync))
	_, err = Open(e.DB(), 1, Options{})
	require.ErrorIs(t, err, rpc.ErrCorrupt)
	require.NoError(t, e.Close())
}

func TestStableValuesAreTheCallers(t *testing.T) {
	t.Parallel()
	l := memLog(t)
	value := []byte("d1")
	require.NoError(t, l.Set([]byte("k"), value))
	value[0] = 'x'
	for range 2 {
		got, err := l.Get([]byte("k"))
		require.NoError(t, err)
		require.Equal(t, "d1", string(got))
		got[0] = 'y'
	}
}

func TestOnSyncAndAverage(t *testing.T) {
	t.Parallel()
	e := mustEngine(t, engineOptions(vfs.NewMem()))
	calls := 0
	l, err := Open(e.DB(), 1, Options{OnSync: func(time.Duration) { calls++ }})
	require.NoError(t, err)
	require.Zero(t, l.AverageEntryBytes())
	require.NoError(t, l.StoreLogs(entries(1, 10, 1)))
	require.NoError(t, l.StoreLog(entries(11, 11, 1)[0]))
	require.ErrorIs(t, l.StoreLogs(entries(20, 20, 1)), ErrGap)
	require.Equal(t, 2, calls)
	require.EqualValues(t, entryBytes(entries(1, 1, 1)[0]), l.AverageEntryBytes())
	require.NoError(t, e.Close())
}

// Raft appends, truncates for snapshots and reads on different goroutines. No
// entry goes missing but those it was asked to delete, also when a truncation
// that meant the whole log meets an append.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	opts := engineOptions(nil)
	opts.Dir = t.TempDir() // a real disk, whose syncs take long enough to meet
	e := mustEngine(t, opts)
	l := mustLog(t, e, 7)
	const total, batch = 300, 3
	var deleted atomic.Uint64 // everything up to it may be gone
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		defer close(stop)
		for i := uint64(1); i < total; i += batch {
			if err := l.StoreLogs(entries(i, i+batch-1, 1)); err != nil {
				t.Errorf("store: %v", err)
			}
			index := i + batch - 1
			if err := l.GetLog(index, &raft.Log{}); err != nil && deleted.Load() < index {
				t.Errorf("entry %d is lost: %v", index, err)
			}
		}
	})
	running := func() bool {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	wg.Go(func() {
		for running() {
			first, _ := l.FirstIndex()
			last, _ := l.LastIndex()
			if last == 0 {
				continue
			}
			deleted.Store(last)
			if err := l.DeleteRange(first, last); err != nil {
				t.Errorf("delete: %v", err)
			}
		}
	})
	wg.Go(func() {
		for running() {
			var e raft.Log
			last, _ := l.LastIndex()
			if err := l.GetLog(last, &e); err != nil && err != raft.ErrLogNotFound {
				t.Errorf("get: %v", err)
			} else if err == nil && (e.Index != last || e.Data[0] != byte(last)) {
				t.Errorf("entry %d is %+v", last, e)
			}
		}
	})
	wg.Wait()
	require.NoError(t, e.Close())
}
