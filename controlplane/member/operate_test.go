package member

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// mustServe lets data nodes call, run what they are told to and follow every
// membership, until the test ends.
func mustServe(t *testing.T, s *Server, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	t.Cleanup(func() { cancel(); serving.Wait() })
	for _, id := range ids {
		node := newDataNode(id)
		serving.Go(func() {
			for ctx.Err() == nil {
				if node.call(ctx, s) == nil {
					node.obey()
				}
			}
		})
	}
}

// obey makes a node lead the groups that prefer it, with the membership it was
// told, at terms that rise with its assignments.
func (n *dataNode) obey() {
	clear(n.leading)
	for _, group := range n.assignment.Groups {
		n.running[group.Group] = true
		if group.Preferred == n.info.ID {
			n.leading[group.Group] = n.assignment.Version
		}
	}
}

func mustOverview(t *testing.T, s *Server, condition func(*Overview) bool) *Overview {
	t.Helper()
	var o *Overview
	require.Eventually(t, func() bool {
		var err error
		o, err = s.Overview(testContext(t))
		return err == nil && condition(o)
	}, patience, 5*time.Millisecond)
	return o
}

func kinds(o *Overview) map[catalog.EventKind]int {
	counts := map[catalog.EventKind]int{}
	for _, event := range o.State.Events {
		counts[event.Kind]++
	}
	return counts
}

// Goal: an operator's day with three nodes. What cannot be done is refused and
// changes nothing; a drain moves leaders away, and what is removed stays away.
func TestOperators(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.ReplicationFactor, cfg.BootstrapExpect = 1, 2
	s := mustOpen(t, cfg)
	ctx := testContext(t)
	mustServe(t, s, "d1", "d2")
	mustOverview(t, s, func(o *Overview) bool {
		return o.Status.Groups.Led == catalog.Groups && o.Status.Groups.Formed == catalog.Groups
	})
	mustServe(t, s, "d3")
	mustOverview(t, s, func(o *Overview) bool { return len(o.Status.Nodes) == 3 && o.Status.Nodes[2].Liveness == "alive" })

	require.ErrorIs(t, s.Drain(ctx, "d9", false), catalog.ErrUnknownNode)
	require.ErrorIs(t, s.Undrain(ctx, "d9"), catalog.ErrUnknownNode)
	require.ErrorIs(t, s.Remove(ctx, "d1"), catalog.ErrHoldsReplicas)
	require.ErrorIs(t, s.TransferLeader(ctx, 999, "d1"), catalog.ErrUnknownGroup)
	require.ErrorIs(t, s.TransferLeader(ctx, 0, "d3"), catalog.ErrNoReplica)
	require.ErrorIs(t, s.AbortMove(ctx, 12), catalog.ErrUnknownMove)
	_, err := s.Move(ctx, 0, "d1", "d9", false)
	require.ErrorIs(t, err, catalog.ErrUnknownNode)
	plan, err := s.Rebalance(ctx, true)
	require.NoError(t, err)
	require.Len(t, plan, 85)
	require.NoError(t, s.Drain(ctx, "d1", true))
	require.NoError(t, s.CancelRebalance(ctx))
	o := mustOverview(t, s, func(*Overview) bool { return true })
	require.Zero(t, o.State.LastMove)
	require.Empty(t, o.Due)

	require.NoError(t, s.Drain(ctx, "d1", false))
	require.ErrorIs(t, s.Drain(ctx, "d2", false), catalog.ErrDrainUnderWay)
	mustOverview(t, s, func(o *Overview) bool { return len(o.State.Moves()) > 0 })
	require.NoError(t, s.Undrain(ctx, "d1"))

	require.NoError(t, s.Drain(ctx, "d3", false))
	mustOverview(t, s, func(o *Overview) bool { return len(o.State.Moves()) == 0 && o.State.ReplicasOn("d3") == 0 })
	require.NoError(t, s.Remove(ctx, "d3"))
	require.ErrorIs(t, newDataNode("d3").call(ctx, s), rpc.ErrRemoved)
	require.ErrorIs(t, s.Drain(ctx, "d3", false), catalog.ErrRemoved)
	o = mustOverview(t, s, func(*Overview) bool { return true })
	require.Equal(t, 2, kinds(o)[catalog.EventNodeDraining])
	require.Equal(t, 1, kinds(o)[catalog.EventNodeRemoved])
	mustTableWhere(t, s, func(table *rpc.Table) bool { return len(table.Nodes) == 2 })

	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Drain(ctx, "d1", false), rpc.ErrClosed)
}

