package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func membersOf(nodes []Node) []Member {
	members := make([]Member, len(nodes))
	for i, node := range nodes {
		members[i] = Member{Node: node}
	}
	return members
}

func mustRebalance(t require.TestingT, members []Member, groups []Group, factor int) *Plan {
	plan, err := Rebalance(members, groups, factor)
	require.NoError(t, err)
	checkPlan(t, members, groups, factor, plan)
	return plan
}

// checkPlan checks what holds for every plan: its changes lead from one placement
// to the other, no node holds a group twice, none that leaves holds anything, and
// those that keep theirs keep it.
func checkPlan(t require.TestingT, members []Member, before []Group, factor int, plan *Plan) {
	role := map[string]Role{}
	stay := 0
	for _, member := range members {
		role[member.ID] = member.Role
		if member.Role != Leaves {
			stay++
		}
	}
	after := make([][]string, len(before))
	for number, group := range before {
		after[number] = slices.Clone(group.Nodes)
	}
	for i, change := range plan.Changes {
		require.True(t, i == 0 || plan.Changes[i-1].Group <= change.Group)
		if change.From != "" {
			require.Contains(t, after[change.Group], change.From)
			after[change.Group] = slices.DeleteFunc(after[change.Group], func(id string) bool { return id == change.From })
		}
		if change.To != "" {
			require.NotContains(t, after[change.Group], change.To, "group %d twice on a node", change.Group)
			require.NotContains(t, before[change.Group].Nodes, change.To)
			require.Equal(t, Takes, role[change.To])
			after[change.Group] = append(after[change.Group], change.To)
		}
		require.True(t, change.From == "" || role[change.From] != Keeps || change.To == "", "%+v", change)
	}
	for number, group := range plan.Groups {
		slices.Sort(after[number])
		require.Equal(t, after[number], group.Nodes)
		require.Contains(t, group.Nodes, group.Leader)
		for _, id := range group.Nodes {
			_, known := role[id]
			require.True(t, known && role[id] != Leaves, "%s is to leave", id)
		}
		if !slices.ContainsFunc(members, func(m Member) bool { return m.Role == Keeps }) {
			require.Len(t, group.Nodes, min(factor, stay))
		}
	}
}

// bestChanges is how many replicas must come to nodes at the least for equal
// nodes to be even: those above the even part keep what cannot be shared out.
func bestChanges(nodes []Node, before []Group, perGroup int) int {
	have := map[string]int{}
	for _, group := range before {
		for _, id := range group.Nodes {
			have[id]++
		}
	}
	counts := make([]int, len(nodes))
	for i, node := range nodes {
		counts[i] = have[node.ID]
	}
	slices.SortFunc(counts, func(a, b int) int { return b - a })
	total, sum := len(before)*perGroup, 0
	for i, count := range counts {
		part := total / len(nodes)
		if i < total%len(nodes) {
			part++
		}
		sum += max(0, part-count)
	}
	return sum
}

func byZone(nodes []Node) map[string][]Node {
	zones := map[string][]Node{}
	for _, node := range nodes {
		zones[node.Zone] = append(zones[node.Zone], node)
	}
	return zones
}

// Goal: a cluster of 3 to 500 nodes lives through thousands of joins, departures
// and failures, one or several at a time, and is balanced after each with hardly
// more changes than the fewest that could do it.
func TestRebalanceThroughThousandsOfEvents(t *testing.T) {
	t.Parallel()
	for _, zones := range []int{1, 3} {
		for _, most := range []int{8, 40, 500} {
			t.Run(fmt.Sprint(zones, " zones, to ", most), func(t *testing.T) {
				t.Parallel()
				events := 120
				if most == 500 {
					events = 25
				}
				changes, best := simulate(t, zones, most, events)
				t.Logf("%d changes, %d at least: %.3f", changes, best, float64(changes)/float64(best))
				require.LessOrEqual(t, float64(changes), 1.1*float64(best))
			})
		}
	}
}

func simulate(t *testing.T, zones, most, events int) (changes, best int) {
	random := rand.New(rand.NewPCG(uint64(zones), uint64(most)))
	next := 0
	join := func(nodes []Node) []Node {
		smallest := 0
		counts := make([]int, zones)
		for _, node := range nodes {
			counts[node.Zone[0]-'a']++
		}
		for zone, count := range counts {
			if count < counts[smallest] {
				smallest = zone
			}
		}
		next++
		return append(nodes, Node{ID: fmt.Sprintf("n%04d", next), Zone: string(rune('a' + smallest))})
	}
	var nodes []Node
	for len(nodes) < max(3, most/2) {
		nodes = join(nodes)
	}
	groups, err := Initial(nodes, 256, 3)
	require.NoError(t, err)
	for event := range events {
		for range 1 + random.IntN(max(1, most/8)) {
			if len(nodes) <= 4*zones-1 && len(nodes) < 6 || len(nodes) < most && random.IntN(2) == 0 {
				nodes = join(nodes)
			} else if i := random.IntN(len(nodes)); zones == 1 || len(byZone(nodes)[nodes[i].Zone]) > 1 {
				nodes = slices.Delete(nodes, i, i+1)
			}
		}
		plan := mustRebalance(t, membersOf(nodes), groups, 3)
		least := 0
		for _, zone := range byZone(nodes) {
			least += bestChanges(zone, groups, 3/zones)
		}
		require.GreaterOrEqual(t, len(plan.Changes), least)
		changes, best = changes+len(plan.Changes), best+least
		groups = plan.Groups
		replicas, leaders := load(groups)
		for _, zone := range byZone(nodes) {
			require.LessOrEqual(t, spread(zone, replicas), 1)
		}
		if zones == 1 || len(nodes)%zones == 0 {
			require.LessOrEqual(t, spread(nodes, leaders), 1)
		}
		if event%10 == 0 {
			require.Empty(t, mustRebalance(t, membersOf(nodes), groups, 3).Changes, "a balanced cluster stays as it is")
		}
	}
	return changes, best
}

