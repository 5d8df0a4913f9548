package placement

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func nodesNamed(count, zones int) []Node {
	var nodes []Node
	for i := range count {
		node := Node{ID: fmt.Sprintf("d%03d", i)}
		if zones > 0 {
			node.Zone = fmt.Sprint("zone-", i%zones)
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// load counts replicas and leaders by node.
func load(plan []Group) (replicas, leaders map[string]int) {
	replicas, leaders = map[string]int{}, map[string]int{}
	for _, group := range plan {
		for _, node := range group.Nodes {
			replicas[node]++
		}
		leaders[group.Leader]++
	}
	return replicas, leaders
}

// spread is the difference between the most and the least loaded node.
func spread(nodes []Node, load map[string]int) int {
	low, high := load[nodes[0].ID], load[nodes[0].ID]
	for _, node := range nodes {
		low, high = min(low, load[node.ID]), max(high, load[node.ID])
	}
	return high - low
}

func TestInitialOnUsualClusters(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		nodes, zones, factor int
		replicas             int // of a group
	}{
		{1, 0, 3, 1}, {2, 0, 3, 2}, {3, 0, 3, 3}, {4, 0, 3, 3}, {5, 0, 3, 3}, {7, 0, 5, 5},
		{3, 3, 3, 3}, {6, 3, 3, 3}, {6, 2, 3, 3}, {9, 3, 5, 5}, {10, 5, 3, 3}, {100, 4, 3, 3}, {500, 5, 3, 3}, {3, 0, 1, 1},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			t.Parallel()
			nodes := nodesNamed(test.nodes, test.zones)
			plan, err := Initial(nodes, 256, test.factor)
			require.NoError(t, err)
			require.Len(t, plan, 256)
			for _, group := range plan {
				require.Len(t, group.Nodes, test.replicas)
			}
			replicas, leaders := load(plan)
			require.LessOrEqual(t, spread(nodes, replicas), 1)
			require.LessOrEqual(t, spread(nodes, leaders), 1)
		})
	}
}

func TestInitialRefuses(t *testing.T) {
	t.Parallel()
	_, err := Initial(nil, 256, 3)
	require.ErrorIs(t, err, ErrNoNodes)
	for _, factor := range []int{-1, 0, MaxReplicas + 1} {
		_, err = Initial(nodesNamed(3, 0), 256, factor)
		require.Error(t, err)
	}
	_, err = Initial(nodesNamed(3, 0), -1, 3)
	require.Error(t, err)
	_, err = Initial([]Node{{ID: "a"}, {ID: "a"}}, 1, 1)
	require.ErrorContains(t, err, "twice")
	plan, err := Initial(nodesNamed(3, 0), 0, 3)
	require.NoError(t, err)
	require.Empty(t, plan)
}

// The plan is the same in every process and version.
func TestInitialIsFixed(t *testing.T) {
	t.Parallel()
	plan, err := Initial(nodesNamed(5, 2), 256, 3)
	require.NoError(t, err)
	require.Equal(t, "8f1d46b3ac58bd405f616865ace043d4047de184bb8ffc8681b24020640781dd",
		fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, plan))))
}

func drawNodes(r *rapid.T, weights bool) []Node {
	nodes := nodesNamed(rapid.IntRange(1, 24).Draw(r, "nodes"), 0)
	zones := rapid.IntRange(1, 6).Draw(r, "zones")
	for i := range nodes {
		nodes[i].Zone = fmt.Sprint("z", rapid.IntRange(1, zones).Draw(r, "zone"))
		if weights {
			nodes[i].Weight = rapid.Uint32Range(0, 400).Draw(r, "weight")
		}
	}
	return nodes
}

