package member

import (
	"context"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Overview is the cluster as its control leader sees it at one moment.
type Overview struct {
	Status Status
	State  *catalog.State
	Groups []reconcile.Health // by number; empty before the first placement
	// LeaseUntil is until when a holder of each group's lease may trust it.
	LeaseUntil []time.Time
	// Due are relocations that were not started yet.
	Due []reconcile.Relocation
}

// Overview returns what the leader knows; members that do not lead return a
// *rpc.NotLeaderError.
func (s *Server) Overview(ctx context.Context) (*Overview, error) {
	t, err := s.leadingQuorum(ctx)
	if err != nil {
		return nil, fmt.Errorf("overview: %w", err)
	}
	o := &Overview{Status: s.Status(), State: s.catalog.State()}
	t.mu.Lock()
	defer t.mu.Unlock()
	view := t.view(o.State, s.cfg.BootstrapExpect)
	for number := range o.State.Placed {
		o.Groups = append(o.Groups, view.Health(uint16(number)))
		o.LeaseUntil = append(o.LeaseUntil, t.leases.Until(uint16(number)))
	}
	o.Due = view.Relocations(o.State.Rebalance != nil)
	return o, nil
}

// operate decides on a wish with what the leader knows and commits the command
// that comes of it, if any. A decision and its commit are not one step: the
// catalog checks again what would otherwise be unsafe.
func (s *Server) operate(ctx context.Context, wish string, decide func(reconcile.View) (catalog.Command, error)) error {
	t, err := s.leadingQuorum(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", wish, err)
	}
	command, err := t.wish(s.catalog, s.cfg.BootstrapExpect, decide)
	if err == nil && command != nil {
		var result catalog.Result
		if result, err = s.propose(ctx, command); err == nil {
			err = result.Err
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", wish, err)
	}
	if command != nil {
		s.logger.Info("an operator asked for it", "wish", wish)
	}
	return nil
}

// leadingQuorum returns the current tenure after a quorum has confirmed it: what
// an operator is shown or refused must not come from a leader that was cut off.
func (s *Server) leadingQuorum(ctx context.Context) (*tenure, error) {
	t, err := s.leading(ctx)
	if err != nil {
		return nil, err
	}
	return t, s.stillLeading(ctx, t, 0)
}

func (t *tenure) wish(c *catalog.Catalog, expected int, decide func(reconcile.View) (catalog.Command, error)) (catalog.Command, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return decide(t.view(c.State(), expected))
}

// Drain lets a node give up all its replicas. With dryRun it only says whether
// it could.
func (s *Server) Drain(ctx context.Context, node rpc.NodeID, dryRun bool) error {
	return s.operate(ctx, fmt.Sprintf("drain node %q", node), func(v reconcile.View) (catalog.Command, error) {
		if err := v.CanDrain(node); err != nil || dryRun {
			return nil, err
		}
		return &catalog.SetNodeState{Node: node, State: catalog.NodeDraining, At: v.Now}, nil
	})
}

// Undrain lets a node take replicas again.
func (s *Server) Undrain(ctx context.Context, node rpc.NodeID) error {
	return s.operate(ctx, fmt.Sprintf("undrain node %q", node), func(v reconcile.View) (catalog.Command, error) {
		return &catalog.SetNodeState{Node: node, State: catalog.NodeActive, At: v.Now}, nil
	})
}

// Remove takes a node that holds nothing out of the cluster.
func (s *Server) Remove(ctx context.Context, node rpc.NodeID) error {
	return s.operate(ctx, fmt.Sprintf("remove node %q", node), func(v reconcile.View) (catalog.Command, error) {
		return &catalog.RemoveNode{Node: node, At: v.Now}, nil
	})
}

// SetWeight says how much of the load a node takes beside the others, of which
// each counts 100 unless it was told otherwise. Leaders follow at once, replicas
// with the next rebalance.
func (s *Server) SetWeight(ctx context.Context, node rpc.NodeID, weight uint32) error {
	return s.operate(ctx, fmt.Sprintf("weigh node %q", node), func(v reconcile.View) (catalog.Command, error) {
		return &catalog.SetNodeWeight{Node: node, Weight: weight, At: v.Now}, nil
	})
}

// Rebalance starts to even replicas and leaders out and returns what that takes
// by present knowledge. With dryRun it starts nothing.
func (s *Server) Rebalance(ctx context.Context, dryRun bool) (plan []reconcile.Relocation, err error) {
	err = s.operate(ctx, "rebalance", func(v reconcile.View) (catalog.Command, error) {
		plan = v.Relocations(true)
		if dryRun {
			return nil, nil
		}
		return &catalog.StartRebalance{Planned: len(plan), At: v.Now}, nil
	})
	return plan, err
}

// CancelRebalance starts nothing more of a rebalance; moves under way go on.
// Without one it changes nothing.
func (s *Server) CancelRebalance(ctx context.Context) error {
	return s.operate(ctx, "cancel rebalance", func(v reconcile.View) (catalog.Command, error) {
		if v.State.Rebalance == nil {
			return nil, nil
		}
		return &catalog.EndRebalance{ID: v.State.Rebalance.ID, Cancelled: true, At: v.Now}, nil
	})
}

// Move starts to move a replica of a group from one node to another, and returns
// the move.
func (s *Server) Move(ctx context.Context, group uint16, from, to rpc.NodeID, dryRun bool) (*catalog.Move, error) {
	err := s.operate(ctx, fmt.Sprintf("move group %d from %q to %q", group, from, to), func(v reconcile.View) (catalog.Command, error) {
		command, err := v.Move(group, from, to)
		if err != nil || dryRun {
			return nil, err
		}
		return command, nil
	})
	if err != nil || dryRun {
		return nil, err
	}
	return s.catalog.State().Placed[group].Move, nil // nil if it is over already
}

// TransferLeader lets a node lead a group from now on, until a rebalance.
func (s *Server) TransferLeader(ctx context.Context, group uint16, to rpc.NodeID) error {
	return s.operate(ctx, fmt.Sprintf("transfer leadership of group %d to %q", group, to), func(v reconcile.View) (catalog.Command, error) {
		if _, known := v.State.Nodes[to]; known && !v.Lives[to].Alive {
			return nil, fmt.Errorf("%w: %q", reconcile.ErrNodeDown, to)
		}
		return &catalog.PinLeader{Group: group, Node: to, At: v.Now}, nil
	})
}

// AbortMove takes a move back. One that a rebalance started ends the rebalance,
// which would start it again.
func (s *Server) AbortMove(ctx context.Context, id uint64) error {
	rebalancing := false
	err := s.operate(ctx, fmt.Sprintf("abort move %d", id), func(v reconcile.View) (catalog.Command, error) {
		command, err := v.Abort(id)
		if err != nil || command == nil {
			return nil, err
		}
		move := v.State.Placed[command.Moves[0].Group].Move
		rebalancing = v.State.Rebalance != nil && move.Reason == catalog.ReasonRebalance
		return command, nil
	})
	if err == nil && rebalancing {
		err = s.CancelRebalance(ctx)
	}
	return err
}
