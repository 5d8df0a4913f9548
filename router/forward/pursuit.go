package forward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/table"
)

// lead calls the leader of the group until op succeeds, fails for good, or the
// retry budget is spent. repeat allows another try after an unknown outcome.
func (f *Forwarder) lead(ctx context.Context, g rpc.Group, repeat bool, op func(context.Context, rpc.Node) error) error {
	return f.pursue(ctx, pursuit{group: g, repeat: repeat}, op)
}

// read calls the leader, or any replica when a stale answer will do.
func (f *Forwarder) read(ctx context.Context, g rpc.Group, c rpc.Consistency, op func(context.Context, rpc.Node) error) error {
	p := pursuit{group: g}
	if c == rpc.Stale {
		p.anyReplica = true
		p.turn = rand.IntN(1 << 16)
	}
	return f.pursue(ctx, p, op)
}

func (f *Forwarder) pursue(ctx context.Context, p pursuit, op func(context.Context, rpc.Node) error) error {
	start := time.Now()
	var unknown error // of an earlier try
	for {
		route, _ := f.cfg.Table.Lookup(p.group)
		target := p.choose(route)
		err := f.try(ctx, p.group, target, op)
		if err == nil {
			return nil
		}
		if target == nil {
			err = fmt.Errorf("group %d has no known replica: %w", p.group, rpc.ErrUnavailable)
		}
		if errors.Is(err, errSuperseded) && p.superseded < maxSuperseded {
			p.superseded++
			start = time.Now() // the time that was lost is not held against it
		}
		pause, again := p.next(f, route, target, err)
		if !again || !wait(ctx, pause, f.cfg.RetryBudget-time.Since(start)) {
			return afterUnknown(unknown, err)
		}
		if errors.Is(err, rpc.ErrOutcomeUnknown) {
			unknown = err
		}
	}
}

// decided are the errors by which the state machine answers a write.
var decided = []error{rpc.ErrNotFound, rpc.ErrTombstoned, rpc.ErrIdempotencyConflict}

// afterUnknown returns the error of the last try, given the one of an earlier
// try of unknown outcome, if any. That the last try proposed nothing says
// nothing about the earlier; only an answer of the state machine settles it.
func afterUnknown(unknown, last error) error {
	if unknown == nil || errors.Is(last, rpc.ErrOutcomeUnknown) {
		return last
	}
	for _, err := range decided {
		if errors.Is(last, err) {
			return last
		}
	}
	var conflict *rpc.VersionConflictError
	if errors.As(last, &conflict) {
		return last
	}
	return fmt.Errorf("%w; tried again: %w", unknown, last)
}

// try asks one node of the group. An error of a try that was given up is
// errSuperseded too.
func (f *Forwarder) try(ctx context.Context, g rpc.Group, target *table.Node, op func(context.Context, rpc.Node) error) error {
	return f.call(target, func(node rpc.Node) error {
		ctx, end := f.flights.begin(ctx, g, target.ID)
		defer end()
		err := op(ctx, node)
		if err != nil && errors.Is(context.Cause(ctx), errSuperseded) {
			return fmt.Errorf("node %s: %w: %w", target.ID, errSuperseded, err)
		}
		return err
	})
}

func (f *Forwarder) call(target *table.Node, op func(rpc.Node) error) error {
	if target == nil {
		return rpc.ErrUnavailable
	}
	node, err := f.nodes.get(target)
	if err != nil {
		return err
	}
	return op(node)
}

// pursuit is the course of one request through the nodes of its group. The zero
// value of everything but group starts at the leader.
type pursuit struct {
	group      rpc.Group
	repeat     bool // may propose again after an unknown outcome
	anyReplica bool // need not reach the leader

	believed control.NodeID // leader of the last route
	turn     int            // which replica is asked: 0 for the leader, then the others in turn
	hints    int            // followed since the last pause
	failures int
	// superseded counts the tries that were given up because another node leads.
	superseded int
}

// choose picks the node to call. The leader comes first; once it has failed the
// other replicas are asked in turn, because one of them leads or knows who
// does, even while the control plane is down.
func (p *pursuit) choose(route table.Route) *table.Node {
	if leader := route.LeaderID(); leader != p.believed {
		p.believed = leader
		if !p.anyReplica {
			p.turn = 0
		}
	}
	n := len(route.Replicas)
	if n == 0 {
		return route.Leader
	}
	if p.anyReplica || route.Leader == nil {
		return route.Replicas[p.turn%n]
	}
	at := 0
	for i, replica := range route.Replicas {
		if replica == route.Leader {
			at = i
		}
	}
	return route.Replicas[(at+p.turn)%n]
}

// next decides what follows a failed try: whether there is another one, and
// after what pause.
func (p *pursuit) next(f *Forwarder, route table.Route, target *table.Node, err error) (pause time.Duration, again bool) {
	p.failures++
	var notLeader *rpc.NotLeaderError
	switch {
	case errors.Is(err, rpc.ErrOutcomeUnknown):
		if !p.repeat {
			return 0, false
		}
	case errors.As(err, &notLeader) && notLeader.Leader != "" && !p.anyReplica:
		hinted := control.NodeID(notLeader.Leader)
		switch {
		case f.cfg.Table.Correct(p.group, route.LeaderID(), hinted):
			if p.hints < maxHints {
				p.hints++
				return 0, true
			}
		case hinted == route.LeaderID() && target.ID != hinted:
			p.turn = 0 // it was asked before it was ready to lead
		default:
			p.turn++
		}
	case errors.Is(err, rpc.ErrUnavailable), errors.Is(err, rpc.ErrClosed):
		if target != nil {
			f.cfg.Table.Forget(p.group, target.ID)
		}
		p.turn++
		if p.anyReplica && p.failures < len(route.Replicas) {
			return 0, true
		}
	case errors.Is(err, rpc.ErrCorrupt) && p.anyReplica && p.failures < len(route.Replicas):
		// Another replica may hold an intact copy.
		p.turn++
		return 0, true
	default:
		return 0, false
	}
	p.hints = 0
	return f.backoff(p.failures), true
}

// backoff is the pause after the nth failure: half to all of a doubling bound.
func (f *Forwarder) backoff(n int) time.Duration {
	bound := f.cfg.BackoffMax
	if shift := n - 1; shift < 16 {
		bound = min(bound, f.cfg.BackoffMin<<shift)
	}
	return bound/2 + rand.N(bound/2+1)
}

// wait pauses and reports whether another try fits into what is left of the
// budget and of ctx.
func wait(ctx context.Context, pause, left time.Duration) bool {
	if pause >= left || ctx.Err() != nil {
		return false
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
		return false
	}
	if pause == 0 {
		return true
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
