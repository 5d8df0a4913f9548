package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

const (
	// attemptTimeout bounds one request of a client. What it cuts off has an
	// unknown outcome.
	attemptTimeout = 3 * time.Second
	// retryPause is the wait before an append with an id is sent again.
	retryPause = 20 * time.Millisecond
	// tailLimit is how many messages reads ask for.
	tailLimit = 4
	// recoverBound is how long the suite waits for appends to succeed again.
	// It is a bound against hanging for ever; how long it takes is logged.
	recoverBound = 45 * time.Second
)

// statusOf returns the status of an answer that was not the wanted one.
func statusOf(err error) (int, bool) {
	var status *client.StatusError
	if !errors.As(err, &status) {
		return 0, false
	}
	return status.Reply.Status, true
}

// unique numbers texts and message ids over all loads of a test process.
var unique atomic.Uint64

// load is a number of clients that append and read until it is ended. Each
// conversation has clients of its own, which take turns with the routers, so
// that one that is stuck in a dead group holds up no other.
// Goroutines: one per client.
type load struct {
	history       *history
	conversations []string
	pace          time.Duration // between two operations of a client
	routers       []*client.Client
	bad           func(format string, args ...any) // fails the test, from any goroutine
	ctx           context.Context                  // ends when the load does
	cancel        context.CancelFunc
	clients       sync.WaitGroup
}

// stale is the consistency of reads that any replica may answer.
const stale = "stale"

// clientsPerConversation is how many operations on a conversation can be under
// way at a time.
const clientsPerConversation = 3

// startLoad creates conversations and starts their clients.
func startLoad(t *testing.T, c *Cluster, prefix string, conversations int, pace time.Duration) *load {
	t.Helper()
	l := &load{history: newHistory(), pace: pace, bad: t.Errorf}
	for _, r := range c.Routers {
		l.routers = append(l.routers, connect(t, r.URL()))
	}
	for i := range conversations {
		id := fmt.Sprintf("%s-%d", prefix, i)
		l.conversations = append(l.conversations, id)
		eventually(t, "conversation "+id, func() bool { return l.routers[0].Create(t.Context(), id) == nil })
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for i, id := range l.conversations {
		for k := range clientsPerConversation {
			number := i*clientsPerConversation + k
			l.clients.Go(func() { l.run(number, id) })
		}
	}
	t.Cleanup(l.end)
	return l
}

// end stops the clients and waits for them.
func (l *load) end() {
	l.cancel()
	l.clients.Wait()
}

// run is one client of one conversation. The first of each conversation goes to
// the first router only, so that its progress tells of that router's path.
func (l *load) run(number int, conversation string) {
	random := rand.New(rand.NewPCG(uint64(number), 1))
	for n := 0; l.ctx.Err() == nil; n++ {
		router := l.routers[0]
		if number%clientsPerConversation > 0 {
			router = l.routers[(number+n)%len(l.routers)]
		}
		switch dice := random.IntN(10); {
		case dice < 4:
			l.append(router, number, conversation, true)
		case dice < 6:
			l.append(router, number, conversation, false)
		case dice < 8:
			l.read(router, number, conversation, "linearizable")
		case dice < 9:
			l.read(router, number, conversation, "leader")
		default:
			l.read(router, number, conversation, stale)
		}
		_ = pause(l.ctx, l.pace/2+rand.N(l.pace+1))
	}
}

// append appends one message. With an id it is sent until the outcome is known
// or the load ends; without one it is sent once.
func (l *load) append(c *client.Client, number int, conversation string, withID bool) {
	n := unique.Add(1)
	o := &operation{conversation: conversation, client: number, text: fmt.Sprintf("text-%d", n)}
	if withID {
		o.id = fmt.Sprintf("id-%d", n)
	}
	l.history.begin(o)
	sure := true // that no attempt so far can have happened
	for {
		what := l.attempt(c, o)
		sure = sure && what != unknown
		if what == acked {
			l.history.settle(o, acked)
			return
		}
		if !withID || l.ctx.Err() != nil {
			break
		}
		_ = pause(l.ctx, retryPause)
	}
	if sure {
		l.history.settle(o, refused)
	} else {
		l.history.settle(o, unknown)
	}
}

// attempt sends an append once. A request is not broken off when the load ends.
func (l *load) attempt(c *client.Client, o *operation) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	got, err := c.Append(ctx, o.conversation, client.TextBody(o.id, o.text))
	if err == nil {
		o.seq = got.Seq
		return acked
	}
	l.history.failed(o, err.Error())
	switch status, answered := statusOf(err); {
	case !answered || status == http.StatusGatewayTimeout:
		return unknown
	case status != http.StatusServiceUnavailable:
		l.bad("append to %s: %v", o.conversation, err)
	}
	return refused
}

