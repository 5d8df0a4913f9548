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
			if command, err := view.Abort(move.ID); err == nil && command != nil {
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
	again, err := s.view().Abort(1)
	require.NoError(t, err)
	require.Nil(t, again, "it is being taken back")
	s.settle(100)
	require.Equal(t, map[rpc.NodeID]int{"d1": 1, "d2": 1, "d3": 1, "d4": 0}, s.counts())
	command, err = s.view().Move(0, "d1", "d4")
	require.NoError(t, err)
	s.must(command)
	s.settle(100)
	require.Equal(t, map[rpc.NodeID]int{"d1": 0, "d2": 1, "d3": 1, "d4": 1}, s.counts())
}

// tell lets everything run and be heard once, without a decision.
func (s *sim) tell() {
	s.now = s.now.Add(300 * time.Millisecond)
	for _, g := range s.groups {
		s.converge(g)
		s.replicate(g)
	}
	for _, n := range s.nodes {
		s.report(n)
		s.deliver(0, false, false)
	}
}

// Goal: whatever phase a move is in when an operator gives it up, it is taken back
// whole or goes on to its end, and the group is as it was or as it should be.
func TestAbortInEveryPhase(t *testing.T) {
	t.Parallel()
	for phase, refused := range map[catalog.MovePhase]error{
		catalog.PhaseJoin: nil, catalog.PhasePromote: nil, catalog.PhaseWithdraw: nil, catalog.PhaseLeave: ErrTooLate,
	} {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			s := newSim(t, 4, 1, 3)
			s.settle(20)
			command, err := s.view().Move(0, "d1", "d4")
			require.NoError(t, err)
			s.must(command)
			if phase == catalog.PhaseWithdraw {
				s.must(&catalog.AbortMoves{Moves: []catalog.MoveAbort{{Group: 0, Move: 1, Nodes: []rpc.NodeID{"d4"}}}})
			}
			for s.state.Placed[0].Move != nil && s.state.Placed[0].Move.Phase != phase {
				s.tell()
				s.tick(false, false, false)
			}
			require.NotNil(t, s.state.Placed[0].Move)
			abort, err := s.view().Abort(1)
			for refused == nil && err != nil { // a quorum without the newcomer must be seen first
				require.ErrorIs(t, err, ErrUnsafe)
				s.tell()
				abort, err = s.view().Abort(1)
			}
			require.ErrorIs(t, err, refused)
			if abort != nil {
				s.must(abort)
			}
			s.settle(100)
			require.Nil(t, s.state.Placed[0].Move)
			holder := map[bool]rpc.NodeID{true: "d1", false: "d4"}[refused == nil]
			require.Equal(t, 1, s.counts()[holder])
			require.Len(t, s.state.Placed[0].Replicas, 3)
		})
	}
}

// No node receives, and none sends, more than a bound at a time.
func TestMovesAreBoundedPerNode(t *testing.T) {
	t.Parallel()
	s := newSim(t, 6, 40, 3)
	s.settle(20)
	for number := range uint16(40) { // all led by one
		require.NoError(t, s.apply(&catalog.PinLeader{Group: number, Node: "d1"}).Err)
	}
	s.settle(50)
	for number := range uint16(40) { // no new pins; the rebalance may not end them first
		require.Equal(t, rpc.NodeID("d1"), s.state.Placed[number].Preferred)
	}
	s.must(&catalog.SetNodeState{Node: "d2", State: catalog.NodeDraining})
	view := s.view()
	view.Limits = Limits{MaxMoves: 30, MaxJoins: 20, MaxSends: 5, ReplaceAfter: simReplaceAfter}
	command, ok := Next(view).(*catalog.StartMoves)
	require.True(t, ok)
	require.Len(t, command.Moves, 5)
	view.Limits.MaxSends, view.Limits.MaxJoins = 30, 2
	command, ok = Next(view).(*catalog.StartMoves)
	require.True(t, ok)
	require.Len(t, command.Moves, 6, "two to each of three")
}

// Weights decide who leads how much, and a rebalance who holds how much.
func TestWeights(t *testing.T) {
	t.Parallel()
	s := newSim(t, 4, 24, 3)
	s.settle(50)
	s.must(&catalog.SetNodeWeight{Node: "d4", Weight: 50})
	s.must(&catalog.StartRebalance{})
	s.settle(2000)
	require.Nil(t, s.state.Rebalance)
	counts := s.counts()
	require.Equal(t, 72, counts["d1"]+counts["d2"]+counts["d3"]+counts["d4"])
	require.InDelta(t, 72*50/350, counts["d4"], 1)
	leads := map[rpc.NodeID]int{}
	for number := range 24 {
		leads[s.state.Placed[number].Preferred]++
	}
	require.InDelta(t, 24*50/350., leads["d4"], 1)
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
