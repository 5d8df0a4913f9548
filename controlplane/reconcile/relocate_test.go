package reconcile

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// operate is an operator who does something at a bad moment. What the package
// allows, the catalog takes.
func (s *sim) operate(r *rapid.T, one, other rpc.NodeID) {
	view := s.view()
	group := rapid.SampledFrom(s.groups).Draw(r, "group").number
	switch rapid.IntRange(0, 5).Draw(r, "wish") {
	case 0:
		if view.CanDrain(one) == nil {
			s.must(&catalog.SetNodeState{Node: one, State: catalog.NodeDraining})
		}
	case 1:
		s.must(&catalog.SetNodeState{Node: one, State: catalog.NodeActive})
	case 2:
		if command, err := view.Move(group, one, other); err == nil && len(s.state.Moves()) < 3 && s.joining(other) < 2 {
			s.must(command)
		}
	case 3:
		if move := s.state.Placed[group].Move; move != nil {
			if command, err := view.Abort(move.ID); err == nil {
				s.must(command)
			}
		}
	case 4:
		if s.state.Rebalance == nil {
			s.must(&catalog.StartRebalance{})
		}
	case 5:
		_ = s.apply(&catalog.PinLeader{Group: group, Node: one})
	}
}

// joining counts the moves that bring a replica to a node.
func (s *sim) joining(id rpc.NodeID) int {
	count := 0
	for _, move := range s.state.Moves() {
		for _, join := range move.Join {
			if join == id {
				count++
			}
		}
	}
	return count
}

func (s *sim) counts() map[rpc.NodeID]int {
	counts := map[rpc.NodeID]int{}
	for _, n := range s.nodes {
		counts[n.id] = s.state.ReplicasOn(n.id)
	}
	return counts
}

// Goal: two nodes join a cluster of three, a rebalance evens replicas and
// leaders out, and another one finds nothing to do.
func TestRebalanceAfterJoins(t *testing.T) {
	t.Parallel()
	s := newSim(t, 5, 25, 3)
	s.settle(20)
	require.Equal(t, map[rpc.NodeID]int{"d1": 25, "d2": 25, "d3": 25, "d4": 0, "d5": 0}, s.counts(), "nothing moves unasked")
	require.Len(t, s.view().Relocations(true), 30)
	s.must(&catalog.StartRebalance{Planned: 30})
	s.settle(1000)
	s.settled(3)
	for id, count := range s.counts() {
		require.Equal(t, 15, count, id)
	}
	require.EqualValues(t, 30, s.state.MovesFinished)
	require.Nil(t, s.state.Rebalance, "it has ended by itself")
	leads := map[rpc.NodeID]int{}
	for number := range 25 {
		leads[s.state.Placed[number].Preferred]++
	}
	require.Equal(t, map[rpc.NodeID]int{"d1": 5, "d2": 5, "d3": 5, "d4": 5, "d5": 5}, leads)
	s.must(&catalog.StartRebalance{})
	require.IsType(t, &catalog.EndRebalance{}, s.next())
}

// A control leader that has not heard of all nodes yet starts and ends nothing by
// what it sees.
func TestNewLeaderWaitsForNodes(t *testing.T) {
	t.Parallel()
	s := newSim(t, 4, 8, 3)
	s.settle(20)
	s.must(&catalog.StartRebalance{Planned: 6})
	s.failover()
	for _, n := range s.nodes[:3] {
		for range confirmations {
			s.report(n)
			s.deliver(0, false, false)
		}
	}
	require.Nil(t, s.next())
	s.settle(300)
	s.settled(3)
	require.Equal(t, 6, s.state.ReplicasOn("d4"))
	require.EqualValues(t, 6, s.state.MovesFinished)

	// One that stays away is no reason to wait for ever.
	s.nodes[3].up = false
	s.must(&catalog.StartRebalance{})
	for range 20 {
		s.now = s.now.Add(simReplaceAfter / 2)
		s.run(3)
	}
	require.Nil(t, s.state.Rebalance)
}

// A drained node ends up empty and can be removed; then it takes nothing more.
func TestDrainEmptiesANode(t *testing.T) {
	t.Parallel()
	s := newSim(t, 4, 9, 3)
	s.settle(20)
	require.NoError(t, s.view().CanDrain("d1"))
	s.must(&catalog.SetNodeState{Node: "d1", State: catalog.NodeDraining})
	s.settle(500)
	s.settled(3)
	require.Zero(t, s.state.ReplicasOn("d1"))
	for number := range 9 {
		require.NotEqual(t, rpc.NodeID("d1"), s.state.Placed[number].Preferred)
	}
	s.must(&catalog.RemoveNode{Node: "d1"})
	s.must(&catalog.StartRebalance{})
	s.settle(100)
	require.Equal(t, map[rpc.NodeID]int{"d1": 0, "d2": 9, "d3": 9, "d4": 9}, s.counts())
	require.ErrorIs(t, s.view().CanDrain("d2"), catalog.ErrTooFewNodes)
}

func TestUndrainTakesBackWhatHasJustBegun(t *testing.T) {
	t.Parallel()
	s := newSim(t, 4, 9, 3)
	s.settle(20)
	s.must(&catalog.SetNodeState{Node: "d1", State: catalog.NodeDraining})
	for len(s.state.Moves()) == 0 {
		s.tick(false, false, false)
	}
	s.must(&catalog.SetNodeState{Node: "d1", State: catalog.NodeActive})
	s.settle(200)
	s.settled(3)
	require.Equal(t, 9, s.state.ReplicasOn("d1"))
	require.NotZero(t, s.state.MovesAborted)
}

