package group

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestSoleVoterLeadsAndServes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	ctx := t.Context()

	_, err := c.append(r, "chat", "too early")
	require.ErrorIs(t, err, rpc.ErrNotFound)

	put, err := r.group.Put(ctx, &rpc.PutRequest{Key: "chat", Metadata: []byte(`{"a":1}`)})
	require.NoError(t, err)
	require.True(t, put.Created)
	applied, _ := r.group.machine.Applied()
	again, err := r.group.Put(ctx, &rpc.PutRequest{Key: "chat"})
	require.NoError(t, err)
	require.False(t, again.Created)
	require.Equal(t, `{"a":1}`, string(again.Conversation.Metadata))
	unchanged, _ := r.group.machine.Applied()
	require.Equal(t, applied, unchanged, "a put that changes nothing is not proposed")

	require.Equal(t, uint64(1), c.mustAppend(r, "chat", "one"))
	require.Equal(t, uint64(2), c.mustAppend(r, "chat", "two"))
	for _, consistency := range []rpc.Consistency{rpc.Leader, rpc.Linearizable, rpc.Stale} {
		page, err := r.group.Messages(ctx, &rpc.MessagesRequest{Key: "chat", From: 1, Limit: 10, ReadOptions: rpc.ReadOptions{Consistency: consistency}})
		require.NoError(t, err)
		require.Len(t, page.Messages, 2)
		require.Equal(t, uint64(2), page.LastSeq)
	}
	page, err := r.group.Tail(ctx, &rpc.TailRequest{Key: "chat", Limit: 1, ReadOptions: rpc.ReadOptions{MinSeq: 2}})
	require.NoError(t, err)
	require.Equal(t, uint64(2), page.Messages[0].Seq)

	require.NoError(t, r.group.Tombstone(ctx, "chat"))
	_, err = c.append(r, "chat", "too late")
	require.ErrorIs(t, err, rpc.ErrTombstoned)
	_, err = r.group.Put(ctx, &rpc.PutRequest{Key: "chat"})
	require.ErrorIs(t, err, rpc.ErrTombstoned)
	convs, err := r.group.List(ctx, "", "", 10, rpc.Leader)
	require.NoError(t, err)
	require.Len(t, convs, 1)
}

// Everything acknowledged is there after a stop, and the next sequence follows.
func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	c.put(r, "chat")
	for i := range 20 {
		require.Equal(t, uint64(i+1), c.mustAppend(r, "chat", fmt.Sprint(i)))
	}
	hash, _, err := r.group.machine.Hash(t.Context())
	require.NoError(t, err)
	c.stop(r)
	c.start(r)
	r.group.Campaign()
	c.leader()
	restarted, _, err := r.group.machine.Hash(t.Context())
	require.NoError(t, err)
	require.Equal(t, hash, restarted)
	require.Equal(t, uint64(21), c.mustAppend(r, "chat", "next"))
}

// Concurrent writes are packed together, answered each with its own outcome,
// and end up dense and in order.
func TestConcurrentAppends(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	c.put(r, "a")
	c.put(r, "b")
	const writers, each = 32, 20
	var mu sync.Mutex
	seen := map[string]map[uint64]bool{"a": {}, "b": {}}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			key := rpc.Key([]string{"a", "b"}[w%2])
			for i := range each {
				reply, err := c.append(r, key, fmt.Sprint(w, i))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[string(key)][reply.Seq] {
					t.Errorf("%s: sequence %d given twice", key, reply.Seq)
				}
				seen[string(key)][reply.Seq] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, key := range []rpc.Key{"a", "b"} {
		conv, err := r.group.Conversation(t.Context(), key, rpc.ReadOptions{})
		require.NoError(t, err)
		require.Equal(t, uint64(writers/2*each), conv.LastSeq)
		require.Len(t, seen[string(key)], writers/2*each)
	}
	require.Zero(t, r.group.opts.Budget.used.Load(), "every byte taken from the budget was given back")
}

func TestRefusedBeforeProposing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	c.put(r, "chat")
	before, _ := r.group.machine.Applied()

	full := fmt.Errorf("disk: %w", rpc.ErrStorageFull)
	r.healthy.Store(&full)
	_, err := c.append(r, "chat", "x")
	require.ErrorIs(t, err, rpc.ErrStorageFull)
	r.healthy.Store(nil)

	r.group.opts.Budget.used.Store(r.group.opts.Budget.limit)
	_, err = c.append(r, "chat", "x")
	require.ErrorIs(t, err, rpc.ErrOverloaded)
	r.group.opts.Budget.used.Store(0)

	after, _ := r.group.machine.Applied()
	require.Equal(t, before, after)
	require.Equal(t, uint64(1), c.mustAppend(r, "chat", "x"))
}

// A caller that gives up while its write waits gets an answer that is safe to
// retry, and the write never happens.
func TestGivingUpWhileWaiting(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	c.put(r, "chat")
	release := holdProposer(c, r)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.group.Append(ctx, &rpc.AppendRequest{Key: "chat", Messages: []rpc.NewMessage{message("", "x")}})
		done <- err
	}()
	c.eventually(func() bool { return len(r.group.queue) == 1 }, "queued")
	cancel()
	err := <-done
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.NotErrorIs(t, err, rpc.ErrOutcomeUnknown)
	release()
	require.Equal(t, uint64(1), c.mustAppend(r, "chat", "y"))
}

// holdProposer restarts the instance and keeps the proposer busy with it until
// release is called.
func holdProposer(c *cluster, r *replica) (release func()) {
	before := r.group.raft.Load()
	answer := make(chan error) // the proposer waits for it to be taken
	r.group.restarts <- answer
	c.eventually(func() bool { now := r.group.raft.Load(); return now != nil && now != before }, "restarted")
	r.group.Campaign()
	c.leader()
	return func() { require.NoError(c.t, <-answer) }
}

func TestFullQueueIsOverloaded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	c.put(r, "chat")
	release := holdProposer(c, r)
	var wg sync.WaitGroup
	for range maxQueuedProposals {
		wg.Go(func() {
			if _, err := c.append(r, "chat", "x"); err != nil {
				t.Error(err)
			}
		})
	}
	c.eventually(func() bool { return len(r.group.queue) == maxQueuedProposals }, "queue fills")
	_, err := c.append(r, "chat", "one too many")
	require.ErrorIs(t, err, rpc.ErrOverloaded)
	release()
	wg.Wait()
	conv, err := r.group.Conversation(t.Context(), "chat", rpc.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, uint64(maxQueuedProposals), conv.LastSeq)
}

// Close answers everyone who waits, and refuses who comes later.
func TestCloseAnswersEveryone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	c.put(r, "chat")
	release := holdProposer(c, r)
	const waiting = 100
	answers := make(chan error, waiting)
	for range waiting {
		go func() {
			_, err := c.append(r, "chat", "x")
			answers <- err
		}()
	}
	c.eventually(func() bool { return len(r.group.queue) == waiting }, "queued")
	release()
	group := r.group
	c.stop(r)
	for range waiting {
		require.NoError(t, <-answers, "what was queued was finished first")
	}
	_, err := group.Append(t.Context(), &rpc.AppendRequest{Key: "chat", Messages: []rpc.NewMessage{message("", "x")}})
	require.Error(t, err)
	require.NotErrorIs(t, err, rpc.ErrOutcomeUnknown)
}