// What holds whatever the zones, weights and roles are, and wherever the
// placement came from.
func TestRebalanceRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		nodes := drawNodes(r, true)
		factor := rapid.SampledFrom([]int{1, 3, 5}).Draw(r, "factor")
		members := membersOf(nodes)
		for i := 1; i < len(members); i++ {
			members[i].Role = Role(rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(r, "role"))
		}
		groups := make([]Group, rapid.IntRange(1, 60).Draw(r, "groups"))
		for i := range groups {
			for _, node := range append(nodes[:len(nodes):len(nodes)], Node{ID: "gone"}) {
				if len(groups[i].Nodes) < MaxReplicas && rapid.IntRange(0, 3).Draw(r, "holds") == 0 {
					groups[i].Nodes = append(groups[i].Nodes, node.ID)
				}
			}
			if len(groups[i].Nodes) > 0 {
				groups[i].Leader = groups[i].Nodes[0]
			}
		}
		for _, replanned := range []func([]Member, []Group, int) (*Plan, error){Rebalance, Evacuate} {
			plan, err := replanned(members, groups, factor)
			require.NoError(r, err)
			for number, group := range plan.Groups {
				require.Len(r, slices.Compact(slices.Clone(group.Nodes)), len(group.Nodes), "group %d is twice on a node", number)
				if len(group.Nodes) > 0 {
					require.Contains(r, group.Nodes, group.Leader)
				}
				for _, id := range group.Nodes {
					i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id })
					require.GreaterOrEqual(r, i, 0)
					require.NotEqual(r, Leaves, members[i].Role)
					if members[i].Role == Keeps {
						require.Contains(r, groups[number].Nodes, id)
					}
				}
			}
			again, err := replanned(rapid.Permutation(members).Draw(r, "order"), groups, factor)
			require.NoError(r, err)
			require.Equal(r, plan, again, "the order of nodes does not matter")
		}
	})
}

// Equal zones: even over all nodes, and every group in as many zones as there
// can be.
func TestRebalanceSpreadsOverZones(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		zones := rapid.IntRange(1, 5).Draw(r, "zones")
		nodes := nodesNamed(zones*rapid.IntRange(1, 5).Draw(r, "nodes per zone"), zones)
		factor := rapid.SampledFrom([]int{1, 3, 5}).Draw(r, "factor")
		// The nodes had no zones before, or other ones.
		groups, err := Initial(nodesNamed(len(nodes), rapid.IntRange(0, 4).Draw(r, "zones before")), 256, factor)
		require.NoError(r, err)
		plan := mustRebalance(r, membersOf(nodes), groups, factor)
		replicas, leaders := load(plan.Groups)
		require.LessOrEqual(r, spread(nodes, replicas), 1)
		require.LessOrEqual(r, spread(nodes, leaders), 1)
		zoneOf := map[string]string{}
		for _, node := range nodes {
			zoneOf[node.ID] = node.Zone
		}
		for _, group := range plan.Groups {
			held := map[string]int{}
			for _, id := range group.Nodes {
				held[zoneOf[id]]++
			}
			require.Len(r, held, min(zones, len(group.Nodes)))
		}
	})
}

func TestEvacuateMovesNothingElse(t *testing.T) {
	t.Parallel()
	nodes := nodesNamed(5, 0)
	groups, err := Initial(nodes, 256, 3)
	require.NoError(t, err)
	before, _ := load(groups)
	members := membersOf(nodes)
	members[2].Role = Leaves
	plan, err := Evacuate(members, groups, 3)
	require.NoError(t, err)
	checkPlan(t, members, groups, 3, plan)
	require.Len(t, plan.Changes, before["d002"])
	for _, change := range plan.Changes {
		require.Equal(t, "d002", change.From)
	}
	replicas, _ := load(plan.Groups)
	delete(replicas, "d002")
	require.LessOrEqual(t, spread([]Node{nodes[0], nodes[1], nodes[3], nodes[4]}, replicas), 1)

	members[0].Role = Keeps
	plan, err = Evacuate(members, groups, 3)
	require.NoError(t, err)
	for _, change := range plan.Changes {
		require.NotEqual(t, "d000", change.To)
	}
}

func TestReplanRefuses(t *testing.T) {
	t.Parallel()
	_, err := Rebalance(nil, nil, 3)
	require.ErrorIs(t, err, ErrNoNodes)
	members := membersOf(nodesNamed(3, 0))
	for _, factor := range []int{0, MaxReplicas + 1} {
		_, err = Rebalance(members, nil, factor)
		require.Error(t, err)
	}
	_, err = Rebalance(append(members, members[0]), nil, 3)
	require.ErrorContains(t, err, "twice")
	_, err = Rebalance(members, []Group{{Nodes: []string{"d000", "d000"}}}, 3)
	require.ErrorContains(t, err, "two replicas")
}

func BenchmarkRebalance(b *testing.B) {
	for _, test := range []struct {
		name          string
		before, after int
	}{{"3 to 5", 3, 5}, {"500 to 499", 500, 499}, {"500 to 250", 500, 250}, {"3 to 500", 3, 500}} {
		b.Run(test.name, func(b *testing.B) {
			groups, err := Initial(nodesNamed(test.before, 3), 256, 3)
			require.NoError(b, err)
			members := membersOf(nodesNamed(test.after, 3))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = Rebalance(members, groups, 3)
			}
		})
	}
}
