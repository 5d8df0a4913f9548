package group

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// watchInterval is how often the watcher looks for a wedged instance without
// being told of a change.
const watchInterval = 2 * time.Second

// watchPhases is at how many moments of the interval groups look.
const watchPhases = 16

// transferState tracks leadership transfers, ours and the stuck one of
// hashicorp/raft issue 696: a transfer that is interrupted by a step-down
// leaves its flag set for ever, and the replica, elected again, refuses all
// writes.
type transferState struct {
	ours    atomic.Bool  // a transfer asked for by TransferLeadership is running
	refused atomic.Int64 // unix nanoseconds of the first write refused since the last success, or 0
	// to names who leadership was last handed to by this replica, until it leads again.
	to atomic.Pointer[string]
}

// runWatcher follows leadership: a new leader applies everything committed
// before its term and only then serves reads. It also asks the proposer to
// restart an instance that is wedged or whose log was wiped under it.
func (g *Group) runWatcher() {
	defer close(g.watcherDone)
	tick := time.NewTimer(g.untilWatch(time.Now()))
	defer tick.Stop()
	var length logLength
	for {
		select {
		case leading, ok := <-g.notify:
			if !ok {
				return
			}
			g.pace()
			if m := g.opts.Measure; m != nil {
				m.Led(leading)
			}
			if leading {
				g.lead()
			} else {
				g.readyTerm.Store(0)
				g.feed.End(g.leftLead())
			}
			if g.opts.Changed != nil {
				g.opts.Changed(g.opts.Group)
			}
		case <-g.wantRestart:
			g.requestRestart("log was wiped by a snapshot")
		case now := <-tick.C:
			if g.wedged(now) {
				g.requestRestart("a leadership transfer never ended")
			}
			g.shorten(now, &length)
			tick.Reset(g.untilWatch(time.Now()))
		}
	}
}

// untilWatch lets many groups of a process look at the same moment: an idle
// process then wakes up once for all of them. It is not all groups, whose looks
// together would delay an append.
func (g *Group) untilWatch(now time.Time) time.Duration {
	phase := time.Duration(g.opts.Group%watchPhases) * (watchInterval / watchPhases)
	return now.Add(-phase).Truncate(watchInterval).Add(watchInterval + phase).Sub(now)
}

// lead waits until everything committed before this term is applied here.
func (g *Group) lead() {
	r := g.raft.Load()
	if r == nil {
		return
	}
	term := r.CurrentTerm()
	err := r.Barrier(0).Error()
	if err == nil && g.applyDeferred() != nil {
		return // the replica has stopped
	}
	switch {
	case err == nil:
		if r.CurrentTerm() == term && r.State() == raft.Leader {
			g.transfer.to.Store(nil)
			g.leadingSince.Store(time.Now().UnixNano())
			g.readyTerm.Store(term)
		}
	case errors.Is(err, raft.ErrLeadershipTransferInProgress) && !g.transfer.ours.Load():
		// Newly elected, so no transfer of this term can be running.
		g.requestRestart("elected with a transfer flag left over")
	}
}

// wedged reports whether this leader has refused writes because of a transfer
// for longer than any transfer can take. A transfer that took leadership away
// explains what was refused.
func (g *Group) wedged(now time.Time) bool {
	since := g.transfer.refused.Load()
	if since == 0 || g.transfer.ours.Load() {
		return false
	}
	if r := g.raft.Load(); r == nil || r.State() != raft.Leader {
		g.transfer.refused.CompareAndSwap(since, 0)
		return false
	}
	return now.Sub(time.Unix(0, since)) > 2*g.opts.Timing.Election
}

// requestRestart hands the restart to the proposer without waiting for it: the
// watcher must go on draining raft's notifications.
func (g *Group) requestRestart(reason string) {
	g.log.Warn("raft instance needs a restart", "reason", reason)
	g.transfer.refused.Store(0)
	select {
	case g.restarts <- make(chan error, 1):
	default:
	}
}

// Leading reports whether this replica leads and may serve reads.
func (g *Group) Leading() bool { return g.readable() == nil }

