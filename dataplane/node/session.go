package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// Retry bounds of the session with the control plane.
const (
	sessionRetryMin = 50 * time.Millisecond
	sessionRetryMax = 2 * time.Second
	// reportGap is the least time between two reports, so that a burst of
	// leadership changes travels as one.
	reportGap = 20 * time.Millisecond
	// brokenInterval is how often a session that stays broken is logged.
	brokenInterval = time.Minute
)

// runSession reports what this node hosts and follows the assignment it gets.
func (n *Node) runSession(ctx context.Context) {
	retry := sessionRetryMin
	healthy := true
	var logged time.Time
	for ctx.Err() == nil {
		err := n.exchange(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := reportGap
		if err != nil {
			if now := time.Now(); healthy || now.Sub(logged) >= brokenInterval {
				logged = now
				n.logBroken(err)
			}
			wait = retry/2 + rand.N(retry)
			retry = min(2*retry, sessionRetryMax)
		} else {
			if !healthy {
				n.log.Info("session with the control plane restored")
			}
			retry = sessionRetryMin
		}
		healthy = err == nil
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// logBroken says what is wrong with the session, and what to do about it where
// waiting is no help.
func (n *Node) logBroken(err error) {
	what := "session with the control plane broken, serving on"
	if n.engine.Identity().ClusterID == "" {
		what = "this node has not joined a cluster yet, trying again"
	}
	args := []any{"error", err}
	for _, known := range advice {
		if errors.Is(err, known.err) {
			args = append(args, "advice", known.text)
			break
		}
	}
	n.log.Warn(what, args...)
}

var advice = []struct {
	err  error
	text string
}{
	{controlrpc.ErrNodeConflict, "start this node with an id of its own, or with the data directory that the id belongs to"},
	{controlrpc.ErrRemoved, "start this node with an empty data directory to let it join again"},
	{controlrpc.ErrWrongCluster, "point this node at the control plane of its own cluster, or start it with an empty data directory"},
	{storage.ErrForeignCluster, "point this node at the control plane of its own cluster, or start it with an empty data directory"},
	{errSetBack, "bring back the newer state of the control plane"},
}

// exchange sends one report and converges to the assignment it returns. A
// leadership change ends the wait for a new assignment early.
func (n *Node) exchange(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	report := n.report()
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		select {
		case <-n.changed:
			cancel(errReportAgain)
		case <-ctx.Done():
		}
	}()
	a, err := n.conf.Control.Session(ctx, report)
	early := errors.Is(context.Cause(ctx), errReportAgain)
	cancel(nil)
	if err != nil {
		if early {
			return nil
		}
		return err
	}
	if have := n.assigned.Load(); have != nil && have.Version == a.Version && have.ClusterID == a.ClusterID {
		return nil
	}
	if err := n.accept(a); err != nil {
		return err
	}
	if err := errors.Join(n.drop(a), n.converge(a)); err != nil {
		return err
	}
	n.assigned.Store(a)
	return nil
}

// accept makes the assignment durable, unless it cannot be ours: following the
// orders of another cluster, or of a control plane that was set back to an
// older state, could delete replicas.
func (n *Node) accept(a *controlrpc.Assignment) error {
	if err := n.engine.SetClusterID(a.ClusterID); err != nil {
		return err
	}
	if err := n.joined(a.ClusterID); err != nil {
		return err
	}
	if a.Version < n.floor {
		return fmt.Errorf("assignment %d is older than %d, which this node has followed: %w", a.Version, n.floor, errSetBack)
	}
	if err := n.saveAssignment(a); err != nil {
		return err
	}
	n.floor = a.Version
	return nil
}

var errSetBack = errors.New("the control plane was set back")

var errReportAgain = errors.New("leadership changed")

func (n *Node) leadershipChanged(rpc.Group) {
	select {
	case n.changed <- struct{}{}:
	default: // a report is due already
	}
}

func (n *Node) report() *controlrpc.Report {
	r := &controlrpc.Report{Node: controlrpc.NodeInfo{
		ID: controlrpc.NodeID(n.conf.ID), Address: n.conf.Advertise, Zone: n.conf.Zone,
		Incarnation: n.engine.Identity().Incarnation, Version: n.conf.Version,
	}}
	if a := n.assigned.Load(); a != nil {
		r.HaveAssignment = a.Version
	}
	r.DiskUsed, r.DiskFree = n.lookAtDisk(time.Now())
	for i := range n.groups {
		g := n.groups[i].Load()
		if g == nil {
			continue
		}
		s := g.Status()
		gr := controlrpc.GroupReport{Group: uint16(i), Leading: s.Leading, Term: s.Term, Applied: s.Applied, LastIndex: s.LastIndex}
		for _, m := range s.Members {
			gr.Replicas = append(gr.Replicas, controlrpc.Replica{Node: controlrpc.NodeID(m.Node), Voter: m.Voter})
		}
		r.Groups = append(r.Groups, gr)
	}
	return r
}
