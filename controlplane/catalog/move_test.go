package catalog

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func startMove(group uint16, leave rpc.NodeID, join ...rpc.NodeID) *StartMoves {
	return &StartMoves{Moves: []MoveStart{{Group: group, Join: join, Leave: leave, Reason: ReasonGrow, Term: 3}}, At: epoch}
}

func advance(group uint16, move uint64, from MovePhase) *AdvanceMoves {
	return &AdvanceMoves{Steps: []MoveStep{{Group: group, Move: move, From: from, Term: 4}}}
}

func abort(group uint16, move uint64, nodes ...rpc.NodeID) *AbortMoves {
	return &AbortMoves{Moves: []MoveAbort{{Group: group, Move: move, Nodes: nodes}}}
}

// cluster returns a history with d1 to d4, the first groups of which are formed
// on some of them.
func cluster(t testing.TB, replicas ...rpc.NodeID) *history {
	h := newHistory(t)
	h.must(create())
	for _, id := range []string{"d1", "d2", "d3", "d4"} {
		h.must(register(id))
	}
	h.must(place(3, replicas...))
	h.must(form(0, 1))
	return h
}

// hosted is what a node is told of group 0: whether it holds it, and the members.
func (h *history) hosted(id rpc.NodeID) (bool, []rpc.Replica) {
	assignment, _ := h.state.Assignment(id)
	for _, group := range assignment.Groups {
		if group.Group == 0 {
			return true, group.Replicas
		}
	}
	return false, nil
}

// Goal: one replica replaces another, seen from every node at every step.
func TestLifeOfAMove(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1", "d2", "d3")
	voters := func(ids ...rpc.NodeID) (replicas []rpc.Replica) {
		for _, id := range ids {
			replicas = append(replicas, rpc.Replica{Node: id, Voter: true})
		}
		return replicas
	}
	check := func(phase MovePhase, members, serving []rpc.Replica, holders ...rpc.NodeID) {
		t.Helper()
		for _, id := range []rpc.NodeID{"d1", "d2", "d3", "d4"} {
			holds, told := h.hosted(id)
			require.Equal(t, slices.Contains(holders, id), holds, id)
			if holds {
				require.Equal(t, members, told)
				assignment, _ := h.state.Assignment(id)
				require.Equal(t, h.state.Revision, assignment.Version)
				for _, holder := range holders {
					require.Contains(t, assignment.Addresses, holder, "those that leave may still be needed")
				}
			}
		}
		require.Equal(t, serving, h.state.Table().Groups[0].Replicas)
		if phase != "" {
			require.Equal(t, phase, h.state.Placed[0].Move.Phase)
		} else {
			require.Nil(t, h.state.Placed[0].Move)
		}
		require.Equal(t, h.state.Revision, h.state.Placed[0].Step)
		require.NoError(t, h.state.validate())
	}
	h.must(startMove(0, "d1", "d4"))
	require.EqualValues(t, 3, h.state.Placed[0].Term)
	check(PhaseJoin, append(voters("d1", "d2", "d3"), rpc.Replica{Node: "d4"}), voters("d1", "d2", "d3"), "d1", "d2", "d3", "d4")
	require.ErrorIs(t, h.apply(startMove(0, "", "d4")).Err, ErrStale, "one move at a time")
	require.ErrorIs(t, h.apply(advance(0, 2, PhaseJoin)).Err, ErrStale)
	h.must(advance(0, 1, PhaseJoin))
	require.ErrorIs(t, h.apply(advance(0, 1, PhaseJoin)).Err, ErrStale, "a repeated step changes nothing")
	check(PhasePromote, voters("d1", "d2", "d3", "d4"), voters("d1", "d2", "d3", "d4"), "d1", "d2", "d3", "d4")
	require.ErrorIs(t, h.apply(advance(0, 1, PhasePromote)).Err, ErrInvalid, "the leaver must not be preferred")
	step := advance(0, 1, PhasePromote)
	step.Steps[0].Preferred = "d4"
	h.must(step)
	check(PhaseLeave, voters("d2", "d3", "d4"), voters("d1", "d2", "d3", "d4"), "d1", "d2", "d3", "d4")
	require.ErrorIs(t, h.apply(abort(0, 1, "d4")).Err, ErrStale, "too late")
	h.must(advance(0, 1, PhaseLeave))
	check("", voters("d2", "d3", "d4"), voters("d2", "d3", "d4"), "d2", "d3", "d4")
	gone := h.state.Nodes["d1"]
	require.Equal(t, h.state.Index, gone.Assigned, "the leaver is told, too")
	require.EqualValues(t, 1, h.state.MovesFinished)
	require.EqualValues(t, 4, h.state.Placed[0].Term)
}