// LeadingSince returns when this replica began to serve as leader, or zero.
func (g *Group) LeadingSince() time.Time {
	if since := g.leadingSince.Load(); since != 0 && g.Leading() {
		return time.Unix(0, since)
	}
	return time.Time{}
}

// Leader returns the id of the node this replica believes leads, or "".
func (g *Group) Leader() string {
	r := g.raft.Load()
	if r == nil {
		return ""
	}
	_, id := r.LeaderWithID()
	return string(id)
}

func (g *Group) notLeader() error {
	leader := g.Leader()
	if leader == g.opts.NodeID {
		leader = "" // elected, but not ready yet
	}
	return &rpc.NotLeaderError{Group: g.opts.Group, Leader: leader}
}

// leftLead tells subscribers where to go after leadership was lost. The one it
// was handed to is known before it makes itself known.
func (g *Group) leftLead() error {
	leader := g.Leader()
	if to := g.transfer.to.Load(); to != nil && (leader == "" || leader == g.opts.NodeID) {
		leader = *to
	}
	if leader == g.opts.NodeID {
		leader = ""
	}
	return &rpc.NotLeaderError{Group: g.opts.Group, Leader: leader}
}

// writable says whether a write may be proposed here now.
func (g *Group) writable() error {
	if err := g.failed(); err != nil {
		return fmt.Errorf("group %d: %w", g.opts.Group, err)
	}
	if err := g.opts.Healthy(); err != nil {
		return fmt.Errorf("group %d: %w", g.opts.Group, err)
	}
	if r := g.raft.Load(); r == nil || r.State() != raft.Leader {
		return g.notLeader()
	}
	return nil
}

// readable says whether this replica may serve a read as leader: it leads, has
// applied everything committed before its term, and its lease lives.
func (g *Group) readable() error {
	if err := g.failed(); err != nil {
		return fmt.Errorf("group %d: %w", g.opts.Group, err)
	}
	r := g.raft.Load()
	if r == nil || r.State() != raft.Leader {
		return g.notLeader()
	}
	term := r.CurrentTerm()
	if g.readyTerm.Load() != term || g.transfer.ours.Load() {
		return g.notLeader()
	}
	conf := r.GetConfiguration()
	if err := conf.Error(); err != nil {
		return g.notLeader()
	}
	if !g.lease.valid(raft.ServerID(g.opts.NodeID), term, conf.Configuration().Servers, time.Now(), g.opts.Timing.Heartbeat) {
		return g.notLeader()
	}
	return nil
}

// verifyLeader confirms leadership with a quorum. Concurrent calls share one
// round of heartbeats.
func (g *Group) verifyLeader(ctx context.Context) error {
	r := g.raft.Load()
	if r == nil {
		return g.notLeader()
	}
	future := r.VerifyLeader()
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		if err != nil {
			return g.notLeader()
		}
		return g.readable()
	case <-ctx.Done():
		return fmt.Errorf("group %d: verifying leadership: %w", g.opts.Group, rpc.ErrUnavailable)
	}
}

// TransferLeadership hands leadership to the named voter, or to the most
// caught-up one when to is empty. Writes are refused while it runs.
func (g *Group) TransferLeadership(to string) error {
	r := g.raft.Load()
	if r == nil || r.State() != raft.Leader {
		return g.notLeader()
	}
	if !g.transfer.ours.CompareAndSwap(false, true) {
		return fmt.Errorf("group %d: a transfer is running: %w", g.opts.Group, rpc.ErrUnavailable)
	}
	defer func() {
		// Votes that ignore the lease may be on their way: only answers to
		// requests sent from here on count again.
		g.lease.revoke()
		g.transfer.ours.Store(false)
		g.pace()
	}()
	g.pace()
	g.lease.revoke()
	var future raft.Future
	if to == "" {
		future = r.LeadershipTransfer()
	} else {
		g.transfer.to.Store(&to)
		future = r.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to))
	}
	if err := future.Error(); err != nil {
		g.transfer.to.Store(nil)
		return fmt.Errorf("group %d: transfer leadership to %q: %w", g.opts.Group, to, err)
	}
	return nil
}
