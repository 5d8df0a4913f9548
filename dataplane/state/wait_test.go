package state

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// waitAll starts callers that wait for sequences 1 to n of a conversation, and
// returns when they are all registered.
func waitAll(t *testing.T, h *harness, ctx context.Context, key rpc.Key, n int) (results []chan error) {
	var group sync.WaitGroup
	before := h.m.waiters.count.Load()
	for seq := range n {
		result := make(chan error, 1)
		results = append(results, result)
		group.Go(func() { result <- h.m.WaitSeq(ctx, key, uint64(seq)+1) })
	}
	t.Cleanup(group.Wait)
	require.Eventually(t, func() bool { return h.m.waiters.count.Load() == before+int64(n) }, time.Minute, time.Millisecond)
	return results
}

func TestWaitSeq(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	results := waitAll(t, h, context.Background(), "c", 5)
	h.put("c", "") // created while they wait
	for seq := range 5 {
		for _, later := range results[seq:] {
			require.Empty(t, later)
		}
		h.append("c", text("", "x"))
		require.NoError(t, <-results[seq])
	}
	require.Zero(t, h.m.waiters.count.Load())
	require.Empty(t, h.m.waiters.byKey)
	require.NoError(t, h.m.WaitSeq(context.Background(), "c", 5))
	require.NoError(t, h.m.WaitSeq(context.Background(), "missing", 0))
}

func TestWaitSeqEnds(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	canceled := waitAll(t, h, ctx, "c", 2)
	closed := waitAll(t, h, context.Background(), "c", 2)
	cancel()
	for _, result := range canceled {
		err := <-result
		require.ErrorIs(t, err, rpc.ErrMinSeqTimeout)
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, h.m.Close())
	for _, result := range closed {
		require.ErrorIs(t, <-result, rpc.ErrClosed)
	}
	require.ErrorIs(t, h.m.WaitSeq(context.Background(), "c", 1), rpc.ErrClosed)
	_, err := h.m.Apply(nil)
	require.ErrorIs(t, err, rpc.ErrClosed)
	_, err = h.m.OpenSnapshot()
	require.ErrorIs(t, err, rpc.ErrClosed)
	_, err = h.m.NewInstaller()
	require.ErrorIs(t, err, rpc.ErrClosed)
}

func TestWaitSeqIsBounded(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.m.waiters.count.Store(maxWaiters)
	require.ErrorIs(t, h.m.WaitSeq(context.Background(), "c", 1), rpc.ErrOverloaded)
	h.m.waiters.count.Store(0)
}

// A snapshot brings what they wait for, too.
func TestWaitSeqSeesInstall(t *testing.T) {
	t.Parallel()
	source, h := setup(t, Options{}), setup(t, Options{})
	source.put("c", "")
	source.fill("c", 3)
	results := waitAll(t, h, context.Background(), "c", 3)
	transfer(t, source.m, h.m, 100)
	for _, result := range results {
		require.NoError(t, <-result)
	}
}

// Readers and waiters beside an applying goroutine see states that existed, and
// never an older one than before: last_seq and the messages of a page agree.
func TestReadsBesideApply(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{Cache: NewCache(cacheShards * 700)}) // about one record per shard
	const appends = 300
	keys := []rpc.Key{"a", "b"}
	for _, key := range keys {
		h.put(key, string(longMetadata))
	}
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i := range 4 {
		key := keys[i%2]
		group.Go(func() { readForever(t, ctx, h.m, key, i < 2) })
	}
	group.Go(func() {
		for seq := range uint64(appends) {
			if err := h.m.WaitSeq(ctx, "a", seq); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
				return
			}
			if c, err := h.m.Conversation("a"); err != nil || c.LastSeq < seq {
				t.Error("woken too early", err, c.LastSeq, seq)
			}
		}
	})
	for i := range uint64(appends) {
		h.append("a", text("", "x"))
		h.append("b", text("", "x"), text("", "y"))
		if i%7 == 0 {
			require.NoError(t, h.ack("a", 1, i, 3))
			require.NoError(t, h.ack("b", 1, i, 70))
		}
		if i == appends/2 {
			other := newHarness(t, Options{})
			transfer(t, h.m, other.m, 1<<20)
			transfer(t, other.m, h.m, 1<<20)
			other.close()
		}
	}
	cancel()
	group.Wait()
	h.check()
}

func readForever(t *testing.T, ctx context.Context, m *Machine, key rpc.Key, tail bool) {
	last := uint64(0)
	for ctx.Err() == nil {
		var page rpc.Page
		var err error
		if tail {
			page, err = m.Tail(key, 0, 0, 20, 0)
		} else {
			page, err = m.Messages(key, max(1, last), 1000, 0)
		}
		var expired *rpc.CursorExpiredError
		if errors.As(err, &expired) {
			last = expired.Earliest
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		if page.LastSeq < last {
			t.Errorf("last_seq went from %d to %d", last, page.LastSeq)
			return
		}
		last = page.LastSeq
		if n := len(page.Messages); n > 0 && page.Messages[n-1].Seq != last {
			t.Errorf("page ends at %d, last_seq %d", page.Messages[n-1].Seq, last)
			return
		}
		list, err := m.List("", "", 10)
		if err != nil || len(list) != 2 || string(list[0].Metadata) != string(longMetadata) {
			t.Error("list", err, len(list))
			return
		}
	}
}
