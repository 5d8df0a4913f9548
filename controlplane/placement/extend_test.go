package placement

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFactor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ wanted, nodes, expected, want int }{
		{3, 0, 1, 0}, {3, 1, 1, 1}, {3, 2, 1, 1}, {3, 2, 2, 2}, {3, 2, 3, 1}, {3, 3, 1, 3}, {3, 9, 1, 3},
		{1, 5, 1, 1}, {1, 5, 2, 1}, {5, 4, 1, 3}, {5, 4, 4, 3}, {5, 5, 1, 5}, {2, 3, 1, 1},
	} {
		require.Equal(t, test.want, Factor(test.wanted, test.nodes, test.expected), "%+v", test)
	}
}

func TestExtend(t *testing.T) {
	t.Parallel()
	nodes := nodesNamed(6, 3) // zones 0 1 2 0 1 2
	load := map[string]int{"d001": 5, "d004": 2, "d002": 1, "d005": 1}
	require.Equal(t, []string{"d004"}, Extend(0, []string{"d000", "d002"}, 1, nodes, load), "the zone without a replica")
	require.Equal(t, []string{"d003"}, Extend(0, []string{"d000", "d001", "d002"}, 1, nodes, load), "the least loaded")
	chosen := Extend(7, []string{"d000"}, 2, nodes, load)
	require.Contains(t, chosen, "d004", "of zones 1 and 2 each the least loaded")
	require.Len(t, chosen, 2)
	require.Empty(t, Extend(0, []string{"d000"}, 0, nodes, nil))
	require.Len(t, Extend(0, []string{"d000"}, 9, nodes, nil), 5, "there are no more")
	heavy := []Node{{ID: "a", Weight: 100}, {ID: "b", Weight: 300}}
	require.Equal(t, []string{"b"}, Extend(0, nil, 1, heavy, map[string]int{"a": 1, "b": 2}))
}

// Whatever the groups and their leaders, balancing keeps leaders among the
// nodes of their group, is done after one pass, and is even where every group
// is everywhere.
func TestBalanceLeaders(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		nodes := nodesNamed(rapid.IntRange(1, 6).Draw(r, "nodes"), 0)
		everywhere := rapid.Bool().Draw(r, "everywhere")
		groups := make([]Group, rapid.IntRange(0, 40).Draw(r, "groups"))
		for i := range groups {
			for _, node := range nodes {
				if everywhere || rapid.Bool().Draw(r, "holds") {
					groups[i].Nodes = append(groups[i].Nodes, node.ID)
				}
			}
			groups[i].Leader = fmt.Sprintf("d%03d", rapid.IntRange(0, 7).Draw(r, "leader"))
		}
		chosen, err := BalanceLeaders(groups, nodes)
		require.NoError(r, err)
		leads := map[string]int{}
		for i, leader := range chosen {
			require.Equal(r, len(groups[i].Nodes) > 0, slices.Contains(groups[i].Nodes, leader))
			leads[leader]++
			groups[i].Leader = leader
		}
		if everywhere {
			require.LessOrEqual(r, spread(nodes, leads), 1)
		}
		again, err := BalanceLeaders(groups, nodes)
		require.NoError(r, err)
		require.Equal(r, chosen, again)
	})
}

func TestBalanceLeadersChangesLittle(t *testing.T) {
	t.Parallel()
	nodes := nodesNamed(3, 0)
	groups := make([]Group, 256)
	for i := range groups {
		groups[i] = Group{Nodes: []string{"d000", "d001", "d002"}, Leader: "d000"}
	}
	chosen, err := BalanceLeaders(groups, nodes)
	require.NoError(t, err)
	kept := 0
	for _, leader := range chosen {
		if leader == "d000" {
			kept++
		}
	}
	require.InDelta(t, 85, kept, 1)
	_, err = BalanceLeaders(nil, append(nodes, nodes[0]))
	require.Error(t, err)
}
