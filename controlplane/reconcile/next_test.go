package reconcile

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// scene is a catalog and reports that a test makes up.
type scene struct{ *sim }

func newScene(t *testing.T, nodes, first int) scene {
	return scene{newSim(t, nodes, 1, first)}
}

// hear takes in what a node reports of group 0 as one that follows the newest
// assignment. Members are voters, those after "" are not.
func (s scene) hear(id rpc.NodeID, term, applied uint64, members ...rpc.NodeID) {
	report := s.reportOf(id, s.state.Nodes[id].Assigned, applied)
	report.Groups[0].Term = term
	voter := true
	for _, member := range members {
		if member == "" {
			voter = false
			continue
		}
		report.Groups[0].Leading = true
		report.Groups[0].Replicas = append(report.Groups[0].Replicas, rpc.Replica{Node: member, Voter: voter})
	}
	s.observe(report)
}

func (s scene) reportOf(id rpc.NodeID, have, applied uint64) *rpc.Report {
	return &rpc.Report{
		Node: rpc.NodeInfo{ID: id}, HaveAssignment: have,
		Groups: []rpc.GroupReport{{Applied: applied, LastIndex: applied}},
	}
}

func (s scene) observe(report *rpc.Report) {
	s.seen[report.Node.ID] = s.now
	s.evidence.Observe(report, s.state, s.now)
}

// lead lets a node report a membership often enough for it to count.
func (s scene) lead(id rpc.NodeID, term, applied uint64, members ...rpc.NodeID) {
	for range confirmations {
		s.hear(id, term, applied, members...)
	}
}

// alive lets nodes call that hold nothing.
func (s scene) alive(ids ...rpc.NodeID) {
	for _, id := range ids {
		s.observe(&rpc.Report{Node: rpc.NodeInfo{ID: id}, HaveAssignment: s.state.Nodes[id].Assigned})
	}
}

func (s scene) lose(id rpc.NodeID) {
	n := s.node(id)
	n.life++
	s.must(n.registration(s.state.Nodes[id].Incarnation))
	s.alive(id)
}

// take commits what is due and returns it.
func (s scene) take() catalog.Command {
	command := s.next()
	if command != nil {
		s.must(command)
	}
	return command
}

func (s scene) phase() catalog.MovePhase {
	if move := s.state.Placed[0].Move; move != nil {
		return move.Phase
	}
	return ""
}

// grown is a scene in which d2 and d3 have been told to join d1.
func grown(t *testing.T) scene {
	s := newScene(t, 4, 1)
	s.alive("d2", "d3")
	s.lead("d1", 1, 100, "d1")
	start := s.take().(*catalog.StartMoves)
	require.ElementsMatch(t, []rpc.NodeID{"d2", "d3"}, start.Moves[0].Join)
	return s
}

func TestNewcomersVoteOnceTheyHaveCaughtUpForAWhile(t *testing.T) {
	t.Parallel()
	s := grown(t)
	arrive := func(d2, d3 uint64) {
		s.lead("d1", 1, 1000, "d1", "", "d2", "d3")
		s.hear("d2", 1, d2)
		s.hear("d3", 1, d3)
	}
	arrive(936, 100)
	s.now = s.now.Add(2 * time.Second)
	arrive(936, 935)
	require.Nil(t, s.take(), "d3 lacks one entry too many")
	s.now = s.now.Add(time.Second)
	arrive(1000, 936)
	require.Nil(t, s.take(), "d3 has only just caught up")
	s.now = s.now.Add(999 * time.Millisecond)
	arrive(1000, 1000)
	require.Nil(t, s.take())
	s.now = s.now.Add(time.Millisecond)
	s.hear("d3", 1, 1000)
	require.IsType(t, &catalog.AdvanceMoves{}, s.take())
	require.Equal(t, catalog.PhasePromote, s.phase())

	s.lead("d1", 1, 1001, "d1", "d2", "", "d3")
	require.Nil(t, s.take(), "d3 does not vote yet")
	s.hear("d1", 1, 1002, "d1", "d2", "d3")
	require.Nil(t, s.take(), "seen once")
	s.hear("d1", 1, 1002, "d1", "d2", "d3")
	require.IsType(t, &catalog.AdvanceMoves{}, s.take())
	require.Empty(t, s.phase())
}

func TestOnlyTheLeaderOfTheHighestTermIsBelieved(t *testing.T) {
	t.Parallel()
	s := newScene(t, 3, 3)
	s.lead("d1", 5, 10, "d1", "d2", "d3")
	s.hear("d2", 5, 10)
	s.hear("d3", 5, 10)
	s.lose("d3")
	s.lead("d2", 4, 9, "d1", "d2", "d3")
	s.hear("d2", 5, 10)
	require.IsType(t, &catalog.StartMoves{}, s.take())
	require.Equal(t, catalog.PhaseLeave, s.phase())
	require.EqualValues(t, 5, s.state.Placed[0].Term)

	s.lead("d2", 4, 99, "d1", "d2")
	require.Nil(t, s.take(), "a deposed leader")
	s.observe(func() *rpc.Report {
		r := s.reportOf("d1", s.state.Nodes["d1"].Assigned, 9)
		r.Groups[0].Leading, r.Groups[0].Term = true, 5
		r.Groups[0].Replicas = []rpc.Replica{{Node: "d1", Voter: true}, {Node: "d2", Voter: true}}
		return r
	}())
	require.Nil(t, s.take(), "a report that was overtaken")
	s.failover()
	s.lead("d2", 4, 99, "d1", "d2")
	s.hear("d1", 4, 99)
	require.Nil(t, s.take(), "nor by a control leader that knows of nobody else")
	s.lead("d1", 5, 11, "d1", "d2")
	require.IsType(t, &catalog.AdvanceMoves{}, s.take())
	require.Empty(t, s.phase())
	require.False(t, s.state.Placed[0].Holds("d3"))
}