func TestAbortedMoves(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1")
	h.must(startMove(0, "", "d3", "d2"))
	require.Equal(t, []rpc.NodeID{"d2", "d3"}, h.state.Placed[0].Move.Join)
	h.must(abort(0, 1, "d2"))
	_, members := h.hosted("d3")
	require.Equal(t, []rpc.Replica{{Node: "d1", Voter: true}}, members, "before they vote, all go")
	require.ErrorIs(t, h.apply(abort(0, 1, "d3")).Err, ErrStale)
	h.must(advance(0, 1, PhaseWithdraw))
	require.EqualValues(t, 1, h.state.MovesAborted)

	h.must(startMove(0, "", "d2", "d3"))
	h.must(advance(0, 2, PhaseJoin))
	require.ErrorIs(t, h.apply(abort(0, 2)).Err, ErrInvalid)
	require.ErrorIs(t, h.apply(abort(0, 2, "d1")).Err, ErrStale)
	h.must(abort(0, 2, "d3"))
	_, members = h.hosted("d3")
	require.Equal(t, []rpc.Replica{{Node: "d1", Voter: true}, {Node: "d2", Voter: true}}, members)
	h.must(abort(0, 2, "d2"))
	h.must(advance(0, 2, PhaseWithdraw))
	require.Len(t, h.state.Placed[0].Replicas, 1)
}

// A node that lost its data holds nothing of what it held, and votes nowhere.
func TestLostReplicas(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1", "d2", "d3")
	h.must(startMove(1, "", "d4"))
	wiped := register("d4")
	wiped.Incarnation, wiped.Replaces = "d4-2", "d4-1"
	h.must(wiped)
	require.ErrorIs(t, h.apply(advance(1, 1, PhaseJoin)).Err, ErrStale, "a newcomer without its data")

	wiped = register("d2")
	wiped.Incarnation, wiped.Replaces = "d2-2", "d2-1"
	h.must(wiped)
	holds, _ := h.hosted("d2")
	require.False(t, holds)
	require.Len(t, h.state.Table().Groups[0].Replicas, 2)
	_, members := h.hosted("d1")
	require.Len(t, members, 3, "until it is removed it is a member")
	h.must(startMove(0, "d2"))
	_, members = h.hosted("d1")
	require.Len(t, members, 2)
	h.must(advance(0, 2, PhaseLeave))
	h.must(startMove(0, "", "d2"))
	holds, members = h.hosted("d2")
	require.True(t, holds)
	require.Equal(t, []rpc.Replica{{Node: "d1", Voter: true}, {Node: "d2"}, {Node: "d3", Voter: true}}, members)
}

func TestPreferLeaders(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1", "d2")
	prefer := func(group uint16, id rpc.NodeID) *PreferLeaders {
		return &PreferLeaders{Groups: []LeaderChoice{{Group: group, Node: id}}}
	}
	h.must(prefer(0, "d2"))
	assignment, _ := h.state.Assignment("d1")
	require.Equal(t, rpc.NodeID("d2"), assignment.Groups[0].Preferred)
	require.ErrorIs(t, h.apply(prefer(0, "d3")).Err, ErrStale)
	require.ErrorIs(t, h.apply(prefer(7, "d1")).Err, ErrStale)
	h.must(startMove(0, "", "d3"))
	require.ErrorIs(t, h.apply(prefer(0, "d1")).Err, ErrStale)
}