func (l *load) read(c *client.Client, number int, conversation, consistency string) {
	o := &operation{conversation: conversation, client: number, read: true, consistency: consistency}
	l.history.begin(o)
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	target := fmt.Sprintf("%s/tail?limit=%d&consistency=%s", client.Path(conversation), tailLimit, consistency)
	reply, err := c.Do(ctx, http.MethodGet, target, nil)
	switch {
	case err != nil:
		l.history.failed(o, err.Error())
		l.history.settle(o, unknown)
		return
	case reply.Status == http.StatusServiceUnavailable:
		l.history.failed(o, reply.String())
		l.history.settle(o, refused)
		return
	}
	if consistency == stale && reply.Status == http.StatusNotFound {
		l.history.settle(o, acked) // by a replica that has heard of nothing yet
		return
	}
	page, err := client.DecodeMessages(reply.Body)
	if reply.Status != http.StatusOK || err != nil {
		l.bad("read the tail of %s: %v %v", conversation, reply, err)
		return
	}
	o.seen = page.Messages
	l.history.settle(o, acked)
}

// awaitAppends returns once an append that began from now on has been acked in
// every conversation, and how long that took for each.
func (l *load) awaitAppends(t *testing.T) map[string]time.Duration {
	t.Helper()
	return l.awaitAppendsSince(t, l.history.now())
}

func (l *load) awaitAppendsSince(t *testing.T, since time.Duration) map[string]time.Duration {
	t.Helper()
	within(t, recoverBound, func() error { return errMissing(l.missing(since)) })
	return l.history.outage(since)
}

// missing are the conversations without an acked append that began after a time.
func (l *load) missing(since time.Duration) []string {
	done := l.history.appendedSince(since)
	return slices.DeleteFunc(slices.Clone(l.conversations), func(id string) bool { return done[id] })
}

func errMissing(conversations []string) error {
	if len(conversations) == 0 {
		return nil
	}
	return fmt.Errorf("no append was acknowledged in %d conversations: %v", len(conversations), conversations[:min(len(conversations), 8)])
}

// finish ends the load, asks again for every append with an id whose outcome is
// unknown, which must succeed, and verifies everything.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.end()
	if t.Failed() {
		t.FailNow()
	}
	c := l.routers[0]
	for _, operations := range l.history.operations {
		for _, o := range operations {
			if o.read || o.id == "" || o.outcome == acked {
				continue
			}
			within(t, recoverBound, func() error {
				got, err := c.Append(t.Context(), o.conversation, client.TextBody(o.id, o.text))
				if err == nil {
					o.seq = got.Seq
					l.history.settle(o, acked)
				}
				return err
			})
		}
	}
	l.history.verify(t, c)
	t.Logf("%d operations acknowledged, %d refused, %d of unknown outcome",
		l.history.count(acked), l.history.count(refused), l.history.count(unknown))
}

// spread describes durations: the median and the longest.
func spread(all map[string]time.Duration) string {
	var sorted []time.Duration
	for _, d := range all {
		sorted = append(sorted, d)
	}
	slices.Sort(sorted)
	if len(sorted) == 0 {
		return "none"
	}
	return fmt.Sprintf("median %v, longest %v", sorted[(len(sorted)-1)/2].Round(time.Millisecond), sorted[len(sorted)-1].Round(time.Millisecond))
}
