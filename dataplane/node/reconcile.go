package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/raftlog"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

const (
	// reconcileInterval is how often the node compares what it leads with what
	// it was told.
	reconcileInterval = 500 * time.Millisecond
	// maxMembershipSteps bounds the groups that change membership at a time.
	maxMembershipSteps = 8
	// settleTime is how long a group must have been led here before its
	// leadership is handed to the preferred node, so that a node that has just
	// come back is not handed everything while it still catches up.
	settleTime = 3 * time.Second
)

// runReconcile drives the membership and the leadership of the groups that this
// node leads towards the assignment. Leadership moves one group at a time: a
// transfer refuses writes while it runs.
func (n *Node) runReconcile(ctx context.Context) {
	tick := time.NewTicker(reconcileInterval)
	defer tick.Stop()
	refused := make(map[controlrpc.NodeID]time.Time)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// A node without room hands its leaderships over, see runRoom.
		if a := n.assigned.Load(); a != nil && !n.draining.Load() && !n.full() {
			n.reconcileMembership(ctx, a)
			n.reconcileLeadership(ctx, a, refused)
		}
	}
}

const (
	// failoverInterval is how often each group is asked whether it lost its leader
	// when one may have. It bounds what a failover takes longer than the heartbeat
	// timeout.
	failoverInterval = 20 * time.Millisecond
	// quietInterval is how often when no group says that it may.
	quietInterval = group.FailoverNotice / 2
)

// runFailover lets groups that lost their leader look for another.
func (n *Node) runFailover(ctx context.Context) {
	next := time.NewTimer(failoverInterval)
	defer next.Stop()
	var preferred [rpc.Groups]string
	var seen *controlrpc.Assignment
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-next.C:
			if a := n.assigned.Load(); a != nil && a != seen {
				seen = a
				for _, ga := range a.Groups {
					if int(ga.Group) < rpc.Groups {
						preferred[ga.Group] = string(ga.Preferred)
					}
				}
			}
			interval := quietInterval
			for i := range n.groups {
				if g := n.groups[i].Load(); g != nil && g.Failover(now, preferred[i]) {
					interval = failoverInterval
				}
			}
			next.Reset(interval)
		}
	}
}

// heartbeatParts is in how many parts the groups of a node send heartbeats. Those
// of a part wake the node up once; an append that comes at the same moment waits
// for them.
const heartbeatParts = 4

// runHeartbeats lets the groups that this node leads send their heartbeats
// together, one part of the groups after the other.
func (n *Node) runHeartbeats(ctx context.Context) {
	tick := time.NewTicker(n.conf.Timing.HeartbeatInterval() / heartbeatParts)
	defer tick.Stop()
	for part := 0; ; part = (part + 1) % heartbeatParts {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for i := part; i < len(n.groups); i += heartbeatParts {
				if g := n.groups[i].Load(); g != nil {
					g.Heartbeat()
				}
			}
		}
	}
}

func members(replicas []controlrpc.Replica) []group.Member {
	want := make([]group.Member, len(replicas))
	for i, r := range replicas {
		want[i] = group.Member{Node: string(r.Node), Voter: r.Voter}
	}
	return want
}

// reconcileMembership lets every group that this node leads take one step.
func (n *Node) reconcileMembership(ctx context.Context, a *controlrpc.Assignment) {
	var work errgroup.Group
	work.SetLimit(maxMembershipSteps)
	for _, ga := range a.Groups {
		g := n.replica(ga.Group)
		if g == nil || len(ga.Replicas) == 0 || ctx.Err() != nil {
			continue
		}
		want := members(ga.Replicas)
		if g.Converged(want) {
			continue // most groups, most of the time: not worth a goroutine
		}
		work.Go(func() error {
			took, err := g.Converge(want)
			if err != nil {
				n.log.Warn("membership change failed, will be tried again", "group", ga.Group, "error", err)
			}
			if took {
				n.leadershipChanged(rpc.Group(ga.Group)) // report the new membership soon
			}
			return nil
		})
	}
	_ = work.Wait() // the functions return nil
}

// reconcileLeadership hands over the first group that another node should lead
// and can. It notes in refused which nodes did not take one over, and when.
func (n *Node) reconcileLeadership(ctx context.Context, a *controlrpc.Assignment, refused map[controlrpc.NodeID]time.Time) {
	now := time.Now()
	for _, ga := range a.Groups {
		g := n.replica(ga.Group)
		if g == nil || ga.Preferred == "" || string(ga.Preferred) == n.conf.ID {
			continue
		}
		if at, ok := refused[ga.Preferred]; ok && now.Sub(at) < refusalInterval {
			continue // it may have no room
		}
		if since := g.LeadingSince(); since.IsZero() || now.Sub(since) < settleTime {
			continue
		}
		moved, err := g.MoveLeadership(string(ga.Preferred))
		if err != nil {
			level := slog.LevelInfo
			if _, again := refused[ga.Preferred]; again {
				level = slog.LevelDebug // it may refuse for as long as it has no room
			}
			refused[ga.Preferred] = now
			n.log.Log(ctx, level, "leadership was not taken over, will be tried again", "group", ga.Group, "to", ga.Preferred, "error", err)
		}
		if moved {
			delete(refused, ga.Preferred)
			return
		}
	}
}

func (n *Node) replica(id uint16) *group.Group {
	if int(id) >= rpc.Groups {
		return nil
	}
	return n.groups[id].Load()
}

// drop closes the replicas that the assignment no longer names and deletes
// what they stored. The control plane leaves a replica out only after the
// group's leader has reported a membership without it.
func (n *Node) drop(a *controlrpc.Assignment) error {
	var keep [rpc.Groups]bool
	for _, ga := range a.Groups {
		if int(ga.Group) < rpc.Groups {
			keep[ga.Group] = true
		}
	}
	var work errgroup.Group
	work.SetLimit(openFanOut)
	for i := range n.groups {
		if keep[i] || n.groups[i].Load() == nil {
			continue
		}
		work.Go(func() error {
			g := n.groups[i].Swap(nil)
			n.log.Info("replica left this node", "group", i)
			if err := g.Close(); err != nil {
				n.log.Warn("closing a replica that left", "group", i, "error", err)
			}
			batch := n.engine.DB().NewBatch()
			defer batch.Close()
			if err := raftlog.Wipe(batch, uint16(i)); err != nil {
				return err
			}
			if err := state.Wipe(batch, uint16(i)); err != nil {
				return err
			}
			return batch.Commit(pebble.Sync)
		})
	}
	return work.Wait()
}
