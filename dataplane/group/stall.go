package group

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/raftlog"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// stallAfter is how long an entry may wait for a full disk before its writers
// are answered and followers may choose another leader.
const stallAfter = time.Second

// stall is about a disk without room. The storage waits for room, and Raft's
// main loop waits in it: it cannot hand leadership over or step down, while its
// heartbeats, on goroutines of their own, keep followers from electing another.
// A replica that is stuck in that way is stalled: its writers are answered and
// its heartbeats are held, so that others elect a leader that has room. Raft
// does the rest once there is room again.
type stall struct {
	writing atomic.Int64 // when Raft's write under way began, on the group's clock, or 0
	raised  atomic.Int64 // the same of the proposer's entry; valid while it is proposing

	// over is closed while the replica is stalled.
	over atomic.Pointer[chan struct{}]

	// Owned by the caller of Stall.
	stalled bool
	told    bool // subscribers know
}

func (s *stall) init() {
	over := make(chan struct{})
	s.over.Store(&over)
}

// watchedLog notes what Raft's main loop writes.
type watchedLog struct {
	*raftlog.Log
	g *Group
}

// StoreLog implements raft.LogStore.
func (w watchedLog) StoreLog(entry *raft.Log) error { return w.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (w watchedLog) StoreLogs(entries []*raft.Log) error {
	w.g.stall.writing.Store(w.g.clock())
	defer w.g.stall.writing.Store(0)
	return w.Log.StoreLogs(entries)
}

// Set implements raft.StableStore.
func (w watchedLog) Set(key, value []byte) error {
	w.g.stall.writing.Store(w.g.clock())
	defer w.g.stall.writing.Store(0)
	return w.Log.Set(key, value)
}

// SetUint64 implements raft.StableStore.
func (w watchedLog) SetUint64(key []byte, value uint64) error {
	w.g.stall.writing.Store(w.g.clock())
	defer w.g.stall.writing.Store(0)
	return w.Log.SetUint64(key, value)
}

// Stall tells the replica whether its disk is full, some times a second and from
// one goroutine. It does not block, unless subscribers do.
func (g *Group) Stall(full bool) {
	s := &g.stall
	stuck := full && g.stuck()
	switch {
	case stuck && !s.stalled:
		s.stalled, s.told = true, false
		g.log.Warn("an entry waits for a full disk, others may lead")
		g.lease.holdHeartbeats()
		close(*s.over.Load())
	case !stuck && s.stalled:
		s.stalled = false
		s.init()
		g.lease.releaseHeartbeats()
	}
	// While the lease lasts, nobody else leads.
	if s.stalled && !s.told && !g.Leading() {
		s.told = true
		g.feed.End(g.leftLead())
		if g.opts.Changed != nil {
			g.opts.Changed(g.opts.Group)
		}
	}
}

// stuck reports whether an entry, a term or a vote has been under way for long.
func (g *Group) stuck() bool {
	before := g.clock() - int64(stallAfter)
	writing := g.stall.writing.Load()
	return writing != 0 && writing < before || g.proposing.Load() && g.stall.raised.Load() < before
}

// giveUp answers a writer that waits no longer: with why, if nothing of the
// write was proposed, else with rpc.ErrOutcomeUnknown.
func (g *Group) giveUp(p *proposal, took *passage, why error) (any, error) {
	// The proposer may still hold p, so it is left to the garbage collector.
	if p.phase.CompareAndSwap(phaseWaiting, phaseAbandoned) {
		return nil, fmt.Errorf("group %d: waiting to propose: %w", g.opts.Group, why)
	}
	if took != nil {
		took.course = g.flight.course()
	}
	// The caller may reuse its memory once this returns. Encoding is brief.
	for p.phase.Load() == phaseProposed {
		select {
		case out := <-p.done:
			return out.Reply, out.Err
		default:
			runtime.Gosched()
		}
	}
	return nil, fmt.Errorf("group %d: waiting for commit: %w", g.opts.Group, rpc.ErrOutcomeUnknown)
}
