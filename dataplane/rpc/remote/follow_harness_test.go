package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/feed"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// feedNode is a node of one group that keeps its log in memory, with the feed
// that groups have.
type feedNode struct {
	stubNode
	feed  *feed.Feed
	quota *feed.Quota

	applying sync.Mutex // held by who commits, as the goroutine that applies
	mu       sync.Mutex // guards what follows
	logs     map[rpc.Key][]rpc.Message
	closed   map[rpc.Key]bool
}

func newFeedNode() *feedNode {
	n := &feedNode{quota: feed.NewQuota(1 << 20), logs: make(map[rpc.Key][]rpc.Message), closed: make(map[rpc.Key]bool)}
	n.feed = feed.New(n.quota)
	n.messages = func(_ context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		log := n.logs[req.Key]
		from := min(max(int(req.From), 1)-1, len(log))
		return &rpc.Page{Messages: log[from:min(from+req.Limit, len(log))], LastSeq: uint64(len(log)), Earliest: 1}, nil
	}
	return n
}

func (n *feedNode) read(key rpc.Key) (rpc.Conversation, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	log, ok := n.logs[key]
	if !ok {
		return rpc.Conversation{}, rpc.ErrNotFound
	}
	return rpc.Conversation{Key: key, LastSeq: uint64(len(log)), Version: uint64(len(log)), Tombstoned: n.closed[key]}, nil
}

func (n *feedNode) Subscribe(_ context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	return n.feed.Subscribe(key, to, func() (*rpc.SubscribeReply, error) {
		conv, err := n.read(key)
		if err != nil {
			return &rpc.SubscribeReply{}, nil
		}
		return &rpc.SubscribeReply{Exists: true, LastSeq: conv.LastSeq, Version: conv.Version, Tombstoned: conv.Tombstoned}, nil
	})
}

func (n *feedNode) StateHash(_ context.Context, group rpc.Group) (*rpc.StateHash, error) {
	if group == 9 {
		return nil, fmt.Errorf("state hash: %w", rpc.ErrNotFound)
	}
	return &rpc.StateHash{Group: group, Applied: 5, Hash: [32]byte{1, 31: 2}}, nil
}

// commit appends messages of the given size to a conversation.
func (n *feedNode) commit(key rpc.Key, count, size int) {
	n.applying.Lock()
	defer n.applying.Unlock()
	c := state.Committed{Key: key}
	n.mu.Lock()
	for range count {
		seq := uint64(len(n.logs[key])) + 1
		m := rpc.Message{Seq: seq, Version: seq, JSON: fmt.Appendf(make([]byte, 0, size), `{"seq":%d}`, seq)}
		m.JSON = m.JSON[:max(size, len(m.JSON))]
		n.logs[key] = append(n.logs[key], m)
		c.Messages = append(c.Messages, m)
	}
	n.mu.Unlock()
	n.feed.Committed([]state.Committed{c}, n.read)
}

// tell is a commit that the log does not keep.
func (n *feedNode) tell(key rpc.Key, seq uint64, m rpc.Message) {
	m.Seq, m.Version = seq, seq
	n.feed.Committed([]state.Committed{{Key: key, Messages: []rpc.Message{m}}}, n.read)
}

func (n *feedNode) tombstoneOne(key rpc.Key) {
	n.applying.Lock()
	defer n.applying.Unlock()
	n.mu.Lock()
	n.closed[key] = true
	n.mu.Unlock()
	n.feed.Committed([]state.Committed{{Key: key, Tombstoned: true}}, n.read)
}

// listener is a subscriber that hands what it hears to the test.
type listener struct {
	news chan rpc.News
	ends chan error
}

func newListener() *listener {
	return &listener{news: make(chan rpc.News, 1024), ends: make(chan error, 8)}
}

func (l *listener) Deliver(n rpc.News) { l.news <- n }
func (l *listener) End(err error)      { l.ends <- err }

func (l *listener) mustHear(t testing.TB) rpc.News {
	t.Helper()
	return mustTake(t, l.news)
}

func (l *listener) mustEnd(t testing.TB) error {
	t.Helper()
	return mustTake(t, l.ends)
}

func mustTake[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing came")
		panic("not reached")
	}
}

func mustSubscribe(t testing.TB, c *Client, key rpc.Key, to rpc.Subscriber) func() {
	t.Helper()
	for {
		_, stop, err := c.Subscribe(within10s(t), key, to)
		if errors.Is(err, errHandshake) {
			continue // the options of the test are hasty
		}
		require.NoError(t, err)
		return stop
	}
}

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, cond func() bool, msg string) {
	t.Helper()
	require.Eventually(t, cond, patience, time.Millisecond, msg)
}

// fastFollow is quick to come back.
var fastFollow = Options{
	ConnectWait: 100 * time.Millisecond, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond,
}

var fastBeats = ServerOptions{Heartbeat: 20 * time.Millisecond}
