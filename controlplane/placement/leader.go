package placement

import "slices"

// assignLeaders chooses a leader among the replicas of each group so that nodes
// lead equally much for their weight. It starts with whoever is the least
// loaded and then, for as long as that helps, hands groups on along chains: from
// a node that leads too much to another replica of one of its groups, from
// there to a replica of one of that node's groups, and so on to a node that
// leads too little.
func assignLeaders(plan [][]*candidate, nodes []*candidate) []Group {
	leaders := make([]*candidate, len(plan))
	for number, replicas := range plan {
		leaders[number] = leastLeading(number, replicas)
	}
	balance(plan, leaders, nodes)
	groups := make([]Group, len(plan))
	for number, replicas := range plan {
		groups[number].Leader = leaders[number].id
		for _, node := range replicas {
			groups[number].Nodes = append(groups[number].Nodes, node.id)
		}
	}
	return groups
}

// BalanceLeaders returns who should lead each group, changing as few of the
// present leaders as it takes for the nodes to lead equally much for their
// weight. A group whose leader is none of its nodes gets one; a group without
// any node that is known has none.
func BalanceLeaders(groups []Group, nodes []Node) ([]string, error) {
	p := &planner{}
	if err := p.addNodes(nodes); err != nil {
		return nil, err
	}
	byID := make(map[string]*candidate, len(p.nodes))
	for _, node := range p.nodes {
		byID[node.id] = node
	}
	plan := make([][]*candidate, len(groups))
	leaders := make([]*candidate, len(groups))
	for number, group := range groups {
		for _, id := range group.Nodes {
			if node := byID[id]; node != nil {
				plan[number] = append(plan[number], node)
				if id == group.Leader {
					leaders[number] = node
					node.leads++
				}
			}
		}
	}
	for number, replicas := range plan {
		if leaders[number] == nil && len(replicas) > 0 {
			leaders[number] = leastLeading(number, replicas)
		}
	}
	balance(plan, leaders, p.nodes)
	chosen := make([]string, len(groups))
	for number, leader := range leaders {
		if leader != nil {
			chosen[number] = leader.id
		}
	}
	return chosen, nil
}

// leastLeading makes the least loaded of a group's nodes its leader.
func leastLeading(number int, replicas []*candidate) *candidate {
	best := replicas[0]
	for _, node := range replicas[1:] {
		if load := cmpLoad(node, 1, best, 1); load < 0 || load == 0 && mix(number, node.id) < mix(number, best.id) {
			best = node
		}
	}
	best.leads++
	return best
}

// cmpLoad compares the loads of two nodes if each led so many groups more.
func cmpLoad(a *candidate, aMore int, b *candidate, bMore int) int {
	switch {
	case lighter(a.leads+aMore, a.weight, b.leads+bMore, b.weight):
		return -1
	case lighter(b.leads+bMore, b.weight, a.leads+aMore, a.weight):
		return 1
	}
	return 0
}

// step is how a search reached a node: by handing on a group from another.
type step struct {
	from   *candidate
	group  int
	search int // the search that reached it
}

// balancer evens out leaders. It keeps its scratch space from one search to the
// next.
type balancer struct {
	plan    [][]*candidate
	leaders []*candidate
	nodes   []*candidate
	led     [][]int // groups, by node
	reached []step  // by node
	search  int
	queue   []*candidate
}

// balance hands groups on for as long as that makes the loads more even.
func balance(plan [][]*candidate, leaders, nodes []*candidate) {
	b := &balancer{plan: plan, leaders: leaders, nodes: nodes, led: make([][]int, len(nodes)), reached: make([]step, len(nodes))}
	for number, leader := range leaders {
		if leader != nil {
			b.led[leader.index] = append(b.led[leader.index], number)
		}
	}
	for b.once() {
	}
}

// once moves one unit of leadership from a node to one that would be less loaded
// with it than the first is now. Every move makes the loads more even, so there
// is an end to them.
func (b *balancer) once() bool {
	for _, start := range b.nodes {
		if start.leads == 0 {
			continue
		}
		b.search++
		b.reached[start.index] = step{search: b.search}
		b.queue = append(b.queue[:0], start)
		for next := 0; next < len(b.queue); next++ {
			node := b.queue[next]
			if cmpLoad(node, 1, start, 0) < 0 {
				b.handOn(start, node)
				return true
			}
			for _, number := range b.led[node.index] {
				for _, other := range b.plan[number] {
					if b.reached[other.index].search != b.search {
						b.reached[other.index] = step{from: node, group: number, search: b.search}
						b.queue = append(b.queue, other)
					}
				}
			}
		}
	}
	return false
}

// handOn shifts the groups along the chain from start to end by one node.
func (b *balancer) handOn(start, end *candidate) {
	for node := end; node != start; node = b.reached[node.index].from {
		from, number := b.reached[node.index].from, b.reached[node.index].group
		b.leaders[number] = node
		b.led[from.index] = slices.DeleteFunc(b.led[from.index], func(n int) bool { return n == number })
		at, _ := slices.BinarySearch(b.led[node.index], number)
		b.led[node.index] = slices.Insert(b.led[node.index], at, number)
	}
	start.leads--
	end.leads++
}
