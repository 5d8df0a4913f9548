package catalog

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func drain(id rpc.NodeID) *SetNodeState {
	return &SetNodeState{Node: id, State: NodeDraining, At: epoch}
}
func undrain(id rpc.NodeID) *SetNodeState {
	return &SetNodeState{Node: id, State: NodeActive, At: epoch}
}

func (h *history) refused(command Command, want error) {
	h.t.Helper()
	before := h.state.Revision
	require.ErrorIs(h.t, h.apply(command).Err, want)
	require.Equal(h.t, before, h.state.Revision, "a refusal changes nothing")
}

// same applies a command that asks for what is so already.
func (h *history) same(command Command) {
	h.t.Helper()
	before := h.state.Revision
	require.Equal(h.t, Result{}, h.apply(command))
	require.Equal(h.t, before, h.state.Revision)
}

func (h *history) events() []EventKind {
	var kinds []EventKind
	for _, event := range h.state.Events {
		kinds = append(kinds, event.Kind)
	}
	return kinds
}

func TestLifeOfADrain(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1", "d2", "d3")
	h.refused(drain("d9"), ErrUnknownNode)
	h.refused(&SetNodeState{Node: "d1", State: "odd"}, ErrInvalid)
	h.must(drain("d1"))
	h.same(drain("d1"))
	require.Equal(t, NodeDraining, h.state.Nodes["d1"].State)
	h.refused(drain("d2"), ErrDrainUnderWay)
	h.refused(&RemoveNode{Node: "d1"}, ErrHoldsReplicas)
	h.refused(startMove(0, "d2", "d1"), ErrStale)
	h.refused(grant(0, 0, "d1"), ErrStale)
	h.refused(place(1, "d1"), ErrStale)
	h.must(undrain("d1"))
	h.must(drain("d4"))
	require.Zero(t, h.state.ReplicasOn("d4"))
	h.refused(drain("d1"), ErrTooFewNodes)
	h.must(&RemoveNode{Node: "d4"})
	h.same(&RemoveNode{Node: "d4"})
	h.refused(drain("d4"), ErrRemoved)
	h.refused(drain("d1"), ErrTooFewNodes)
	require.NotContains(t, h.state.Table().Nodes, rpc.NodeID("d4"))

	h.refused(register("d4"), ErrRemoved)
	fresh := register("d4")
	fresh.Incarnation, fresh.Replaces = "new", h.state.Nodes["d4"].Incarnation
	h.must(fresh)
	require.Equal(t, NodeActive, h.state.Nodes["d4"].State)
	h.must(drain("d1"))
	require.Equal(t, []EventKind{EventNodeDraining, EventNodeActive, EventNodeDraining, EventNodeRemoved, EventNodeRegistered, EventNodeDraining},
		h.events()[6:])
}

func TestWeights(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1", "d2", "d3")
	weigh := func(id rpc.NodeID, weight uint32) *SetNodeWeight {
		return &SetNodeWeight{Node: id, Weight: weight, At: epoch}
	}
	assigned := h.state.Nodes["d1"].Assigned
	h.must(weigh("d1", 200))
	require.EqualValues(t, 200, h.state.Nodes["d1"].Weight)
	require.Equal(t, assigned, h.state.Nodes["d1"].Assigned, "a node is not told its weight")
	require.Equal(t, h.state.Index, h.state.Revision, "plans are made anew")
	require.Equal(t, EventNodeWeighed, h.events()[len(h.state.Events)-1])
	h.same(weigh("d1", 200))
	h.refused(weigh("d1", 0), ErrInvalid)
	h.refused(weigh("d1", MaxWeight+1), ErrInvalid)
	h.refused(weigh("d9", 7), ErrUnknownNode)
	h.same(register("d1"))
	require.EqualValues(t, 200, h.state.Nodes["d1"].Weight, "a restart keeps it")
	h.must(register("d7"))
	h.must(&RemoveNode{Node: "d7"})
	h.refused(weigh("d7", 7), ErrRemoved)
}

func TestPinnedLeader(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1", "d2", "d3")
	pin := func(group uint16, id rpc.NodeID) *PinLeader { return &PinLeader{Group: group, Node: id, At: epoch} }
	h.refused(pin(Groups, "d1"), ErrUnknownGroup)
	h.refused(pin(7, "d1"), ErrUnknownGroup)
	h.refused(pin(2, "d1"), ErrMoving)
	h.refused(pin(0, "d9"), ErrUnknownNode)
	h.refused(pin(0, "d4"), ErrNoReplica)
	assigned := h.state.Nodes["d3"].Assigned
	h.must(pin(0, "d2"))
	require.Greater(t, h.state.Nodes["d3"].Assigned, assigned, "all replicas are told")
	require.Equal(t, rpc.NodeID("d2"), h.state.Placed[0].Preferred)
	require.True(t, h.state.Placed[0].Pinned)
	h.same(pin(0, "d2"))
	h.must(startMove(0, "", "d4"))
	h.refused(pin(0, "d1"), ErrMoving)
	h.must(&StartRebalance{At: epoch})
	require.False(t, h.state.Placed[0].Pinned)
}

func TestLifeOfARebalance(t *testing.T) {
	t.Parallel()
	newHistory(t).refused(&StartRebalance{}, ErrNoCluster)
	h := cluster(t, "d1", "d2", "d3")
	h.refused(&StartRebalance{Planned: -1}, ErrInvalid)
	h.must(&StartRebalance{Planned: 7, At: epoch})
	require.Equal(t, &Rebalance{ID: h.state.Index, StartedAt: stamp(epoch), Planned: 7}, h.state.Rebalance)
	h.refused(&StartRebalance{}, ErrRebalancing)
	h.refused(&EndRebalance{ID: 1}, ErrStale)
	id := h.state.Rebalance.ID
	h.must(&EndRebalance{ID: id, At: epoch})
	h.refused(&EndRebalance{ID: id}, ErrStale)
	require.Nil(t, h.state.Rebalance)
}

// A registry full of removed nodes takes new ones, the oldest gives way.
func TestRemovedNodesMakeRoom(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.must(create())
	for i := range MaxNodes {
		h.must(register(fmt.Sprint("n", i)))
	}
	h.refused(register("new"), ErrFull)
	h.must(&RemoveNode{Node: "n7"})
	before := h.state
	h.must(register("new"))
	require.Len(t, h.state.Nodes, MaxNodes)
	require.NotContains(t, h.state.Nodes, rpc.NodeID("n7"))
	require.Contains(t, before.Nodes, rpc.NodeID("n7"), "states are immutable")
	h.refused(register("newer"), ErrFull)
}

func TestEventLogIsBounded(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1")
	note := &NoteNodes{At: epoch, Silent: []rpc.NodeID{"d1", "stranger"}, Back: []rpc.NodeID{"d2"}}
	var held *State
	for range MaxEvents {
		held = h.state
		h.must(note)
	}
	require.Len(t, h.state.Events, MaxEvents)
	require.NotEqual(t, held.Events[0].ID, h.state.Events[0].ID, "states are immutable")
	for i, event := range h.state.Events {
		require.Equal(t, h.state.LastEvent-uint64(MaxEvents-1-i), event.ID)
	}
	require.Equal(t, EventNodeBack, h.state.Events[MaxEvents-1].Kind)
	require.NoError(t, h.state.validate())
	newHistory(t).refused(note, ErrNoCluster)
}