func TestNodesThatComeAndGoAreEvents(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.SessionTTL = 200 * time.Millisecond
	s, node := ledBy(t, cfg, "d1")
	mustOverview(t, s, func(o *Overview) bool { return kinds(o)[catalog.EventNodeSilent] == 1 })
	require.ErrorIs(t, s.TransferLeader(testContext(t), 0, "d1"), reconcile.ErrNodeDown)
	node.mustCall(t, s)
	mustOverview(t, s, func(o *Overview) bool { return kinds(o)[catalog.EventNodeBack] >= 1 })
}

// Goal: the control leader dies at every step of a move, and while a rebalance is
// under way. Those that follow carry it on.
func TestOrdersOutliveControlLeaders(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	join := func(ids ...string) {
		for _, id := range ids {
			node := newDataNode(id)
			serving.Go(func() {
				for ctx.Err() == nil {
					for _, control := range c.controls() {
						for node.call(ctx, control) == nil {
							node.obey()
						}
					}
					select {
					case <-ctx.Done():
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
		}
	}
	order := func(do func(*Server) error, unless error) {
		require.Eventually(t, func() bool {
			err := do(c.leader())
			return err == nil || unless != nil && errors.Is(err, unless)
		}, patience, 10*time.Millisecond)
	}
	var last *Overview
	until := func(condition func(*Overview) bool) {
		require.Eventually(t, func() bool {
			o, err := c.leader().Overview(testContext(t))
			if err != nil {
				return false
			}
			last = o
			return condition(o)
		}, patience, 5*time.Millisecond)
	}
	killLeader := func() {
		id := c.leader().cfg.ID
		c.kill(id)
		c.listen(id, c.peers[id])
		c.start(id)
	}
	join("d1", "d2", "d3")
	until(func(o *Overview) bool {
		return o.Status.Groups.Formed == catalog.Groups && o.Status.Groups.Led == catalog.Groups
	})
	join("d4")
	until(func(o *Overview) bool { return len(o.Status.Nodes) == 4 })

	var group uint16
	order(func(s *Server) error {
		group = uint16(slices.IndexFunc(s.catalog.State().Placed, func(g catalog.Group) bool { return g.Preferred == "d1" }))
		_, err := s.Move(testContext(t), group, "d1", "d4", false)
		return err
	}, catalog.ErrMoving)
	for _, phase := range []catalog.MovePhase{catalog.PhaseJoin, catalog.PhasePromote, catalog.PhaseLeave} {
		until(func(o *Overview) bool {
			move := o.State.Placed[group].Move
			return move == nil || move.Phase == phase
		})
		killLeader()
	}
	until(func(o *Overview) bool { return o.State.Placed[group].Move == nil })
	require.EqualValues(t, 1, last.State.MovesFinished)
	require.True(t, last.State.Placed[group].Holds("d4"))
	require.False(t, last.State.Placed[group].Holds("d1"))

	order(func(s *Server) error { _, err := s.Rebalance(testContext(t), false); return err }, catalog.ErrRebalancing)
	killLeader()
	until(func(o *Overview) bool { return o.State.Rebalance != nil && o.State.MovesFinished > 1 })
	order(func(s *Server) error { return s.CancelRebalance(testContext(t)) }, nil)
	require.Zero(t, last.State.MovesAborted)
}
