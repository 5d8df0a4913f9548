package group

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Bounds of what a follower defers. The gain is had with few entries; what is
// deferred is read from the log again after a crash.
const (
	maxDeferredEntries = 16
	maxDeferredBytes   = 64 << 10
	maxDeferredTime    = 250 * time.Millisecond
)

// deferred holds committed entries that a follower has not applied yet. Nobody
// waits for a follower to apply, and a batch of entries costs little more than
// one of them, so that it does a fraction of the leader's work.
//
// Whoever needs the state calls applyDeferred first: a replica that begins to
// lead, a stale read, a snapshot, a hash. To raft the entries are applied; what
// it truncates on the strength of that is applied before (fsm.Snapshot).
type deferred struct {
	// since is when the oldest entry was deferred, Unix nanoseconds; 0: none is.
	since atomic.Int64
	// eager counts readers that wait for the state to move: nothing is deferred.
	eager atomic.Int32

	mu      sync.Mutex    // guards the fields below; held while they are applied, to keep the order
	entries []state.Entry // raft never changes what they share with it
	bytes   int           // of their data
	closed  bool
}

// defers reports whether the entries can wait. Those of a leader cannot, nor
// those that this replica proposed.
func (g *Group) defers(logs []*raft.Log) bool {
	if g.proposing.Load() || g.deferred.eager.Load() > 0 {
		return false
	}
	if r := g.raft.Load(); r == nil || r.State() != raft.Follower {
		return false
	}
	for _, l := range logs {
		if l.Type != raft.LogCommand {
			return false
		}
	}
	return true
}

// postpone keeps the entries for later, or applies them with those that waited
// once they are many.
func (g *Group) postpone(logs []*raft.Log) error {
	d := &g.deferred
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.entries) == 0 {
		d.since.Store(time.Now().UnixNano())
	}
	for _, l := range logs {
		d.entries = append(d.entries, state.Entry{Index: l.Index, Term: l.Term, Kind: state.KindCommand, Data: l.Data})
		d.bytes += len(l.Data)
	}
	if len(d.entries) < maxDeferredEntries && d.bytes < maxDeferredBytes {
		return nil
	}
	_, err := g.applyLocked(nil)
	return err
}

// applyNow applies what was deferred, then the entries, and returns their
// outcomes.
func (g *Group) applyNow(entries []state.Entry) ([][]state.Outcome, error) {
	g.deferred.mu.Lock()
	defer g.deferred.mu.Unlock()
	return g.applyLocked(entries)
}

// applyDeferred applies what was deferred. What is committed and known to be so
// on this replica is in the state afterwards.
func (g *Group) applyDeferred() error {
	if g.deferred.since.Load() == 0 {
		return nil
	}
	_, err := g.applyNow(nil)
	return err
}

// applyLocked is called with the lock of deferred held.
func (g *Group) applyLocked(entries []state.Entry) ([][]state.Outcome, error) {
	d := &g.deferred
	if err := g.failed(); err != nil {
		return nil, err
	}
	if d.closed {
		return nil, rpc.ErrClosed
	}
	waited := len(d.entries)
	if waited > 0 {
		d.entries = append(d.entries, entries...)
		entries = d.entries
	}
	if len(entries) == 0 {
		return nil, nil
	}
	outcomes, err := g.machine.Apply(entries)
	clear(d.entries)
	d.entries, d.bytes = d.entries[:0], 0
	d.since.Store(0)
	if err != nil {
		g.fail(fmt.Errorf("apply: %w", err))
		return nil, err
	}
	return outcomes[waited:], nil
}

// close drops what waits: it is in the log.
func (d *deferred) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed, d.entries = true, nil
	d.since.Store(0)
}

// ApplyDeferred applies entries that have waited for long. The node calls it
// every now and then.
func (g *Group) ApplyDeferred(now time.Time) {
	since := g.deferred.since.Load()
	if since != 0 && now.UnixNano()-since >= int64(maxDeferredTime) {
		_ = g.applyDeferred() // a failure stops the replica, which is where it shows
	}
}
