package streams

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
	// slowBuffer is what the kernel may hold for a slow reader, in bytes. With much
	// less than a packet of the loopback it would be TCP that is slow.
	slowBuffer = 64 << 10
	// maxStay bounds the events after which readers that wander leave.
	maxStay = 150
	// slowPause bounds how long a slow reader takes for an event.
	slowPause = 60 * time.Millisecond
)

// readers follow conversations until they have seen the tombstones.
// Goroutines: one per reader.
type readers struct {
	t       *testing.T
	routers []string // base URLs
	hurry   chan struct{}
	ctx     context.Context
	running sync.WaitGroup

	// Counters of what happened.
	streams, cut, told, refused atomic.Int64

	mu  sync.Mutex // guards all
	all []*reader
}

func startReaders(t *testing.T, routers []string) *readers {
	r := &readers{t: t, routers: routers, hurry: make(chan struct{})}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); r.running.Wait() })
	return r
}

// reader is one client that wants a conversation from a cursor on, what it
// draws for itself, and where it is.
type reader struct {
	*readers
	name    string
	of      *conversation
	random  *rand.Rand
	slow    bool
	wanders bool // leaves by itself, and comes back elsewhere

	mu    sync.Mutex // guards place, for those who look
	place Position
}

// add starts a reader with what random draws.
func (r *readers) add(of *conversation, random *rand.Rand) {
	one := &reader{readers: r, of: of, random: random}
	from, where := drawCursor(of, random)
	one.place = *NewPosition(of.record, from)
	one.slow, one.wanders = random.IntN(5) == 0, random.IntN(3) > 0
	r.mu.Lock()
	one.name = fmt.Sprintf("reader %d of %s from %s (slow %v, wanders %v)", len(r.all), of.id, where, one.slow, one.wanders)
	r.all = append(r.all, one)
	r.mu.Unlock()
	r.running.Go(one.run)
}

// drawCursor draws where to begin: nowhere, the start, the middle, or beyond the
// end.
func drawCursor(of *conversation, random *rand.Rand) (from uint64, where string) {
	length := of.acked.Load()
	switch random.IntN(5) {
	case 0:
		return 0, "now"
	case 1:
		return length + 1 + random.Uint64N(20), "beyond the end"
	case 2:
		return 1 + random.Uint64N(length+1), "the middle"
	}
	return 1, "the start"
}

// run opens one stream after the other until the tombstone has come.
func (r *reader) run() {
	for r.ctx.Err() == nil && !r.place.Done {
		kind := Transports()[r.random.IntN(3)]
		router := r.routers[r.random.IntN(len(r.routers))]
		if err := r.follow(kind, router); err != nil && r.ctx.Err() == nil {
			r.t.Errorf("%s, on %s: %v", r.name, kind, err)
			return
		}
		// As clients do, though not for as long.
		_ = pause(r.ctx, time.Duration(r.random.Int64N(int64(100*time.Millisecond))))
	}
}

// options draws how to name the cursor. What Resume names wins over From, which
// a browser that comes back sends as it was.
func (r *reader) options(kind Transport) Options {
	o := Options{From: r.place.Next, Compress: r.random.IntN(2) == 0}
	if r.slow {
		o.ReadBuffer = slowBuffer
	}
	if kind != WebSocket && r.place.Next > 0 && r.random.IntN(2) == 0 {
		last := r.place.Next - 1
		o.Resume = &last
		if kind == SSE {
			o.From = r.random.Uint64N(r.place.Next + 1)
		}
	}
	return o
}

