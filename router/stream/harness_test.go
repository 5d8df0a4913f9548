package stream

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

func testHub(t testing.TB, log *streamtest.Log, changes ...func(*Config)) *Hub {
	cfg := Config{
		Node: log, Feed: log, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		BackoffMin: time.Millisecond, BackoffMax: 4 * time.Millisecond, Sweep: 10 * time.Millisecond,
	}
	for _, change := range changes {
		change(&cfg)
	}
	h, err := NewHub(cfg)
	require.NoError(t, err)
	t.Cleanup(h.Close)
	return h
}

// client is a session that remembers what it was told.
type client struct {
	t       testing.TB
	session *Session

	mu    sync.Mutex // guards the rest
	steps map[*Cursor]*told
	todo  []func()
	hold  chan struct{} // work waits for it, if not nil
	more  *sync.Cond
}

// told is what one cursor has said.
type told struct {
	joined    int
	failed    bool
	state     State
	seqs      []uint64
	gaps      [][2]uint64
	caughtUp  []uint64
	resume    uint64
	tombstone int
	order     []string // kinds, runs of messages as one
}

func newClient(t testing.TB, h *Hub) *client {
	c := &client{t: t, steps: make(map[*Cursor]*told)}
	c.more = sync.NewCond(&c.mu)
	c.session = h.NewSession(c.work)
	t.Cleanup(func() {
		c.resume()
		c.session.Close()
		for cursor := range c.steps {
			cursor.Leave()
		}
	})
	return c
}

func (c *client) work() {
	c.mu.Lock()
	hold, todo := c.hold, c.todo
	c.todo = nil
	c.mu.Unlock()
	if hold != nil {
		<-hold
	}
	for _, do := range todo {
		do()
	}
	var step Step
	for cursor := c.session.Next(&step); cursor != nil; cursor = c.session.Next(&step) {
		c.mu.Lock()
		c.steps[cursor].take(&step)
		hold := c.hold
		c.more.Broadcast()
		c.mu.Unlock()
		if hold != nil {
			<-hold
		}
	}
}

func (d *told) take(s *Step) {
	say := func(kind string) {
		if n := len(d.order); kind != "message" || n == 0 || d.order[n-1] != kind {
			d.order = append(d.order, kind)
		}
	}
	if s.Failed {
		d.failed = true
		say("failed")
	}
	if s.Joined {
		d.joined++
		d.state = s.State
		say("joined")
	}
	if s.Gap {
		d.gaps = append(d.gaps, [2]uint64{s.Expected, s.Actual})
		say("gap")
	}
	for _, f := range s.Frames {
		d.seqs = append(d.seqs, f.Seq)
		say("message")
	}
	if s.CaughtUp {
		d.caughtUp = append(d.caughtUp, s.Seq)
		say("caught_up")
	}
	if s.Tombstone {
		d.tombstone++
		say("tombstone")
	}
	d.resume = s.Resume
}

// do runs something on the session's goroutine.
func (c *client) do(what func()) {
	done := make(chan struct{})
	c.mu.Lock()
	c.todo = append(c.todo, func() { what(); close(done) })
	c.mu.Unlock()
	c.session.Poke()
	<-done
}

func (c *client) join(key rpc.Key, from uint64) *Cursor {
	c.t.Helper()
	var cursor *Cursor
	c.do(func() {
		joined, err := c.session.Join(key, from)
		require.NoError(c.t, err)
		cursor = joined
		c.mu.Lock()
		c.steps[cursor] = &told{}
		c.mu.Unlock()
	})
	return cursor
}

// stop makes the client slow: its work waits until resume.
func (c *client) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hold == nil {
		c.hold = make(chan struct{})
	}
}

func (c *client) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hold != nil {
		close(c.hold)
		c.hold = nil
	}
}

// until waits until the cursor has said enough, and returns a copy of all.
func (c *client) until(cursor *Cursor, enough func(*told) bool) told {
	c.t.Helper()
	timer := time.AfterFunc(patience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.more.Broadcast()
	})
	defer timer.Stop()
	deadline := time.Now().Add(patience)
	c.mu.Lock()
	defer c.mu.Unlock()
	for !enough(c.steps[cursor]) {
		if !time.Now().Before(deadline) {
			require.FailNow(c.t, "not told in time", "%+v", *c.steps[cursor])
		}
		c.more.Wait()
	}
	return *c.steps[cursor]
}

func run(from, to uint64) []uint64 {
	var seqs []uint64
	for seq := from; seq <= to; seq++ {
		seqs = append(seqs, seq)
	}
	return seqs
}

func messages(n int) func(*told) bool { return func(d *told) bool { return len(d.seqs) >= n } }
func caughtUp(d *told) bool           { return len(d.caughtUp) > 0 }
func tombstoned(d *told) bool         { return d.tombstone > 0 }
