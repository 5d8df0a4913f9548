package remote

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestNewsCrossTheNetwork(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	client := pair(t, node)
	require.False(t, client.Stats().Following, "there is no stream before it is needed")
	node.commit("chat", 3, 100)

	l := newListener()
	reply, stop, err := client.Subscribe(within10s(t), "chat", l)
	require.NoError(t, err)
	require.Equal(t, &rpc.SubscribeReply{Exists: true, LastSeq: 3, Version: 3}, reply)
	node.commit("chat", 2, 100)
	node.commit("other", 2, 100)
	node.tombstoneOne("chat")
	require.Equal(t, rpc.News{Messages: node.logs["chat"][3:], LastSeq: 5}, l.mustHear(t))
	require.Equal(t, rpc.News{LastSeq: 5, Tombstoned: true}, l.mustHear(t))
	require.Equal(t, 1, client.Stats().Subscriptions)

	stop()
	stop()
	eventually(t, func() bool { return node.quota.Used() == 0 }, "the node is told")
	require.Zero(t, client.Stats().Subscriptions)
	reply, _, err = client.Subscribe(within10s(t), "nobody knows it", l)
	require.NoError(t, err)
	require.Equal(t, &rpc.SubscribeReply{}, reply)
	reply, _, err = client.Subscribe(within10s(t), "chat", l)
	require.NoError(t, err)
	require.True(t, reply.Tombstoned)
	require.Empty(t, l.news)
	require.Empty(t, l.ends)
}

// What is delivered is nobody else's memory: a small message does not keep the
// frame that it came in.
func TestNewsHaveTheirOwnMemory(t *testing.T) {
	t.Parallel()
	frame := appendNews(nil, 1, &rpc.News{LastSeq: 2, Messages: []rpc.Message{{Seq: 1, JSON: []byte("aa")}, {Seq: 2, JSON: []byte("bb")}}},
		sizeNews(1, &rpc.News{LastSeq: 2, Messages: []rpc.Message{{JSON: []byte("aa")}, {JSON: []byte("bb")}}}))
	events, _, err := decodeNews(frame, nil)
	require.NoError(t, err)
	clear(frame)
	require.Equal(t, "bb", string(events[0].news.Messages[1].JSON))
	require.Equal(t, 2, cap(events[0].news.Messages[0].JSON))
}

func TestSubscribeErrorsCrossTheNetwork(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	lost := &rpc.NotLeaderError{Group: 7, Leader: "n2"}
	client := pair(t, &refusingNode{feedNode: node, err: fmt.Errorf("subscribe: %w", lost)})
	_, _, err := client.Subscribe(within10s(t), "chat", newListener())
	var notLeader *rpc.NotLeaderError
	require.ErrorAs(t, err, &notLeader)
	require.Equal(t, lost, notLeader)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.Zero(t, client.Stats().Subscriptions)

	_, _, err = client.Subscribe(within10s(t), "", newListener())
	require.ErrorIs(t, err, rpc.ErrInvalidID)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = client.Subscribe(ctx, "chat", newListener())
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)

	plain := pair(t, &stubNode{})
	_, _, err = plain.Subscribe(within10s(t), "chat", newListener())
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	_, err = plain.StateHash(within10s(t), 1)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
}

type refusingNode struct {
	*feedNode
	err error
}

func (n *refusingNode) Subscribe(context.Context, rpc.Key, rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	return nil, nil, n.err
}

func TestEndsCrossTheNetwork(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	client := pair(t, node)
	l := newListener()
	stop := mustSubscribe(t, client, "chat", l)
	node.commit("chat", 1, 10)
	node.feed.End(&rpc.NotLeaderError{Group: 7, Leader: "n3"})
	l.mustHear(t)
	var notLeader *rpc.NotLeaderError
	require.ErrorAs(t, l.mustEnd(t), &notLeader)
	require.Equal(t, "n3", notLeader.Leader)
	stop()
	mustSubscribe(t, client, "chat", l)
	node.commit("chat", 1, 10)
	require.EqualValues(t, 2, l.mustHear(t).LastSeq)
}

// A server that stops says so, with what it had to say before; one that dies
// cannot. Either way the client comes back when somebody asks.
func TestServerStopsAndReturns(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	server := serve(t, "", node, ServerOptions{})
	client := dial(t, server.address, fastFollow)
	l := newListener()
	mustSubscribe(t, client, "chat", l)
	node.commit("chat", 1, 10)
	require.NoError(t, server.Close(within10s(t)))
	l.mustHear(t)
	require.ErrorIs(t, l.mustEnd(t), rpc.ErrClosed)
	require.Zero(t, node.quota.Used(), "the server lets the node go before it is closed")
	server.kill()

	back := func() {
		server = serve(t, server.address, node, ServerOptions{})
		eventually(t, func() bool {
			_, _, err := client.Subscribe(within10s(t), "chat", l)
			if err != nil && !errors.Is(err, rpc.ErrUnavailable) && !errors.Is(err, rpc.ErrClosed) {
				t.Errorf("subscribe: %v", err)
			}
			return err == nil
		}, "the client subscribes again")
	}
	back()
	server.kill()
	require.ErrorIs(t, l.mustEnd(t), rpc.ErrUnavailable)
	eventually(t, func() bool { return node.quota.Used() == 0 }, "the node is free of the dead")
	back()
	require.NoError(t, client.Close())
	require.ErrorIs(t, l.mustEnd(t), rpc.ErrClosed)
	_, _, err := client.Subscribe(within10s(t), "chat", l)
	require.ErrorIs(t, err, rpc.ErrClosed)
}