func TestRefusedMoves(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		command Command
		want    error
	}{
		"nothing":            {&StartMoves{}, ErrInvalid},
		"of nobody":          {startMove(0, ""), ErrInvalid},
		"group 256":          {startMove(Groups, "d1"), ErrInvalid},
		"not placed":         {startMove(9, "", "d3"), ErrStale},
		"not formed":         {startMove(2, "", "d3"), ErrStale},
		"onto a holder":      {startMove(0, "", "d2"), ErrStale},
		"onto a stranger":    {startMove(0, "", "d9"), ErrStale},
		"twice onto one":     {startMove(0, "", "d3", "d3"), ErrInvalid},
		"away from nobody":   {startMove(0, "d3", "d4"), ErrStale},
		"the preferred":      {startMove(0, "d1"), ErrInvalid},
		"too many":           {startMove(0, "", "d3", "d4", "d5", "d6", "d7", "d8"), ErrInvalid},
		"twice in one":       {&StartMoves{Moves: append(startMove(0, "", "d3").Moves, startMove(0, "", "d4").Moves...)}, ErrStale},
		"advance nothing":    {advance(0, 1, PhaseJoin), ErrStale},
		"abort nothing":      {abort(0, 1, "d1"), ErrStale},
		"the second is bad":  {&StartMoves{Moves: append(startMove(0, "", "d3").Moves, startMove(2, "", "d4").Moves...)}, ErrStale},
		"prefer in no group": {&PreferLeaders{}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := cluster(t, "d1", "d2")
			before := *h.state
			require.ErrorIs(t, h.apply(test.command).Err, test.want)
			h.state.Index = before.Index
			require.Equal(t, &before, h.state, "only the index moves")
		})
	}
}

// Commands of moves in any order leave a state that is whole, survives a snapshot,
// and gives no replica to a node twice.
func TestMovesKeepTheStateWhole(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		h := cluster(t, "d1", "d2")
		ids := rapid.SampledFrom([]rpc.NodeID{"d1", "d2", "d3", "d4", ""})
		phases := rapid.SampledFrom([]MovePhase{PhaseJoin, PhasePromote, PhaseLeave, PhaseWithdraw})
		for range rapid.IntRange(1, 30).Draw(r, "commands") {
			group := rapid.Uint16Range(0, 2).Draw(r, "group")
			move := rapid.Uint64Range(0, 1).Draw(r, "behind")
			if current := h.state.Placed[group].Move; current != nil {
				move = current.ID - move
			}
			some := rapid.SliceOfN(ids, 0, 2)
			var command Command
			switch rapid.IntRange(0, 4).Draw(r, "kind") {
			case 0:
				start := startMove(group, ids.Draw(r, "leave"), some.Draw(r, "join")...)
				start.Moves[0].Preferred = ids.Draw(r, "preferred")
				command = start
			case 1, 2:
				step := advance(group, move, phases.Draw(r, "from"))
				step.Steps[0].Preferred = ids.Draw(r, "preferred")
				command = step
			case 3:
				command = abort(group, move, some.Draw(r, "nodes")...)
			default:
				command = &PreferLeaders{Groups: []LeaderChoice{{Group: group, Node: ids.Draw(r, "node")}}}
			}
			before := h.state
			result := h.apply(command)
			require.NoError(r, h.state.validate())
			for id, node := range h.state.Nodes {
				old, _ := before.Assignment(id)
				now, _ := h.state.Assignment(id)
				if node.Assigned == before.Nodes[id].Assigned {
					require.Equal(r, old, now, "what changes has another version")
				}
			}
			require.Equal(r, result.Changed, h.state.Revision == h.state.Index)
		}
		var out bytes.Buffer
		require.NoError(r, h.state.write(&out))
		restored, err := read(&out)
		require.NoError(r, err)
		require.Equal(r, h.state, restored)
	})
}

// A program that does not know what a command or a state is about must not
// touch it.
func TestVersionsThatAreRequired(t *testing.T) {
	t.Parallel()
	for command, want := range map[Command]uint8{
		form(0): versionFirst, &PreferLeaders{}: versionMoves, &GrantLeases{}: versionLeases,
		register("d1"): versionOperated, startMove(0, "d1"): versionOperated, &SetNodeState{}: versionOperated,
		&SetNodeWeight{}: versionWeights,
	} {
		data, err := Encode(command)
		require.NoError(t, err)
		require.Equal(t, want, data[2], "%T", command)
	}
	for want, state := range map[uint8]*State{
		versionFirst: {}, versionMoves: {LastMove: 1}, versionLeases: {LastMove: 1, Leases: make([]Lease, Groups)}, versionOperated: {LastEvent: 1},
	} {
		require.Equal(t, want, state.requires())
	}
}
