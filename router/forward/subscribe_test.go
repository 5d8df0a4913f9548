package forward

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// feedNode is a node that takes subscriptions when its answer is nil. Those it
// refused may still deliver, as over a network.
type feedNode struct {
	*node
	taken []rpc.Subscriber
}

func (n *feedNode) Subscribe(_ context.Context, _ rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	n.taken = append(n.taken, to)
	if err := n.run(); err != nil {
		return nil, nil, err
	}
	return &rpc.SubscribeReply{Exists: true, LastSeq: 4}, func() { n.taken = nil }, nil
}

// subscriber remembers what it was told.
type subscriber struct {
	news []rpc.News
	ends []error
}

func (s *subscriber) Deliver(n rpc.News) { s.news = append(s.news, n) }
func (s *subscriber) End(err error)      { s.ends = append(s.ends, err) }

// feeds makes feeds of the cluster's nodes.
func (c *cluster) feeds(t *testing.T, change func(*Config)) (*Forwarder, map[control.NodeID]*feedNode) {
	feeds := map[control.NodeID]*feedNode{}
	for id, n := range c.nodes {
		feeds[id] = &feedNode{node: n}
	}
	return c.forwarder(t, func(cfg *Config) {
		cfg.Connect = func(id control.NodeID, _ string) (rpc.Node, error) { return feeds[id], nil }
		if change != nil {
			change(cfg)
		}
	}), feeds
}

func TestSubscribeFindsTheLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("a")))
	f, feeds := c.feeds(t, nil)
	c.nodes["a"].answer = always(lostLeader("c"))
	c.nodes["c"].answer = fails(rpc.ErrUnavailable)
	s := &subscriber{}
	reply, stop, err := f.Subscribe(t.Context(), "k", s)
	require.NoError(t, err)
	require.Equal(t, &rpc.SubscribeReply{Exists: true, LastSeq: 4}, reply)

	// Only the node that took the subscription is listened to.
	var last rpc.Subscriber
	for _, feed := range feeds {
		for _, try := range feed.taken {
			try.Deliver(rpc.News{LastSeq: 9})
			try.End(rpc.ErrClosed)
			last = try
		}
	}
	require.NotNil(t, last)
	require.Len(t, s.news, 1)
	require.Equal(t, []error{rpc.ErrClosed}, s.ends)
	stop()
}

func TestSubscribeGivesUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("a")))
	f, feeds := c.feeds(t, func(cfg *Config) { cfg.RetryBudget = 5 * time.Millisecond })
	for _, n := range c.nodes {
		n.answer = always(rpc.ErrUnavailable)
	}
	s := &subscriber{}
	_, _, err := f.Subscribe(t.Context(), "k", s)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	for _, feed := range feeds {
		for _, try := range feed.taken {
			try.Deliver(rpc.News{})
			try.End(rpc.ErrClosed)
		}
	}
	require.Empty(t, s.news)
	require.Empty(t, s.ends)

	for _, n := range c.nodes {
		n.answer = always(rpc.ErrOverloaded)
	}
	_, _, err = f.Subscribe(t.Context(), "k", s)
	require.ErrorIs(t, err, rpc.ErrOverloaded, "it is not tried again")
}

func TestSubscribeNeedsAFeed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("a")))
	f := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = time.Millisecond })
	_, _, err := f.Subscribe(t.Context(), "k", &subscriber{})
	require.ErrorIs(t, err, rpc.ErrUnavailable)
}
