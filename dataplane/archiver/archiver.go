package archiver

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Archiver archives the groups that a node holds leases for and leads.
//
// Goroutines: runLeases (owner of the leases; begins with making the archive
// ready), runScan (finds what is behind after a lease was got), runTicks, and
// the writers. Close stops all of them.
type Archiver struct {
	opts Options
	log  *slog.Logger

	trackers [rpc.Groups]tracker
	entries  atomic.Int64 // of all trackers
	pending  atomic.Int64 // messages known not to be archived
	queued   atomic.Int64 // those of them that no writer has taken
	numbers  atomic.Uint64
	due      atomic.Uint64 // entries up to this number need not wait any more
	next     atomic.Uint32 // the group that the next batch begins with

	// trusted is until when the leases may be believed in, by the monotonic
	// clock; nil before the first.
	trusted  atomic.Pointer[time.Time]
	resigned atomic.Bool // see Resigned

	work   chan struct{} // capacity 1: there may be something to write
	scan   chan struct{} // capacity 1: a group may need a scan
	renew  chan struct{} // capacity 1: a lease was refused, ask again soon
	ready  chan struct{} // closed once the archive was prepared
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	health health
	totals totals
}

// New returns an archiver that does nothing before Start. Its hooks may be
// given to groups before.
func New(opts Options) (*Archiver, error) {
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("archiver: %w", err)
	}
	if opts.resignAfter == 0 {
		opts.resignAfter = resignAfter
	}
	a := &Archiver{
		opts: opts, log: opts.Logger.With("component", "archiver"),
		work: make(chan struct{}, 1), scan: make(chan struct{}, 1), renew: make(chan struct{}, 1),
		ready: make(chan struct{}),
	}
	for i := range a.trackers {
		a.trackers[i].init(a, rpc.Group(i))
	}
	return a, nil
}

// Start begins to ask for leases and to archive.
func (a *Archiver) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	a.wg.Go(func() { a.runLeases(ctx) })
	a.wg.Go(func() { a.runScan(ctx) })
	a.wg.Go(func() { a.runTicks(ctx) })
	for range writers {
		a.wg.Go(func() { a.runWriter(ctx) })
	}
}

// Close stops archiving, waits for what is under way to end, and gives the
// leases back. Groups and store must live until it returns.
func (a *Archiver) Close() {
	a.once.Do(func() {
		if a.cancel == nil {
			return
		}
		a.cancel()
		a.wg.Wait()
		select {
		case <-a.ready:
		default:
			return // never asked for any
		}
		if err := a.giveBack(context.Background(), releaseTimeout); err != nil {
			a.log.Info("leases were not given back, they will expire", "error", err)
		}
	})
}

// Committed is told what a group applies, see state.Options. It takes a moment.
func (a *Archiver) Committed(id rpc.Group, list []state.Committed) {
	t := &a.trackers[id]
	if !t.tracking.Load() {
		return
	}
	for i := range list {
		c := &list[i]
		n := entryNews{key: c.Key, touched: c.Tombstoned}
		if len(c.Messages) > 0 {
			n.first, n.last = c.Messages[0].Seq, c.Messages[len(c.Messages)-1].Seq
		}
		t.note(n)
	}
	if a.full() {
		kick(a.work)
	}
}

// Touched is told that a conversation was created, or its metadata replaced.
func (a *Archiver) Touched(id rpc.Group, key rpc.Key) {
	if t := &a.trackers[id]; t.tracking.Load() {
		t.note(entryNews{key: key, touched: true})
	}
}

// Reset is told that a snapshot replaced a group's state: anything may have
// changed.
func (a *Archiver) Reset(id rpc.Group) {
	if t := &a.trackers[id]; t.tracking.Load() {
		t.rescan()
		kick(a.scan)
	}
}

// full reports whether so much waits that it is not left to gather until the
// next tick.
func (a *Archiver) full() bool { return a.queued.Load() >= int64(a.opts.BatchRows)*gatherBatches }

// runTicks lets what has gathered be written, once per interval.
func (a *Archiver) runTicks(ctx context.Context) {
	tick := time.NewTicker(a.opts.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			a.due.Store(a.numbers.Load())
			for i := range a.trackers {
				a.trackers[i].retry(now)
			}
			kick(a.work)
			kick(a.scan)
		}
	}
}

// kick wakes whoever waits on c, or lets the next one not wait.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// backoff counts failures in a row. It belongs to one goroutine.
type backoff struct{ failures int }

func (b *backoff) reset() { b.failures = 0 }

// wait waits before the next try; false means that ctx has ended.
func (b *backoff) wait(ctx context.Context) bool {
	d := retryMax
	if b.failures < 8 {
		d = min(retryMin<<b.failures, retryMax)
	}
	b.failures++
	return pause(ctx, d/2+rand.N(d/2))
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