// A node that stays away is replaced, one that comes back in time is not.
func TestSilentNodeIsReplaced(t *testing.T) {
	t.Parallel()
	s := newSim(t, 4, 6, 3)
	s.settle(30)
	s.nodes[0].up = false
	rounds := int(simReplaceAfter / (300 * time.Millisecond))
	s.run(rounds - 5)
	require.Zero(t, s.state.LastMove, "it may come back")
	for range 40 {
		s.run(20)
	}
	require.Zero(t, s.state.ReplicasOn("d1"))
	for number := range 6 {
		require.Len(t, s.state.Placed[number].Replicas, 3)
		require.Nil(t, s.state.Placed[number].Move)
	}
	s.settle(200)
	s.settled(3)
	require.Empty(t, s.view().Relocations(false))
}

// With as many nodes as replicas there is nobody to repair to, and when most
// nodes are silent nobody is given up.
func TestRepairWaits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ nodes, down int }{{3, 1}, {6, 3}} {
		s := newSim(t, test.nodes, 3, 3)
		s.settle(30)
		for i := range test.down {
			s.nodes[test.nodes-1-i].up = false
		}
		for range 10 {
			s.now = s.now.Add(simReplaceAfter)
			s.run(3)
		}
		require.Zero(t, s.state.LastMove, "%+v", test)
	}
}

func TestMovesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newSim(t, 5, 2, 3)
	s.settle(20)
	s.must(&catalog.SetNodeState{Node: "d5", State: catalog.NodeDraining})
	view := s.view()
	for name, test := range map[string]struct {
		group    uint16
		from, to rpc.NodeID
		want     error
	}{
		"no such group":       {256, "d1", "d4", catalog.ErrUnknownGroup},
		"not placed":          {9, "d1", "d4", catalog.ErrUnknownGroup},
		"no such source":      {0, "d9", "d4", catalog.ErrUnknownNode},
		"no such target":      {0, "d1", "d9", catalog.ErrUnknownNode},
		"holds it already":    {0, "d1", "d2", catalog.ErrHasReplica},
		"does not hold it":    {0, "d4", "d4", catalog.ErrNoReplica},
		"target is draining":  {0, "d1", "d5", catalog.ErrNotActive},
		"to where it is held": {0, "d1", "d1", catalog.ErrHasReplica},
	} {
		_, err := view.Move(test.group, test.from, test.to)
		require.ErrorIs(t, err, test.want, name)
	}
	view.Lives["d4"] = Life{Silent: time.Hour}
	_, err := view.Move(0, "d1", "d4")
	require.ErrorIs(t, err, ErrNodeDown)
	s.failover()
	s.alive("d4")
	_, err = s.view().Move(0, "d1", "d4")
	require.ErrorIs(t, err, ErrNoLeader)
	require.ErrorIs(t, s.view().CanDrain("d9"), catalog.ErrUnknownNode)
	require.ErrorIs(t, s.view().CanDrain("d1"), catalog.ErrTooFewNodes, "nobody has called yet")
	require.NoError(t, s.view().CanDrain("d5"), "it is draining")
}

func (s *sim) alive(ids ...rpc.NodeID) {
	for _, id := range ids {
		s.seen[id] = s.now
	}
}

func TestOperatorsMoveAndItsAbort(t *testing.T) {
	t.Parallel()
	s := newSim(t, 4, 1, 3)
	s.settle(20)
	_, err := s.view().Abort(1)
	require.ErrorIs(t, err, catalog.ErrUnknownMove)
	command, err := s.view().Move(0, "d1", "d4")
	require.NoError(t, err)
	s.must(command)
	_, err = s.view().Move(0, "d2", "d4")
	require.ErrorIs(t, err, catalog.ErrMoving)
	abort, err := s.view().Abort(1)
	require.NoError(t, err)
	s.must(abort)
	_, err = s.view().Abort(1)
	require.ErrorIs(t, err, ErrTooLate)
	s.settle(100)
	require.Equal(t, map[rpc.NodeID]int{"d1": 1, "d2": 1, "d3": 1, "d4": 0}, s.counts())
	command, err = s.view().Move(0, "d1", "d4")
	require.NoError(t, err)
	s.must(command)
	s.settle(100)
	require.Equal(t, map[rpc.NodeID]int{"d1": 0, "d2": 1, "d3": 1, "d4": 1}, s.counts())
}

// A pinned leader stays although leaders are uneven.
func TestPinnedLeaderStays(t *testing.T) {
	t.Parallel()
	s := newSim(t, 3, 6, 3)
	s.settle(50)
	for number := range uint16(6) {
		s.must(&catalog.PinLeader{Group: number, Node: "d1"})
	}
	s.settle(50)
	for number := range 6 {
		require.Equal(t, rpc.NodeID("d1"), s.state.Placed[number].Preferred)
	}
	s.must(&catalog.StartRebalance{})
	s.settle(50)
	s.settled(3)
}

func TestHealth(t *testing.T) {
	t.Parallel()
	s := newSim(t, 3, 1, 3)
	s.settle(20)
	h := s.view().Health(0)
	require.True(t, h.Quorum)
	require.NotEmpty(t, h.Leader)
	require.Len(t, h.Lags, 3)
	view := s.view()
	view.Lives["d1"], view.Lives["d2"] = Life{Silent: 1}, Life{Silent: 1}
	require.False(t, view.Health(0).Quorum)
}