// follow reads from one stream until that ends or the reader has had enough of
// it. It returns an error only for what must not be.
func (r *reader) follow(kind Transport, router string) error {
	stream, err := Open(r.ctx, kind, router, r.of.id, r.options(kind))
	if err != nil {
		return r.excuse(err)
	}
	defer stream.Close()
	r.streams.Add(1)
	r.change(func(p *Position) { p.Begin(kind) })
	stay := -1
	if r.wanders {
		stay = r.random.IntN(maxStay)
	}
	for ; stay != 0 && !r.place.Done; stay-- {
		e, err := stream.Next(r.ctx)
		if err != nil {
			return r.excuse(err)
		}
		r.told.Add(1)
		r.change(func(p *Position) { err = p.Take(&e) })
		if err != nil {
			return err
		}
		// Read after the event: nobody can be told of what was not submitted.
		if longest := r.of.submitted.Load(); e.Seq > longest {
			return fmt.Errorf("%s of %d, though only %d messages were sent", e.Type, e.Seq, longest)
		}
		r.dawdle()
	}
	return nil
}

func (r *reader) change(f func(*Position)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.place)
}

// dawdle has a slow reader take its time, while others write.
func (r *reader) dawdle() {
	if !r.slow {
		return
	}
	timer := time.NewTimer(time.Duration(r.random.Int64N(int64(slowPause))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.hurry:
	case <-r.ctx.Done():
	}
}

// restartCodes are those with which a router may close a stream that is in
// order: none if it was killed, restarting, or try again later.
var restartCodes = []int{0, 1012, 1013}

// excuse returns the error unless it is one of those that faults cause.
func (r *readers) excuse(err error) error {
	var ended *ClosedError
	var answered *RefusedError
	var join *JoinError
	switch {
	case r.ctx.Err() != nil:
		return nil
	case errors.As(err, &ended):
		if slices.Contains(restartCodes, ended.Code) {
			r.cut.Add(1)
			return nil
		}
	case errors.As(err, &answered):
		if answered.Reply.Status == http.StatusServiceUnavailable {
			r.refused.Add(1)
			return nil
		}
	case errors.As(err, &join):
		if join.Reason == "unavailable" {
			r.refused.Add(1)
			return nil
		}
	case errors.Is(err, ErrUnreachable):
		r.refused.Add(1)
		return nil
	}
	return err
}

// finish waits until all have seen the tombstones, and holds where they stand
// against the logs.
func (r *readers) finish(logs map[*conversation][]client.Message) {
	r.t.Helper()
	close(r.hurry)
	for _, one := range r.all {
		within(r.t, func() error {
			one.mu.Lock()
			defer one.mu.Unlock()
			if r.t.Failed() || one.place.Done {
				return nil
			}
			return fmt.Errorf("%s waits at %d of %d", one.name, one.place.Next, len(logs[one.of]))
		})
	}
	r.running.Wait()
	for _, one := range r.all {
		// Whoever wanted to begin beyond the end has nothing to see before.
		if next, end := one.place.Next, uint64(len(logs[one.of]))+1; next < end || one.place.Seen > 0 && next != end {
			r.t.Errorf("%s: the tombstone came at %d, the log ends before %d", one.name, next, end)
		}
	}
	for one, log := range logs {
		if err := one.record.Check(log); err != nil {
			r.t.Errorf("%s: %v", one.id, err)
		}
	}
}

// lookAgain follows the whole of each conversation from every router on every
// transport, twice. The first to come makes the router learn where the end is;
// who comes then is told that, and nothing else.
func (r *readers) lookAgain(logs map[*conversation][]client.Message, random *rand.Rand) {
	r.t.Helper()
	for of, log := range logs {
		for _, router := range r.routers {
			for look := range 2 {
				for _, kind := range Transports() {
					one := &reader{readers: r, name: "a late reader of " + of.id, of: of, random: random, place: *NewPosition(of.record, 1)}
					within(r.t, func() error {
						if err := one.follow(kind, router); err != nil {
							r.t.Errorf("%s, on %s: %v", one.name, kind, err)
						} else if !one.place.Done {
							return errors.New("no stream to the end")
						}
						return nil
					})
					if r.t.Failed() {
						return
					}
					if end := uint64(len(log)); one.place.Seen != len(log) || look > 0 && *one.place.CaughtUp != end {
						r.t.Errorf("%s, on %s: saw %d of %d messages and caught up at %d", one.name, kind, one.place.Seen, end, *one.place.CaughtUp)
					}
				}
			}
		}
	}
}
