package forward

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// holding makes a node list the keys as a data node does: only those of the
// groups asked for, ascending, after the cursor, up to the limit.
func holding(keys []rpc.Key) func(*rpc.ListRequest) (*rpc.ListReply, error) {
	sorted := slices.Sorted(slices.Values(keys))
	return func(req *rpc.ListRequest) (*rpc.ListReply, error) {
		reply := &rpc.ListReply{}
		for _, key := range sorted {
			if slices.Contains(req.Groups, key.Group()) && string(key) > req.After && strings.HasPrefix(string(key), req.Prefix) && len(reply.Conversations) < req.Limit {
				reply.Conversations = append(reply.Conversations, rpc.Conversation{Key: key})
			}
		}
		return reply, nil
	}
}

func keysOf(reply *rpc.ListReply) []rpc.Key {
	var keys []rpc.Key
	for _, c := range reply.Conversations {
		keys = append(keys, c.Key)
	}
	return keys
}

func manyKeys(n int) []rpc.Key {
	keys := make([]rpc.Key, n)
	for i := range keys {
		keys[i] = rpc.Key(fmt.Sprintf("key-%04d", i))
	}
	return keys
}

func TestListMergesAllNodes(t *testing.T) {
	t.Parallel()
	keys := manyKeys(300)
	for _, level := range []rpc.Consistency{rpc.Leader, rpc.Stale} {
		c := newCluster(t, placed(1, spread))
		for _, n := range c.nodes {
			n.list = holding(keys)
		}
		f := c.forwarder(t, nil)
		reply, err := f.List(t.Context(), &rpc.ListRequest{Limit: 1000, Consistency: level})
		require.NoError(t, err)
		require.Equal(t, keys, keysOf(reply))
		if level == rpc.Leader {
			for id, n := range c.nodes {
				for _, g := range n.groups {
					require.Equal(t, id, spread(int(g)))
				}
			}
		}
	}
}

func TestListPagesCoverEverythingOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, spread))
	f := c.forwarder(t, nil)
	rapid.Check(t, func(t *rapid.T) {
		keys := manyKeys(rapid.IntRange(0, 60).Draw(t, "keys"))
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		for _, n := range c.nodes {
			n.list = holding(keys)
		}
		var got []rpc.Key
		after := ""
		for {
			reply, err := f.List(t.Context(), &rpc.ListRequest{After: after, Limit: limit, Prefix: "key-"})
			require.NoError(t, err)
			got = append(got, keysOf(reply)...)
			if len(reply.Conversations) < limit {
				break
			}
			after = string(got[len(got)-1])
		}
		require.Equal(t, keys, append([]rpc.Key{}, got...))
	})
}

func TestListFollowsHintsGroupByGroup(t *testing.T) {
	t.Parallel()
	keys := manyKeys(100)
	c := newCluster(t, placed(1, led("a")))
	// a still believes to lead all but tells of two groups that moved to b.
	c.nodes["a"].list = func(req *rpc.ListRequest) (*rpc.ListReply, error) {
		for _, g := range []rpc.Group{3, 77} {
			if slices.Contains(req.Groups, g) {
				return nil, fmt.Errorf("list: %w", &rpc.NotLeaderError{Group: g, Leader: "b"})
			}
		}
		return holding(keys)(req)
	}
	c.nodes["b"].list = holding(keys)
	reply, err := c.forwarder(t, nil).List(t.Context(), &rpc.ListRequest{Limit: 1000})
	require.NoError(t, err)
	require.Equal(t, keys, keysOf(reply))
	slices.Sort(c.nodes["b"].groups)
	for _, g := range []rpc.Group{3, 77} {
		route, _ := c.table.Lookup(g)
		require.Equal(t, control.NodeID("b"), route.LeaderID())
	}
}

func TestListGoesAroundADeadNode(t *testing.T) {
	t.Parallel()
	keys := manyKeys(100)
	c := newCluster(t, placed(1, spread))
	c.nodes["a"].answer = always(rpc.ErrUnavailable)
	c.nodes["b"].list, c.nodes["c"].list = holding(keys), holding(keys)
	reply, err := c.forwarder(t, nil).List(t.Context(), &rpc.ListRequest{Limit: 1000})
	require.NoError(t, err)
	require.Equal(t, keys, keysOf(reply))
}

func TestListIsNeverPartial(t *testing.T) {
	t.Parallel()
	t.Run("a lasting failure", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, spread))
		for _, n := range c.nodes {
			n.list = holding(manyKeys(10))
		}
		for _, n := range c.nodes {
			n.answer = always(rpc.ErrUnavailable)
			break
		}
		f := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = -1 })
		reply, err := f.List(t.Context(), &rpc.ListRequest{Limit: 1000})
		require.ErrorIs(t, err, rpc.ErrUnavailable)
		require.Nil(t, reply)
	})
	t.Run("a failure that retrying cannot mend", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("b")))
		c.nodes["b"].answer = always(rpc.ErrCorrupt)
		_, err := c.forwarder(t, nil).List(t.Context(), &rpc.ListRequest{Limit: 1000})
		require.ErrorIs(t, err, rpc.ErrCorrupt)
		require.Equal(t, 1, c.nodes["b"].count())
	})
	t.Run("an answer about a group that was not asked for", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("b")))
		c.nodes["b"].answer = always(&rpc.NotLeaderError{Group: 200, Leader: "c"})
		f := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = 2 * time.Millisecond })
		_, err := f.List(t.Context(), &rpc.ListRequest{Groups: []rpc.Group{1}, Limit: 10})
		require.True(t, errors.Is(err, rpc.ErrUnavailable))
	})
}