func TestLeaversStayUntilEverybodyKnows(t *testing.T) {
	t.Parallel()
	s := newScene(t, 3, 3)
	s.lead("d1", 1, 10, "d1", "d2", "d3")
	s.hear("d2", 1, 10)
	s.lose("d3")
	before := s.state.Nodes["d2"].Assigned
	require.IsType(t, &catalog.StartMoves{}, s.take())
	s.lead("d1", 1, 10, "d1", "d2", "d3")
	s.hear("d2", 1, 10)
	require.Nil(t, s.take(), "d3 is a member still")
	s.lead("d1", 1, 11, "d1", "d2")
	s.observe(s.reportOf("d2", before, 11))
	require.Nil(t, s.take(), "d2 may lead next and add d3 again")
	s.hear("d2", 1, 11)
	require.IsType(t, &catalog.AdvanceMoves{}, s.take())
}

func TestLostReplicasAreRemovedOnlyBesideAQuorum(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(s scene)
		removed bool
	}{
		"the others are well":       {func(s scene) { s.hear("d2", 1, 10) }, true},
		"another has not reported":  {func(scene) {}, false},
		"another lags":              {func(s scene) { s.lead("d1", 1, 100, "d1", "d2", "d3"); s.hear("d2", 1, 10) }, false},
		"another is silent":         {func(s scene) { s.hear("d2", 1, 10); s.seen["d2"] = s.now.Add(-simTTL) }, false},
		"another lost its data too": {func(s scene) { s.hear("d2", 1, 10); s.lose("d2") }, false},
		"nobody leads":              {func(s scene) { s.hear("d2", 1, 10); s.hear("d1", 1, 10) }, false},
		"the leader is silent":      {func(s scene) { s.hear("d2", 1, 10); s.seen["d1"] = s.now.Add(-simTTL) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, 4, 3)
			s.lead("d1", 1, 10, "d1", "d2", "d3")
			s.lose("d3")
			test.prepare(s)
			command, started := s.next().(*catalog.StartMoves)
			require.Equal(t, test.removed, started)
			if started {
				require.Equal(t, rpc.NodeID("d3"), command.Moves[0].Leave)
			}
		})
	}
}

func TestAGroupThatLostEverythingIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newScene(t, 4, 1)
	s.lead("d1", 1, 10, "d1")
	s.lose("d1")
	s.alive("d2", "d3", "d4")
	s.lead("d1", 2, 0, "d1")
	require.Nil(t, s.next())
}

func TestGrowthWaitsForAnOddNumber(t *testing.T) {
	t.Parallel()
	s := newScene(t, 4, 1)
	s.lead("d1", 1, 10, "d1")
	s.alive("d2")
	require.Nil(t, s.next())
	two := View{State: s.state, Evidence: s.evidence, Lives: s.lives(), Expected: 2}
	require.Len(t, Next(two).(*catalog.StartMoves).Moves[0].Join, 1, "unless two is what the operator wants")
	s.alive("d3", "d4")
	require.Len(t, s.next().(*catalog.StartMoves).Moves[0].Join, 2)
	s.lead("d1", 1, 11, "d1", "", "d4")
	require.Nil(t, s.next(), "the leader has not settled on what the catalog has")
}

func TestMovesOfNewcomersThatCannotArriveAreTakenBack(t *testing.T) {
	t.Parallel()
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		s := grown(t)
		s.lead("d1", 1, 101, "d1", "", "d2", "d3")
		s.now = s.now.Add(DefaultPatience + time.Millisecond)
		s.lead("d1", 1, 101, "d1", "", "d2", "d3")
		s.alive("d2")
		require.Equal(t, []rpc.NodeID{"d3"}, s.take().(*catalog.AbortMoves).Moves[0].Nodes)
		require.Equal(t, catalog.PhaseWithdraw, s.phase())
		s.hear("d2", 1, 101)
		s.lead("d1", 1, 103, "d1")
		require.IsType(t, &catalog.AdvanceMoves{}, s.take())
		require.Len(t, s.state.Placed[0].Replicas, 1)
		require.EqualValues(t, 1, s.state.MovesAborted)
		s.alive("d2", "d4")
		require.Nil(t, s.take(), "the leader does not know yet that the move is over")
		s.lead("d1", 1, 103, "d1")
		require.ElementsMatch(t, []rpc.NodeID{"d2", "d4"}, s.take().(*catalog.StartMoves).Moves[0].Join, "on others")
	})
	t.Run("lost while voting", func(t *testing.T) {
		t.Parallel()
		s := grown(t)
		for range 2 {
			s.lead("d1", 1, 101, "d1", "", "d2", "d3")
			s.hear("d2", 1, 101)
			s.hear("d3", 1, 101)
			s.now = s.now.Add(time.Second)
		}
		require.IsType(t, &catalog.AdvanceMoves{}, s.take())
		s.lead("d1", 1, 103, "d1", "d2", "", "d3")
		s.lose("d3")
		s.hear("d2", 1, 103)
		s.seen["d2"] = s.now.Add(-simTTL)
		require.Nil(t, s.take(), "d1 and a silent d2 are no quorum")
		s.hear("d2", 1, 103)
		require.Equal(t, []rpc.NodeID{"d3"}, s.take().(*catalog.AbortMoves).Moves[0].Nodes, "d2 stays")
		s.lead("d1", 1, 104, "d1", "d2")
		s.hear("d2", 1, 104)
		require.IsType(t, &catalog.AdvanceMoves{}, s.take())
		require.Len(t, s.state.Placed[0].Replicas, 2)
	})
}