// What holds for every plan, whatever the weights and zones.
func TestInitialRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		nodes := drawNodes(r, true)
		factor := rapid.IntRange(1, MaxReplicas).Draw(r, "factor")
		groups := rapid.IntRange(1, 256).Draw(r, "groups")
		plan, err := Initial(nodes, groups, factor)
		require.NoError(r, err)
		zoneOf, inZone := map[string]string{}, map[string]int{}
		for _, node := range nodes {
			zoneOf[node.ID] = node.Zone
			inZone[node.Zone]++
		}
		for number, group := range plan {
			require.Len(r, group.Nodes, min(factor, len(nodes)))
			require.True(r, slices.IsSorted(group.Nodes))
			require.Len(r, slices.Compact(slices.Clone(group.Nodes)), len(group.Nodes), "group %d is twice on a node", number)
			require.Contains(r, group.Nodes, group.Leader)
			held := map[string]int{}
			for _, node := range group.Nodes {
				held[zoneOf[node]]++
			}
			// A zone may hold two more than another only if that one is full.
			for zone := range inZone {
				for other := range inZone {
					if held[zone] > held[other]+1 {
						require.Equal(r, inZone[other], held[other], "group %d ignores zone %s", number, other)
					}
				}
			}
		}
		shuffled := rapid.Permutation(nodes).Draw(r, "shuffled")
		again, err := Initial(shuffled, groups, factor)
		require.NoError(r, err)
		require.Equal(r, plan, again)
	})
}

// Equal nodes in one zone, or in zones of equal size, differ by at most one.
func TestInitialBalance(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		zones := rapid.IntRange(1, 5).Draw(r, "zones")
		nodes := nodesNamed(zones*rapid.IntRange(1, 8).Draw(r, "nodes per zone"), zones)
		groups := rapid.IntRange(1, 256).Draw(r, "groups")
		plan, err := Initial(nodes, groups, rapid.IntRange(1, 5).Draw(r, "factor"))
		require.NoError(r, err)
		replicas, leaders := load(plan)
		require.LessOrEqual(r, spread(nodes, replicas), 1)
		require.LessOrEqual(r, spread(nodes, leaders), 1)
	})
}

// Within a zone equal nodes are equally loaded even where zones are not.
func TestInitialBalanceWithinUnevenZones(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		nodes := drawNodes(r, false)
		plan, err := Initial(nodes, 256, rapid.IntRange(1, 5).Draw(r, "factor"))
		require.NoError(r, err)
		replicas, _ := load(plan)
		byZone := map[string][]Node{}
		for _, node := range nodes {
			byZone[node.Zone] = append(byZone[node.Zone], node)
		}
		for _, members := range byZone {
			require.LessOrEqual(r, spread(members, replicas), 1)
		}
	})
}

func TestWeightsShareOut(t *testing.T) {
	t.Parallel()
	nodes := nodesNamed(4, 0)
	nodes[0].Weight, nodes[1].Weight, nodes[2].Weight, nodes[3].Weight = 100, 100, 100, 300
	plan, err := Initial(nodes, 256, 1)
	require.NoError(t, err)
	replicas, leaders := load(plan)
	require.Equal(t, 128, replicas["d003"])
	require.Equal(t, 128, leaders["d003"])
	plan, err = Initial(nodes, 256, 3)
	require.NoError(t, err)
	replicas, _ = load(plan)
	require.Equal(t, 256, replicas["d003"], "no more than one replica of each group")
}

// The load of a node that fails must fall on many, not on the two others of a
// fixed triple.
func TestReplicaSetsAreMixed(t *testing.T) {
	t.Parallel()
	plan, err := Initial(nodesNamed(12, 0), 256, 3)
	require.NoError(t, err)
	partners := map[string]map[string]bool{}
	for _, group := range plan {
		for _, node := range group.Nodes {
			for _, other := range group.Nodes {
				if partners[node] == nil {
					partners[node] = map[string]bool{}
				}
				partners[node][other] = true
			}
		}
	}
	for node, others := range partners {
		require.GreaterOrEqual(t, len(others), 10, "node %s shares groups with few", node)
	}
}

func BenchmarkInitial(b *testing.B) {
	for _, count := range []int{3, 50, 500} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			nodes := nodesNamed(count, 3)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = Initial(nodes, 256, 3)
			}
		})
	}
}
