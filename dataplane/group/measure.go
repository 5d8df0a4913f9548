package group

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.opentelemetry.io/otel/trace"
)

// Measure is told what a replica does and how long that takes. Implementations
// are called from hot paths and from Raft's goroutines, concurrently: they must
// be cheap and must not block.
type Measure interface {
	// Appended: an append has ended, with err, and spent its time in these
	// stages. caller is the span it was made in, nil unless that is sampled.
	Appended(caller trace.Span, s Stages, err error)
	// Entry: so many writes of so many bytes were proposed as one Raft entry.
	Entry(writes int, bytes int64)
	// LogSynced: one durable write of Raft log entries, of a leader or a
	// follower, took so long.
	LogSynced(took time.Duration)
	// Led: the replica began to lead, or ceased to.
	Led(leading bool)
	// Stood: the replica stands for election, or asks whether it could.
	Stood()
}

// Stages is where an append spent its time on its leader. They follow each other
// without a gap. A stage that was not reached is negative; the last one reached
// is the one in which a failed append was given up.
type Stages struct {
	// Queue ends when the leader begins to write the entry to its log.
	Queue time.Duration
	// LogSync ends when the leader holds the entry on its disk.
	LogSync time.Duration
	// Replicate ends when a quorum holds it and the state machine is handed it.
	Replicate time.Duration
	// Apply ends when the append's caller has the answer.
	Apply time.Duration
}

// Total is the sum of the stages.
func (s *Stages) Total() time.Duration {
	return max(s.Queue, 0) + max(s.LogSync, 0) + max(s.Replicate, 0) + max(s.Apply, 0)
}

// flight is the course of the entry that the proposer waits for: nanoseconds of
// the group's clock, 0 for what has not happened. Raft's main goroutine writes
// the first two, its state machine's the third, and the proposer begins it.
type flight struct {
	syncing, synced, applying atomic.Int64
}

// course is a flight's moments, as a proposal keeps them.
type course struct {
	syncing, synced, applying int64
}

func (f *flight) begin() {
	f.syncing.Store(0)
	f.synced.Store(0)
	f.applying.Store(0)
}

func (f *flight) course() course {
	return course{syncing: f.syncing.Load(), synced: f.synced.Load(), applying: f.applying.Load()}
}

// stages divides the time between two moments.
func (c course) stages(from, to int64) Stages {
	s := Stages{Queue: -1, LogSync: -1, Replicate: -1, Apply: -1}
	for _, part := range []struct {
		stage *time.Duration
		ends  int64
	}{{&s.Queue, c.syncing}, {&s.LogSync, c.synced}, {&s.Replicate, c.applying}, {&s.Apply, to}} {
		end := part.ends
		if end == 0 || end > to {
			end = to // it was under way
		}
		*part.stage = time.Duration(max(end-from, 0))
		if part.ends == 0 {
			break
		}
		from = max(from, end)
	}
	return s
}

// clock is the group's own: nanoseconds since it was opened, never 0.
func (g *Group) clock() int64 { return int64(time.Since(g.born)) + 1 }

// logSynced is told by the log of every durable write.
func (g *Group) logSynced(took time.Duration) {
	if g.proposing.Load() && g.flight.synced.Load() == 0 {
		now := g.clock()
		g.flight.syncing.Store(now - int64(took))
		g.flight.synced.Store(now)
	}
	if m := g.opts.Measure; m != nil {
		m.LogSynced(took)
	}
}

// reached is told by the state machine of committed entries.
func (g *Group) reached(logs []*raft.Log) {
	if !g.proposing.Load() || g.flight.synced.Load() == 0 || g.flight.applying.Load() != 0 {
		return
	}
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			g.flight.applying.Store(g.clock())
			return
		}
	}
}

// stood counts elections. Raft's observers see every change of its state; the
// filter runs where it changes, so nothing need be drained.
func (g *Group) stood(o *raft.Observation) bool {
	if state, ok := o.Data.(raft.RaftState); ok && state == raft.Candidate {
		g.opts.Measure.Stood()
	}
	return false
}

// passage is what an append learns of its way through the group.
type passage struct {
	span     trace.Span // of the caller, nil unless it is sampled
	enqueued int64      // 0 when it never was
	course   course
	shared   []trace.Link
}

// passed measures and traces an append that has ended.
func (g *Group) passed(ctx context.Context, p *passage, err error) Stages {
	now := g.clock()
	stages := Stages{LogSync: -1, Replicate: -1, Apply: -1}
	if p.enqueued != 0 {
		stages = p.course.stages(p.enqueued, now)
	}
	if m := g.opts.Measure; m != nil {
		m.Appended(p.span, stages, err)
	}
	if p.span != nil && g.opts.Tracer != nil {
		g.trace(ctx, p, stages, err)
	}
	return stages
}
