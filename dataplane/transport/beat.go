package transport

import (
	"sync"
	"sync/atomic"
	"time"
)

// beat gathers the heartbeats of all groups of a node, so that those of an
// idle cluster travel together. Heartbeats come from one timer per group and
// follower; sent as they come, each costs a write and a read at both ends.
//
// Goroutines: none; the first who waits starts the timer of the beat.
type beat struct {
	every time.Duration

	mu    sync.Mutex    // guards the fields below
	next  chan struct{} // closed at the next beat; nil while nobody waits
	timer *time.Timer   // of the next beat, or the last
}

// wait returns the channel that is closed at the next beat.
func (b *beat) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
		b.timer = time.AfterFunc(b.every, b.strike)
	}
	return b.next
}

func (b *beat) strike() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.next)
	b.next = nil
}

// stop ends the timer. Those who wait must have another reason to go on.
func (b *beat) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
}

// hurry lets the heartbeats of one view skip the beat.
type hurry struct {
	until atomic.Int64 // on the Mux's clock

	mu  sync.Mutex    // guards now
	now chan struct{} // closed by Expedite; nil while nobody waits
}

func (h *hurry) wait() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil {
		h.now = make(chan struct{})
	}
	return h.now
}

func (h *hurry) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now != nil {
		close(h.now)
		h.now = nil
	}
}

// Expedite sends the heartbeats of this group without waiting for the beat
// (Timeouts.Beat): those that wait, and those of the next moments. Call it
// before Raft.VerifyLeader, which waits for a heartbeat.
func (v *View) Expedite() {
	if v.mux.beat.every > 0 {
		v.hurry.until.Store(int64(v.mux.now() + expediteTime))
		v.hurry.release()
	}
}

// expediteTime is how long Expedite has effect: about as long as it takes raft
// to start its heartbeats.
const expediteTime = 2 * maxTick

// awaitBeat holds a heartbeat back until the next beat.
func (v *View) awaitBeat() error {
	if v.mux.beat.every == 0 || int64(v.mux.now()) < v.hurry.until.Load() {
		return nil
	}
	select {
	case <-v.mux.beat.wait():
	case <-v.hurry.wait():
	case <-v.ctx.Done():
		return ErrClosed
	}
	return nil
}