// A node that says nothing is given up, though its connection stands, as that of a
// stopped process does.
func TestSilentNodeIsGivenUp(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	p := startProxy(t, serve(t, "", node, fastBeats).address)
	hasty := fastFollow
	hasty.Silence = 350 * time.Millisecond
	client := dial(t, p.address(), hasty)
	l := newListener()
	mustSubscribe(t, client, "chat", l)
	p.swallow(true)
	require.ErrorIs(t, l.mustEnd(t), rpc.ErrUnavailable)
	_, _, err := client.Subscribe(within10s(t), "chat", l)
	require.ErrorIs(t, err, rpc.ErrUnavailable)

	p.swallow(false)
	p.cut()
	eventually(t, func() bool {
		_, _, err := client.Subscribe(within10s(t), "chat", l)
		return err == nil
	}, "it is found again")
	node.commit("chat", 1, 10)
	l.mustHear(t)
}

// An idle stream is kept up by heartbeats.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	r := openFollow(t, serve(t, "", newFeedNode(), fastBeats).address).handshake()
	for range 5 {
		p, err := r.receive()
		require.NoError(t, err)
		require.True(t, p.GetHeartbeat())
	}
}

// A call that is given up leaves nothing behind at the node.
func TestSubscribeIsGivenUp(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	entered, release := make(chan struct{}), make(chan struct{})
	client := pair(t, &slowNode{feedNode: node, entered: entered, release: release})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := client.Subscribe(ctx, "chat", newListener())
		if !errors.Is(err, rpc.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("subscribe: %v", err)
		}
	})
	<-entered
	cancel()
	wg.Wait()
	require.Zero(t, client.Stats().Subscriptions)
	close(release)
	eventually(t, func() bool { return node.quota.Used() == 0 }, "the node forgets it")
	go func() { <-entered }()
	mustSubscribe(t, client, "chat", newListener())
	require.Equal(t, 1, node.quota.Used())
}

type slowNode struct {
	*feedNode
	entered, release chan struct{}
}

func (n *slowNode) Subscribe(ctx context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	reply, stop, err := n.feedNode.Subscribe(ctx, key, to)
	n.entered <- struct{}{}
	<-n.release
	return reply, stop, err
}

// Many subscriptions share one stream and cost no goroutine.
func TestTenThousandSubscriptions(t *testing.T) {
	t.Parallel()
	const subscriptions = 10_000
	node := newFeedNode()
	client := pair(t, node)
	mustSubscribe(t, client, "first", newListener())
	var heard, over sync.WaitGroup
	heard.Add(subscriptions)
	over.Add(subscriptions)
	l := &counter{heard: &heard, over: &over}
	var wg sync.WaitGroup
	const callers = 50
	for c := range callers {
		wg.Go(func() {
			for i := c; i < subscriptions; i += callers {
				if _, _, err := client.Subscribe(within10s(t), rpc.Key(fmt.Sprintf("chat-%d", i)), l); err != nil {
					t.Errorf("subscribe: %v", err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, subscriptions+1, node.quota.Used())
	require.Less(t, runtime.NumGoroutine(), 1000, "other tests run beside this one")
	for i := range subscriptions {
		node.commit(rpc.Key(fmt.Sprintf("chat-%d", i)), 1, 100)
	}
	heard.Wait()
	node.feed.End(&rpc.NotLeaderError{Group: 7})
	over.Wait()
	require.Zero(t, client.Stats().Subscriptions)
}

type counter struct{ heard, over *sync.WaitGroup }

func (c *counter) Deliver(rpc.News) { c.heard.Done() }
func (c *counter) End(error)        { c.over.Done() }

func TestSubscriptionsAreBounded(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	client := dial(t, serve(t, "", node, ServerOptions{MaxSubscriptions: 2}).address, Options{})
	stop := mustSubscribe(t, client, "a", newListener())
	mustSubscribe(t, client, "b", newListener())
	_, _, err := client.Subscribe(within10s(t), "c", newListener())
	require.ErrorIs(t, err, rpc.ErrOverloaded)
	stop()
	mustSubscribe(t, client, "c", newListener())
}

func TestStateHash(t *testing.T) {
	t.Parallel()
	client := pair(t, newFeedNode())
	h, err := client.StateHash(within10s(t), 3)
	require.NoError(t, err)
	require.Equal(t, &rpc.StateHash{Group: 3, Applied: 5, Hash: [32]byte{1, 31: 2}}, h)
	_, err = client.StateHash(within10s(t), 9)
	require.ErrorIs(t, err, rpc.ErrNotFound)
	_, err = client.StateHash(within10s(t), rpc.Groups)
	require.ErrorIs(t, err, ErrInvalidRequest)
}

func TestFollowWithoutHelloIsEnded(t *testing.T) {
	t.Parallel()
	r := openFollow(t, serve(t, "", newFeedNode(), ServerOptions{HandshakeTimeout: 10 * time.Millisecond}).address)
	_, err := r.receive()
	require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%v", err)
}
