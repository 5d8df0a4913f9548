package reconcile

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settled is what everything must come to.
func (s *sim) settled(replicas int) {
	leads := map[rpc.NodeID]int{}
	for _, g := range s.groups {
		placed := &s.state.Placed[g.number]
		require.Nil(s.t, placed.Move, "group %d: %+v, members %v", g.number, placed, g.members)
		require.Len(s.t, placed.Replicas, replicas)
		members := slices.SortedFunc(slices.Values(g.members), func(a, b rpc.Replica) int { return slices.Compare([]byte(a.Node), []byte(b.Node)) })
		for i, replica := range placed.Replicas {
			require.True(s.t, s.state.Intact(replica))
			require.Equal(s.t, rpc.Replica{Node: replica.Node, Voter: true}, members[i])
		}
		require.Len(s.t, members, replicas)
		leads[placed.Preferred]++
	}
	if len(s.nodes) == replicas {
		for _, n := range s.nodes {
			require.InDelta(s.t, len(s.groups)/len(s.nodes), leads[n.id], 1, "leaders are spread evenly")
		}
	}
}

func TestGrowsFromOneToThree(t *testing.T) {
	t.Parallel()
	s := newSim(t, 3, 7, 1)
	s.settle(150)
	s.settled(3)
	require.EqualValues(t, 7, s.state.MovesFinished)
	require.Zero(t, s.state.MovesAborted)
	require.Nil(t, s.next())
}

func TestDoesNotGrowToTwo(t *testing.T) {
	t.Parallel()
	s := newSim(t, 2, 3, 1)
	s.settle(40)
	s.settled(1)
	require.Zero(t, s.state.LastMove)
}

func TestWipedNodeRejoins(t *testing.T) {
	t.Parallel()
	s := newSim(t, 3, 7, 3)
	s.settle(5)
	s.wipe(s.nodes[1])
	require.Equal(t, 1, s.wipes)
	s.now = s.now.Add(simTTL)
	s.settle(150)
	s.settled(3)
	require.EqualValues(t, 14, s.state.MovesFinished)
}

// Goal: whatever happens in whatever order, no group ever loses its quorum or
// what was committed, no node deletes a replica that counts, and once the faults
// end every group has its replicas. A model of Raft plays the data plane.
func TestMovesSurviveEverything(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		nodes := rapid.IntRange(3, 5).Draw(r, "nodes")
		s := newSim(r, nodes, rapid.IntRange(1, 4).Draw(r, "groups"), rapid.SampledFrom([]int{1, 3}).Draw(r, "first"))
		node := func() *simNode { return rapid.SampledFrom(s.nodes).Draw(r, "node") }
		group := func() *simGroup { return rapid.SampledFrom(s.groups).Draw(r, "group") }
		maybe := func(what string) bool { return rapid.IntRange(0, 5).Draw(r, what) == 0 }
		act := func(weight int, f func()) []func() { return slices.Repeat([]func(){f}, weight) }
		actions := slices.Concat(
			act(6, func() {
				if n := node(); n.up {
					s.report(n)
				}
			}),
			act(8, func() {
				if len(s.flight) > 0 {
					s.deliver(rapid.IntRange(0, len(s.flight)-1).Draw(r, "report"), maybe("twice"), maybe("answer lost"))
				}
			}),
			act(6, func() { s.tick(maybe("lost"), maybe("failover"), maybe("again")) }),
			act(6, func() { s.converge(group()) }),
			act(4, func() { s.replicate(group()) }),
			act(3, func() { g := group(); s.commitEntry(g, g.members, false) }),
			act(3, func() { s.elect(group(), node()) }),
			act(2, func() { clear(node().deposed) }),
			act(6, func() { s.now = s.now.Add(time.Duration(rapid.IntRange(1, 1000).Draw(r, "ms")) * time.Millisecond) }),
			act(1, func() {
				n := node()
				n.up, n.assigned = false, nil
				clear(n.deposed)
			}),
			act(3, func() { node().up = true }),
			act(1, func() { s.failover() }),
			act(1, func() {
				if s.wipes < 3 {
					s.wipe(node())
				}
			}),
			act(1, func() { s.settle(5) }),
			act(2, func() { s.operate(r, node().id, node().id) }),
		)
		for range rapid.IntRange(0, 200).Draw(r, "steps") {
			rapid.SampledFrom(actions).Draw(r, "action")()
			s.check()
		}
		for _, n := range s.nodes {
			s.must(&catalog.SetNodeState{Node: n.id, State: catalog.NodeActive})
		}
		if last := s.state.Rebalance; last != nil {
			s.must(&catalog.EndRebalance{ID: last.ID, Cancelled: true})
		}
		s.must(&catalog.StartRebalance{}) // unpins leaders
		s.now = s.now.Add(simTTL)
		s.settle(600)
		require.Nil(s.t, s.state.Rebalance)
		s.settled(3)
	})
}
