package member

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Two nodes that happen to be there get single replicas, one each; two that were
// waited for get a copy each.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	for expected, replicas := range map[int]int{1: 1, 2: 2} {
		t.Run(fmt.Sprint(expected), func(t *testing.T) {
			t.Parallel()
			cfg := singleConfig(t.TempDir())
			cfg.BootstrapExpect = expected
			s := mustOpen(t, cfg)
			one, two := newDataNode("d1"), newDataNode("d2")
			one.mustCall(t, s)
			two.mustCall(t, s)
			placed := mustTableWhere(t, s, func(table *rpc.Table) bool { return len(table.Groups) > 0 })
			require.Len(t, placed.Groups[0].Replicas, replicas)
		})
	}
}

// Goal: the moves of a cluster that grows, as data nodes that are only played
// bring them about, and how the status counts them.
func TestGroupsGrowByMoves(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, singleConfig(t.TempDir()))
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	for i, id := range []string{"d1", "d2", "d3"} {
		node := newDataNode(id)
		if i == 0 {
			node.mustBePlaced(t, s)
		}
		serving.Go(func() { node.serve(ctx, func() []rpc.ControlPlane { return []rpc.ControlPlane{s} }) })
	}
	require.Eventually(t, func() bool { return s.Status().Moves.InFlight() > 0 }, patience, time.Millisecond)
	require.LessOrEqual(t, s.Status().Moves.InFlight(), reconcile.DefaultMaxMoves)
	require.Eventually(t, func() bool { return s.Status().Moves.Finished > 20 }, patience, 5*time.Millisecond)
	status := s.Status()
	require.Zero(t, status.Moves.Aborted)
	require.Zero(t, status.Groups.Lost+status.Groups.NoQuorum)
	require.Less(t, status.Groups.Short, catalog.Groups)
}
