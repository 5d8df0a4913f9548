package member

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Session implements rpc.ControlPlane.
func (s *Server) Session(ctx context.Context, report *rpc.Report) (*rpc.Assignment, error) {
	assignment, err := s.session(ctx, report)
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	return assignment, nil
}

func (s *Server) session(ctx context.Context, report *rpc.Report) (*rpc.Assignment, error) {
	if err := validateReport(report); err != nil {
		return nil, err
	}
	t, err := s.leading(ctx)
	if err != nil {
		return nil, err
	}
	state, err := s.register(ctx, t, report)
	if err != nil {
		return nil, err
	}
	if t.enter(report, state) {
		s.logger.Info("node is back", "node", report.Node.ID, "address", report.Node.Address)
	}
	defer t.leave(report.Node.ID)
	return s.awaitAssignment(ctx, t, report)
}

// register makes sure that the catalog has the node as it describes itself, and
// returns a state that does.
func (s *Server) register(ctx context.Context, t *tenure, report *rpc.Report) (*catalog.State, error) {
	for {
		state, changed := s.catalog.Watch()
		if state.ClusterID == "" {
			if err := s.await(ctx, t, changed); err != nil {
				return nil, err
			}
			continue
		}
		node, known := state.Nodes[report.Node.ID]
		if err := checkHistory(report, &node, state); err != nil {
			return nil, err
		}
		if known && node.State == catalog.NodeRemoved && node.Incarnation == report.Node.Incarnation {
			return nil, fmt.Errorf("%w: %q", rpc.ErrRemoved, report.Node.ID)
		}
		if known && node.Info() == report.Node {
			return state, nil
		}
		command := registration(&report.Node)
		if known {
			if err := t.admit(&report.Node, &node); err != nil {
				return nil, err
			}
			command.Replaces = node.Incarnation
		}
		if err := s.proposeNode(ctx, command); err != nil {
			return nil, err
		}
		s.logRegistration(&report.Node, &node, known)
	}
}

func registration(info *rpc.NodeInfo) *catalog.RegisterNode {
	return &catalog.RegisterNode{
		ID:          info.ID,
		Address:     info.Address,
		Zone:        info.Zone,
		Incarnation: info.Incarnation,
		Version:     info.Version,
		At:          time.Now(),
	}
}

func (s *Server) proposeNode(ctx context.Context, command *catalog.RegisterNode) error {
	result, err := s.propose(ctx, command)
	if err != nil {
		return err
	}
	switch {
	case result.Err == nil:
		return nil
	case errors.Is(result.Err, catalog.ErrConflict):
		return fmt.Errorf("%w: %w", rpc.ErrNodeConflict, result.Err)
	case errors.Is(result.Err, catalog.ErrRemoved):
		return fmt.Errorf("%w: %w", rpc.ErrRemoved, result.Err)
	case errors.Is(result.Err, catalog.ErrInvalid), errors.Is(result.Err, catalog.ErrFull):
		return fmt.Errorf("%w: %w", rpc.ErrInvalid, result.Err)
	}
	return fmt.Errorf("%w: %w", rpc.ErrUnavailable, result.Err)
}

// checkHistory refuses a node that holds an assignment which this control plane
// cannot have given it: one of another cluster, or of a control plane that was
// set back to an older state. Acting on it could place groups anew beside their
// data.
func checkHistory(report *rpc.Report, node *catalog.Node, state *catalog.State) error {
	switch {
	case report.HaveAssignment <= node.Assigned:
		return nil
	case node.Generation == 0:
		return fmt.Errorf("%w: node %q holds an assignment, but cluster %q does not know it",
			rpc.ErrWrongCluster, report.Node.ID, state.ClusterID)
	}
	return fmt.Errorf("%w: node %q holds assignment %d, cluster %q gave it %d at most",
		rpc.ErrWrongCluster, report.Node.ID, report.HaveAssignment, state.ClusterID, node.Assigned)
}

func (s *Server) logRegistration(info *rpc.NodeInfo, before *catalog.Node, known bool) {
	log := s.logger.With("node", info.ID, "address", info.Address, "zone", info.Zone, "version", info.Version)
	switch {
	case !known:
		log.Info("node registered")
	case before.Incarnation != info.Incarnation:
		lost, dead := lostReplicas(s.catalog.State(), info.ID)
		log.Warn("node came back with another data directory",
			"replicas_to_repair", lost, "groups_without_intact_replica", dead)
	default:
		log.Info("node changed", "before_address", before.Address, "before_zone", before.Zone, "before_version", before.Version)
	}
}

// lostReplicas counts the formed groups of which a node lost its replica, and
// those of them of which no node has one left.
func lostReplicas(state *catalog.State, id rpc.NodeID) (lost, dead int) {
	for number := range state.Placed {
		group := &state.Placed[number]
		if !group.Formed {
			continue
		}
		here, elsewhere := false, false
		for _, replica := range group.Replicas {
			intact := replica.Generation == state.Nodes[replica.Node].Generation
			here = here || replica.Node == id && !intact
			elsewhere = elsewhere || intact
		}
		if here {
			lost++
			if !elsewhere {
				dead++
			}
		}
	}
	return lost, dead
}

// awaitAssignment returns the node's assignment as soon as it differs from the
// one it has, or after a while. While replicas move, their nodes report more
// often, because every step waits for reports.
func (s *Server) awaitAssignment(ctx context.Context, t *tenure, report *rpc.Report) (*rpc.Assignment, error) {
	wait := sessionWait
	if s.catalog.State().Moving() {
		wait = sessionWaitMoving
	}
	patience := time.NewTimer(wait)
	defer patience.Stop()
	for {
		state, changed := s.catalog.Watch()
		node := state.Nodes[report.Node.ID]
		if node.Incarnation != report.Node.Incarnation {
			return nil, fmt.Errorf("%w: node %q", rpc.ErrNodeConflict, report.Node.ID)
		}
		assignment := func() (*rpc.Assignment, error) {
			a, _ := state.Assignment(report.Node.ID)
			return a, nil
		}
		if node.Assigned != report.HaveAssignment {
			return assignment()
		}
		select {
		case <-patience.C:
			return assignment()
		default:
		}
		select {
		case <-patience.C:
			return assignment()
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.done:
			return nil, s.over()
		case <-s.ctx.Done():
			return nil, rpc.ErrClosed
		}
	}
}

// await waits for a change during a tenure.
func (s *Server) await(ctx context.Context, t *tenure, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", rpc.ErrUnavailable, ctx.Err())
	case <-t.done:
		return s.over()
	case <-s.ctx.Done():
		return rpc.ErrClosed
	}
}

// over is the error of a call that outlived the leadership.
func (s *Server) over() error {
	if s.ctx.Err() != nil {
		return rpc.ErrClosed
	}
	return s.notLeader()
}
