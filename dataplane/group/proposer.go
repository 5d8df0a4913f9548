package group

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// A proposal is one write waiting for its outcome. Its phase decides who may
// still give up on it: the caller while it waits, nobody once it is proposed.
// Until it is encoded the proposer reads the caller's memory.
type proposal struct {
	op       state.Op
	bytes    int64
	enqueued int64 // on the group's clock
	phase    atomic.Int32
	span     trace.Span         // of the caller, nil unless it is sampled
	course   course             // of the entry, set before the answer
	shared   []trace.Link       // the sampled callers of the entry, when there are several
	done     chan state.Outcome // capacity 1: the proposer never waits for a caller
}

const (
	phaseWaiting int32 = iota
	phaseProposed
	phaseEncoded
	phaseAbandoned
)

var proposals = sync.Pool{New: func() any {
	return &proposal{done: make(chan state.Outcome, 1)}
}}

// propose queues op and waits for its outcome. When ctx ends first the error
// tells whether the write can still happen: rpc.ErrUnavailable before it was
// handed to Raft, rpc.ErrOutcomeUnknown after. It fills in took, when that is
// not nil.
func (g *Group) propose(ctx context.Context, op state.Op, bytes int64, took *passage) (any, error) {
	if err := g.writable(); err != nil {
		return nil, err
	}
	if !g.opts.Budget.take(bytes) {
		return nil, fmt.Errorf("group %d: node queue bytes: %w", g.opts.Group, rpc.ErrOverloaded)
	}
	p := proposals.Get().(*proposal)
	p.op, p.bytes, p.enqueued = op, bytes, g.clock()
	if took != nil {
		p.span, took.enqueued = took.span, p.enqueued
	}
	p.phase.Store(phaseWaiting)
	if err := g.enqueue(p); err != nil {
		g.opts.Budget.give(bytes)
		p.recycle()
		return nil, err
	}
	select {
	case out := <-p.done:
		if took != nil {
			took.course, took.shared = p.course, p.shared
		}
		p.recycle()
		return out.Reply, out.Err
	case <-*g.stall.over.Load():
		return g.giveUp(p, took, rpc.ErrStorageFull)
	case <-ctx.Done():
		return g.giveUp(p, took, rpc.ErrUnavailable)
	}
}

// recycle gives the proposal back. Nobody else may hold it.
func (p *proposal) recycle() {
	p.op, p.span, p.shared, p.course = state.Op{}, nil, nil, course{}
	proposals.Put(p)
}

func (g *Group) enqueue(p *proposal) error {
	g.queueMu.RLock()
	defer g.queueMu.RUnlock()
	if g.queueClosed {
		return fmt.Errorf("group %d: %w", g.opts.Group, rpc.ErrClosed)
	}
	select {
	case g.queue <- p:
		return nil
	default:
		return fmt.Errorf("group %d: queue of %d: %w", g.opts.Group, maxQueuedProposals, rpc.ErrOverloaded)
	}
}

// runProposer packs what waits into one Raft entry, waits for it to be applied
// while the next batch gathers, and answers. It owns the Raft instance: only
// here is it started and stopped, so no entry of ours is in flight then.
func (g *Group) runProposer() {
	defer close(g.proposerDone)
	var batch batch
	for {
		select {
		case p, ok := <-g.queue:
			if !ok {
				return
			}
			batch.gather(p, g.queue)
			g.commit(&batch)
			batch.reset()
		case a := <-g.asides:
			g.commitAside(a)
		case req := <-g.restarts:
			req <- g.restartRaft()
		}
	}
}

// batch is what one Raft entry will carry. The last member may take it over
// maxEntryBytes, by at most one write.
type batch struct {
	members []*proposal
	ops     []state.Op
	bytes   int64
}

func (b *batch) add(p *proposal) {
	b.members = append(b.members, p)
	b.bytes += p.bytes
}

func (b *batch) gather(first *proposal, queue <-chan *proposal) {
	b.add(first)
	for len(b.members) < maxEntryOps && b.bytes < maxEntryBytes {
		select {
		case p, ok := <-queue:
			if !ok {
				return
			}
			b.add(p)
		default:
			return
		}
	}
}

func (b *batch) reset() {
	clear(b.members)
	clear(b.ops)
	b.members, b.ops, b.bytes = b.members[:0], b.ops[:0], 0
}

// commit proposes the batch and answers its members.
func (g *Group) commit(b *batch) {
	var released int64
	kept := b.members[:0]
	for _, p := range b.members {
		released += p.bytes
		if p.phase.CompareAndSwap(phaseWaiting, phaseProposed) {
			kept = append(kept, p)
			b.ops = append(b.ops, p.op)
		}
	}
	b.members = kept
	defer g.opts.Budget.give(released)
	if len(kept) == 0 {
		return
	}
	g.flight.begin()
	outcomes, err := g.replicate(time.Now(), b)
	passed, shared := g.flight.course(), sharing(kept)
	for i, p := range kept {
		p.course, p.shared = passed, shared
		if err != nil {
			p.done <- state.Outcome{Err: err}
		} else {
			p.done <- outcomes[i]
		}
	}
	if m := g.opts.Measure; m != nil {
		m.Entry(len(kept), b.bytes)
	}
}

// replicate puts the batch through Raft and returns the outcome of each op.
func (g *Group) replicate(now time.Time, b *batch) ([]state.Outcome, error) {
	data := state.EncodeCommand(make([]byte, 0, int(b.bytes)+64*len(b.ops)+64), now, b.ops...)
	for _, p := range b.members {
		p.phase.Store(phaseEncoded)
	}
	return g.raise(data, len(b.ops))
}

// raise puts a command through Raft and returns the outcomes of its ops.
func (g *Group) raise(data []byte, ops int) ([]state.Outcome, error) {
	r := g.raft.Load()
	if r == nil {
		return nil, fmt.Errorf("group %d: restarting: %w", g.opts.Group, rpc.ErrUnavailable)
	}
	g.stall.raised.Store(g.clock())
	g.proposing.Store(true)
	defer g.proposing.Store(false)
	future := r.Apply(data, 0)
	if err := future.Error(); err != nil {
		return nil, g.applyError(err)
	}
	if g.transfer.refused.Load() != 0 {
		g.transfer.refused.Store(0)
	}
	switch resp := future.Response().(type) {
	case []state.Outcome:
		if len(resp) != ops {
			return nil, fmt.Errorf("group %d: %d outcomes for %d writes: %w", g.opts.Group, len(resp), ops, rpc.ErrOutcomeUnknown)
		}
		return resp, nil
	case error:
		return nil, fmt.Errorf("group %d: apply: %w", g.opts.Group, resp)
	default:
		return nil, fmt.Errorf("group %d: apply returned %T: %w", g.opts.Group, resp, rpc.ErrOutcomeUnknown)
	}
}

// applyError turns raft's error into the caller's decision. Raft answers
// ErrNotLeader, ErrLeadershipTransferInProgress, ErrEnqueueTimeout and
// ErrRaftShutdown only for entries it never took; after any other error the
// entry may be in the log and may still commit.
func (g *Group) applyError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return g.notLeader()
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		g.transfer.refused.CompareAndSwap(0, time.Now().UnixNano())
		return fmt.Errorf("group %d: %w: %w", g.opts.Group, err, rpc.ErrUnavailable)
	case errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("group %d: %w: %w", g.opts.Group, err, rpc.ErrUnavailable)
	default:
		return fmt.Errorf("group %d: %w: %w", g.opts.Group, err, rpc.ErrOutcomeUnknown)
	}
}
