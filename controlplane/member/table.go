package member

import (
	"context"
	"fmt"
	"slices"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// published is a table that readers get.
type published struct {
	table *rpc.Table
	// warm: the leaders in it are worth replacing an older table for.
	warm bool
}

// shown is what the last published table was made from.
type shown struct {
	changes  uint32 // tables published in this tenure
	revision uint64
	hints    uint64
	warm     bool
	placed   []rpc.Placement // of the revision, without leaders
	nodes    map[rpc.NodeID]rpc.NodeInfo
}

// Table implements rpc.ControlPlane. A call that finds the table it wants costs
// a pointer read.
//
// Versions are the leader's Raft term and a counter within it, so that they
// rise across restarts and changes of the leader although nothing about who
// leads a group is ever written to the log. A new leader lets callers that have
// a table wait until it knows who leads; callers that have none get what there
// is.
func (s *Server) Table(ctx context.Context, after uint64) (*rpc.Table, error) {
	for {
		current, over := s.table.get()
		if current == nil {
			if err := s.awaitTable(ctx, over); err != nil {
				return nil, fmt.Errorf("table: %w", err)
			}
			continue
		}
		if after == 0 || current.warm && current.table.Version > after {
			return current.table, nil
		}
		select {
		case <-over:
		case <-ctx.Done():
			return current.table, nil
		case <-s.ctx.Done():
			return nil, fmt.Errorf("table: %w", rpc.ErrClosed)
		}
	}
}

// awaitTable waits until there may be a table again.
func (s *Server) awaitTable(ctx context.Context, over <-chan struct{}) error {
	t, err := s.leading(ctx)
	if err != nil {
		return err
	}
	select {
	case <-over:
		return nil
	case <-t.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", s.notLeader(), ctx.Err())
	case <-s.ctx.Done():
		return rpc.ErrClosed
	}
}

// publish shows readers a new table if anything in it changed. Only the
// goroutine that leads calls it.
func (s *Server) publish(t *tenure) {
	state := s.catalog.State()
	if state.ClusterID == "" || s.fit() != nil {
		return
	}
	warm := t.shown.warm || t.warm(state)
	t.mu.Lock()
	leaders, hints := t.leaders, t.hints
	t.mu.Unlock()
	last := &t.shown
	if last.changes > 0 && last.revision == state.Revision && last.hints == hints && last.warm == warm {
		return
	}
	if last.changes == 0 || last.revision != state.Revision {
		base := state.Table()
		last.placed, last.nodes = base.Groups, base.Nodes
	}
	last.changes++
	last.revision, last.hints, last.warm = state.Revision, hints, warm
	s.table.set(&published{warm: warm, table: &rpc.Table{
		ClusterID: state.ClusterID,
		Version:   t.term<<32 | uint64(last.changes),
		Nodes:     last.nodes,
		Groups:    withLeaders(last.placed, &leaders),
	}})
}

// withLeaders returns a copy of the placements with leaders filled in. A node
// that no longer holds a replica is no leader.
func withLeaders(placed []rpc.Placement, leaders *[catalog.Groups]leaderHint) []rpc.Placement {
	groups := slices.Clone(placed)
	for number := range groups {
		group := &groups[number]
		leader := leaders[number].node
		if slices.ContainsFunc(group.Replicas, func(r rpc.Replica) bool { return r.Node == leader }) {
			group.Leader = leader
		}
	}
	return groups
}
