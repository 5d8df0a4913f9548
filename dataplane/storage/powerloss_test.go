package storage

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// TestPowerLoss cuts the power at random moments of a concurrent load, with
// random parts of what was not synced on disk. Every state must open, for the
// checks of logs must not take a cut tail for damage, and hold every
// acknowledged write.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	const writers, cuts, writesPerCut = 8, 16, 80
	fsys := vfs.NewCrashableMem()
	e := mustOpen(t, memOptions(fsys))

	var mu sync.Mutex // guards acked
	more := sync.NewCond(&mu)
	acked := map[string]bool{}
	ackedOnceThereAre := func(n int) map[string]bool {
		mu.Lock()
		defer mu.Unlock()
		for len(acked) < n {
			more.Wait()
		}
		return maps.Clone(acked)
	}
	tokens := make(chan int, cuts*writesPerCut)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			for n := range tokens {
				key := fmt.Sprintf("\x22%06d", n)
				if err := e.DB().Set([]byte(key), make([]byte, rng.IntN(600)), pebble.Sync); err != nil {
					t.Errorf("set: %v", err)
				}
				mu.Lock()
				acked[key] = true
				mu.Unlock()
				more.Signal()
			}
		})
	}
	rng := rand.New(rand.NewPCG(11, 13))
	for cut := range cuts {
		for n := range writesPerCut {
			tokens <- cut*writesPerCut + n
		}
		before := ackedOnceThereAre(cut*writesPerCut + rng.IntN(writesPerCut))
		after := fsys.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		got, err := readAll(after)
		require.NoError(t, err)
		for key := range before {
			if _, ok := got[key]; !ok {
				t.Fatalf("cut %d lost %q", cut, key)
			}
		}
	}
	close(tokens)
	wg.Wait()
	require.NoError(t, e.Close())
}

// TestPowerLossWhileOpening cuts the power while a directory is opened for the
// first time and again: whatever is left must open.
func TestPowerLossWhileOpening(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(3, 5))
	for range 3 {
		opened := make(chan *Engine)
		go func() { e, _ := Open(memOptions(fsys)); opened <- e }()
		var e *Engine
		for e == nil {
			select {
			case e = <-opened:
				require.NotNil(t, e)
			default:
			}
			after := fsys.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			_, err := readAll(after)
			require.NoError(t, err)
		}
		require.NoError(t, e.Close())
	}
}
