package placement

import (
	"cmp"
	"slices"
)

// Factor returns how many replicas a group should have: as many as wanted, or as
// there are nodes, rounded down to an odd number. An even number costs another
// copy and tolerates no more failures than the odd one below it; of two
// replicas, either one's failure stops the group, where a single one at least
// does not depend on another machine. Two are right for an operator who said
// that he expects just two nodes and wants a second copy of his data.
func Factor(wanted, nodes, expected int) int {
	factor := min(wanted, nodes)
	if factor == 2 && expected == 2 {
		return 2
	}
	if factor%2 == 0 {
		factor--
	}
	return max(factor, 0)
}

// Extend chooses count more nodes for a group that has replicas on some: those in
// the zones that hold the fewest of its replicas, among them the least loaded
// for their weight, among equals by a hash. replicas says how many a node
// holds. Fewer are returned when there are no more nodes.
func Extend(number int, have []string, count int, nodes []Node, replicas map[string]int) []string {
	zones := make(map[string]int)
	for _, node := range nodes {
		if slices.Contains(have, node.ID) {
			zones[node.Zone]++
		}
	}
	var chosen []string
	for range count {
		var best *Node
		for i := range nodes {
			node := &nodes[i]
			if slices.Contains(have, node.ID) || slices.Contains(chosen, node.ID) {
				continue
			}
			if best == nil || cmpNewcomer(number, node, best, zones, replicas) < 0 {
				best = node
			}
		}
		if best == nil {
			break
		}
		chosen = append(chosen, best.ID)
		zones[best.Zone]++
	}
	return chosen
}

// cmpNewcomer compares two nodes that could get a replica of a group; the better
// one is less.
func cmpNewcomer(number int, a, b *Node, zones, replicas map[string]int) int {
	aLoad, bLoad := replicas[a.ID]+1, replicas[b.ID]+1
	aWeight, bWeight := max(1, uint64(a.Weight)), max(1, uint64(b.Weight))
	byLoad := 0
	switch {
	case lighter(aLoad, aWeight, bLoad, bWeight):
		byLoad = -1
	case lighter(bLoad, bWeight, aLoad, aWeight):
		byLoad = 1
	}
	return cmp.Or(cmp.Compare(zones[a.Zone], zones[b.Zone]), byLoad,
		cmp.Compare(mix(number, a.ID), mix(number, b.ID)), cmp.Compare(a.ID, b.ID))
}
