package group

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func applied(r *replica) uint64 {
	index, _ := r.group.machine.Applied()
	return index
}

// waiting waits until the follower knows something committed that it has not
// applied.
func (c *cluster) waiting(follower *replica) {
	c.t.Helper()
	c.eventually(func() bool { return follower.group.deferred.since.Load() != 0 }, "nothing is deferred")
}

func TestFollowersDeferUntilTheyAreAsked(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	leader := c.leader()
	follower := c.others(leader)[0]
	c.put(leader, "chat")
	c.mustAppend(leader, "chat", "0")
	c.waiting(follower)

	t.Run("a stale read", func(t *testing.T) {
		last := c.mustAppend(leader, "chat", "stale")
		c.eventually(func() bool {
			conv, err := follower.group.Conversation(t.Context(), "chat", rpc.ReadOptions{Consistency: rpc.Stale})
			return err == nil && conv.LastSeq == last
		}, "the read sees what the follower knows is committed")
	})
	t.Run("a stale read that waits", func(t *testing.T) {
		got := make(chan error, 1)
		go func() {
			_, err := follower.group.Conversation(t.Context(), "chat", rpc.ReadOptions{Consistency: rpc.Stale, MinSeq: 4})
			got <- err
		}()
		c.eventually(func() bool { return follower.group.deferred.eager.Load() == 1 }, "the read waits")
		for i := range 3 {
			c.mustAppend(leader, "chat", fmt.Sprint(i))
		}
		require.NoError(t, <-got)
	})
	t.Run("time", func(t *testing.T) {
		c.mustAppend(leader, "chat", "time")
		c.waiting(follower)
		before := applied(follower)
		follower.group.ApplyDeferred(time.Now())
		follower.group.ApplyDeferred(time.Now().Add(2 * maxDeferredTime))
		require.Greater(t, applied(follower), before)
		require.Zero(t, follower.group.deferred.since.Load())
	})
	t.Run("number", func(t *testing.T) {
		from := applied(follower)
		for i := range 4 * maxDeferredEntries {
			c.mustAppend(leader, "chat", fmt.Sprint(i))
			follower.group.deferred.mu.Lock()
			waits := len(follower.group.deferred.entries)
			follower.group.deferred.mu.Unlock()
			require.Less(t, waits, maxDeferredEntries)
		}
		c.eventually(func() bool { return applied(follower) >= from+3*maxDeferredEntries }, "many entries are applied unasked")
	})
	c.converged()
}

func TestNewLeaderHasAppliedWhatItDeferred(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	first := c.leader()
	c.put(first, "chat")
	for i := range 5 {
		c.mustAppend(first, "chat", fmt.Sprint(i))
	}
	next := c.others(first)[0]
	c.waiting(next)
	require.NoError(t, first.group.TransferLeadership(next.id))
	c.eventually(next.group.Leading, "the other replica leads")
	conv, err := next.group.Conversation(t.Context(), "chat", rpc.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, uint64(5), conv.LastSeq)
	require.Equal(t, uint64(6), c.mustAppend(next, "chat", "5"))
	c.converged()
}

// Goal: what raft truncates because it believes it applied is in the state, also
// when the replica dies right after.
func TestTruncationNeverOutrunsDeferredEntries(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	leader := c.leader()
	follower := c.others(leader)[0]
	c.put(leader, "chat")
	for i := range 20 {
		c.mustAppend(leader, "chat", fmt.Sprint(i))
	}
	c.waiting(follower)
	truncate(t, follower)
	first, err := follower.group.entries.FirstIndex()
	require.NoError(t, err)
	require.GreaterOrEqual(t, applied(follower)+1, first)
	c.stop(follower)
	c.start(follower)
	require.Equal(t, uint64(21), c.mustAppend(leader, "chat", "more"))
	c.converged()
}

func TestReplicaStopsWithEntriesDeferred(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	leader := c.leader()
	follower := c.others(leader)[0]
	c.put(leader, "chat")
	c.mustAppend(leader, "chat", "0")
	c.waiting(follower)
	require.NoError(t, follower.group.Restart(t.Context()), "the instance alone")
	c.mustAppend(leader, "chat", "1")
	c.stop(follower)
	c.mustAppend(leader, "chat", "2")
	c.start(follower)
	c.converged()
}
