package remote

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/feed/feedtest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// through is a client as receivers see it: it is replaced when it is closed.
func through(client *Client) func() feedtest.Source {
	return func() feedtest.Source { return client }
}

// verifyReceiver compares what a receiver has with the log.
func verifyReceiver(t *testing.T, node *feedNode, r *feedtest.Receiver) {
	t.Helper()
	node.mu.Lock()
	log := node.logs[r.Key]
	node.mu.Unlock()
	eventually(t, func() bool { return r.Cursor() == uint64(len(log)) }, "a receiver catches up")
	messages, _, _, broken := r.Received()
	require.Empty(t, broken)
	for i := range messages {
		require.Equal(t, string(log[i].JSON), string(messages[i]))
	}
}

// gate is a subscriber that lets nothing through while it is shut, as a process
// that has no time to read.
type gate struct {
	feedtest.Source
	shut *sync.Mutex
}

func (g *gate) Subscribe(ctx context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	return g.Source.Subscribe(ctx, key, &gated{Subscriber: to, shut: g.shut})
}

type gated struct {
	rpc.Subscriber
	shut *sync.Mutex
}

func (g *gated) Deliver(n rpc.News) {
	g.shut.Lock()
	defer g.shut.Unlock()
	g.Subscriber.Deliver(n)
}

// A client that does not read for a while misses messages, never that there were
// some, and others are not held up.
func TestSlowClientReadsTheLog(t *testing.T) {
	t.Parallel()
	const conversations, size = 3, 10_000
	node := newFeedNode()
	server := serve(t, "", node, ServerOptions{MaxQueuedNews: 128 << 10})
	slow, quick := dial(t, server.address, Options{}), dial(t, server.address, Options{})
	var shut sync.Mutex
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var slows, quicks []*feedtest.Receiver
	for i := range conversations {
		key := rpc.Key(fmt.Sprintf("chat-%d", i))
		s := &feedtest.Receiver{Key: key, Find: func() feedtest.Source { return &gate{slow, &shut} }}
		q := &feedtest.Receiver{Key: key, Find: through(quick)}
		slows, quicks = append(slows, s), append(quicks, q)
		wg.Go(func() { s.Run(ctx) })
		wg.Go(func() { q.Run(ctx) })
	}
	eventually(t, func() bool { return node.quota.Used() == 2*conversations }, "all subscribe")
	shut.Lock()
	// Until the slow one's windows and queue are full, and then as much again. The
	// quick one keeps up, as one that is read does.
	for n, full := 0, 0; full == 0 || n < 2*full; n++ {
		node.commit(slows[n%conversations].Key, 1, size)
		q := quicks[n%conversations]
		eventually(t, func() bool { return q.Cursor() == uint64(n/conversations)+1 }, "the quick one is not held up")
		if full == 0 && server.collapsed.Load() > 0 {
			full = n
		}
	}
	shut.Unlock()
	for i := range conversations {
		verifyReceiver(t, node, slows[i])
		verifyReceiver(t, node, quicks[i])
	}
	for _, r := range quicks {
		_, live, _, _ := r.Received()
		require.EqualValues(t, r.Cursor(), live, "the quick one never read the log")
	}
	// Once it has caught up the messages come with the news again.
	_, before, _, _ := slows[0].Received()
	node.commit(slows[0].Key, 1, size)
	eventually(t, func() bool {
		_, live, _, _ := slows[0].Received()
		return live == before+1
	}, "news are whole again")
}

// News too large to share the stream are told without their messages.
func TestBigNewsAreReadFromTheLog(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	client := pair(t, node)
	l := newListener()
	mustSubscribe(t, client, "chat", l)
	node.commit("chat", 1, 100)
	node.commit("chat", 2, maxNewsBytes)
	require.Len(t, l.mustHear(t).Messages, 1)
	require.Equal(t, rpc.News{LastSeq: 3}, l.mustHear(t))
	node.commit("chat", 1, 100)
	require.Len(t, l.mustHear(t).Messages, 1)
}

// Receivers behind two clients follow conversations while servers die, connections
// break, leadership moves and conversations grow. Methodology: the node outlives its
// servers and has the log; each receiver keeps to the contract, and must end with
// the log's messages and no breach.
func TestReceiversSurviveFaults(t *testing.T) {
	t.Parallel()
	const conversations, receivers, faults = 4, 16, 12
	node := newFeedNode()
	options := ServerOptions{Heartbeat: fastBeats.Heartbeat, MaxQueuedNews: 16 << 10}
	server := serve(t, "", node, options)
	p := startProxy(t, server.address)
	clients := []*Client{dial(t, server.address, fastFollow), dial(t, p.address(), fastFollow)}
	ctx, cancel := context.WithCancel(t.Context())
	var following, committing sync.WaitGroup
	defer following.Wait()
	defer cancel()
	var all []*feedtest.Receiver
	for i := range receivers {
		r := &feedtest.Receiver{Key: rpc.Key(fmt.Sprintf("chat-%d", i%conversations)), Find: through(clients[i%len(clients)])}
		if i%5 == 4 {
			r.Ignore = func() bool { return rand.IntN(2) > 0 }
		}
		all = append(all, r)
		following.Go(func() { r.Run(ctx) })
	}
	var done atomic.Bool
	committing.Go(func() {
		pace := time.NewTicker(time.Millisecond) // who reads the log all the time hears no news
		defer pace.Stop()
		for !done.Load() {
			<-pace.C
			node.commit(rpc.Key(fmt.Sprintf("chat-%d", rand.IntN(conversations))), 1+rand.IntN(3), 20+rand.IntN(2000))
		}
	})
	// progress waits until somebody hears news through each client.
	progress := func() {
		for _, rs := range [][]*feedtest.Receiver{{all[0], all[2]}, {all[1], all[3]}} {
			lives := func() (n int) {
				for _, r := range rs {
					_, live, _, _ := r.Received()
					n += live
				}
				return n
			}
			from := lives()
			eventually(t, func() bool { return lives() > from }, "news come")
		}
	}
	for i := range faults {
		progress()
		switch i % 4 {
		case 0:
			server.kill()
			server = serve(t, server.address, node, options)
		case 1:
			p.cut()
		case 2:
			node.applying.Lock()
			node.feed.End(&rpc.NotLeaderError{Group: 7})
			node.applying.Unlock()
		default:
			require.NoError(t, server.Close(within10s(t)))
			server.kill()
			server = serve(t, server.address, node, options)
		}
	}
	progress()
	done.Store(true)
	committing.Wait()
	for _, r := range all {
		verifyReceiver(t, node, r)
	}
}
