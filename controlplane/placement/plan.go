package placement

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
)

// MaxReplicas bounds the replication factor.
const MaxReplicas = 7

// ErrNoNodes: there is no node to place anything on.
var ErrNoNodes = errors.New("no node to place groups on")

// Node is a data node as the planner sees it.
type Node struct {
	ID string
	// Zone is the node's failure domain. Nodes that do not say share one.
	Zone string
	// Weight is how much a node takes relative to others; 0 counts as 1.
	Weight uint32
}

// Group is where one group goes.
type Group struct {
	Nodes  []string // ascending
	Leader string   // one of Nodes
}

// Initial places groups on nodes with min(factor, nodes) replicas each:
//
//   - no group has two replicas on a node;
//   - the replicas of a group are spread over as many zones as possible, and as
//     evenly as the zones' nodes allow;
//   - within that, replicas are shared out by weight: with equal weights, and
//     zones that do not stand in the way, two nodes differ by at most one;
//   - so are leaders;
//   - groups that share one node mostly differ in the others, so that the load
//     of a node that fails falls on many.
//
// The plan depends on nothing but the arguments, not even the order of nodes.
func Initial(nodes []Node, groups, factor int) ([]Group, error) {
	if len(nodes) == 0 {
		return nil, ErrNoNodes
	}
	if groups < 0 || factor < 1 || factor > MaxReplicas {
		return nil, fmt.Errorf("place %d groups with %d replicas: out of range", groups, factor)
	}
	p := &planner{groups: groups, factor: min(factor, len(nodes))}
	if err := p.addNodes(nodes); err != nil {
		return nil, err
	}
	p.shareZones()
	p.shareNodes()
	plan := make([][]*candidate, groups)
	for number := range plan {
		plan[number] = p.pick(number)
	}
	return assignLeaders(plan, p.nodes), nil
}

// planner holds what remains to be given out while a plan is made.
type planner struct {
	groups int
	factor int
	nodes  []*candidate // ascending by id
	zones  []*zone      // ascending by name
	extra  int          // replicas of a group that go to zones of its choice
	bounds []bound      // of each zone, for one group
}

// candidate is a node and its shares.
type candidate struct {
	id     string
	index  int // among all nodes
	weight uint64
	share  int // replicas it still takes; when replanning, its part in all
	leads  int // groups it leads

	// When replanning:
	zone  int   // its position
	held  []int // groups of which it holds a replica
	fixed bool  // it keeps what it holds
}

// zone is a failure domain and its shares.
type zone struct {
	name   string
	weight uint64
	nodes  []*candidate
	base   int // replicas of every group that it takes
	share  int // groups of which it still takes one more
	held   int // replicas it holds, when replanning
}

func (p *planner) addNodes(nodes []Node) error {
	byName := make(map[string]*zone)
	sorted := slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	for i, node := range sorted {
		if i > 0 && node.ID == sorted[i-1].ID {
			return fmt.Errorf("place groups: node %q is given twice", node.ID)
		}
		c := &candidate{id: node.ID, index: i, weight: max(1, uint64(node.Weight))}
		p.nodes = append(p.nodes, c)
		z := byName[node.Zone]
		if z == nil {
			z = &zone{name: node.Zone}
			byName[node.Zone] = z
			p.zones = append(p.zones, z)
		}
		z.nodes = append(z.nodes, c)
		z.weight += c.weight
	}
	slices.SortFunc(p.zones, func(a, b *zone) int { return cmp.Compare(a.name, b.name) })
	return nil
}

// shareZones decides how many replicas each zone takes. The replicas of a group
// fill the zones level by level, one replica of it in each zone that has a node
// left; the last level is not full, and which zones it goes to is shared out so
// that nodes end up evenly loaded.
func (p *planner) shareZones() {
	p.bounds = p.levels()
	left := p.factor
	for {
		var open []*zone
		for _, z := range p.zones {
			if z.base < len(z.nodes) {
				open = append(open, z)
			}
		}
		if left < len(open) {
			p.extra = left
			p.shareExtra(open)
			return
		}
		if left == 0 {
			return
		}
		for _, z := range open {
			z.base++
		}
		left -= len(open)
	}
}

// shareExtra shares out the last level among the zones that can take part. What
// cannot be shared out evenly goes to those that hold the most already.
func (p *planner) shareExtra(open []*zone) {
	slices.SortStableFunc(open, func(a, b *zone) int { return cmp.Compare(b.held, a.held) })
	claims := make([]claim, len(open))
	for i, z := range open {
		claims[i] = claim{weight: z.weight, has: p.groups * z.base, limit: p.groups * (z.base + 1)}
	}
	for i, got := range apportion(p.groups*p.extra, claims) {
		open[i].share = got
	}
}

// shareNodes shares the replicas of each zone out among its nodes, likewise.
func (p *planner) shareNodes() {
	for _, z := range p.zones {
		nodes := slices.Clone(z.nodes)
		slices.SortStableFunc(nodes, func(a, b *candidate) int { return cmp.Compare(len(b.held), len(a.held)) })
		units := p.groups*z.base + z.share
		claims := make([]claim, len(nodes))
		for i, node := range nodes {
			claims[i] = claim{weight: node.weight, limit: p.groups}
			if node.fixed {
				claims[i].limit = 0
				units -= len(node.held)
			}
		}
		for i, got := range apportion(max(0, units), claims) {
			if nodes[i].share = got; nodes[i].fixed {
				nodes[i].share = len(nodes[i].held)
			}
		}
	}
}

// pick takes the replicas of one group. Taking them where the most is left is
// what makes all shares come out (the construction of Gale and Ryser); among
// equals a hash decides, which mixes the nodes that groups share.
func (p *planner) pick(number int) []*candidate {
	takers := make([]*zone, 0, len(p.zones))
	for _, z := range p.zones {
		if z.share > 0 {
			takers = append(takers, z)
		}
	}
	slices.SortFunc(takers, func(a, b *zone) int {
		return cmp.Or(cmp.Compare(b.share, a.share), cmp.Compare(mix(number, a.name), mix(number, b.name)), cmp.Compare(a.name, b.name))
	})
	takers = takers[:min(p.extra, len(takers))]
	var picked []*candidate
	for _, z := range p.zones {
		count := z.base
		if slices.Contains(takers, z) {
			z.share--
			count++
		}
		if count == 0 {
			continue
		}
		nodes := slices.Clone(z.nodes)
		slices.SortFunc(nodes, func(a, b *candidate) int {
			return cmp.Or(cmp.Compare(b.share, a.share), cmp.Compare(mix(number, a.id), mix(number, b.id)), cmp.Compare(a.id, b.id))
		})
		for _, node := range nodes[:count] {
			node.share--
			picked = append(picked, node)
		}
	}
	slices.SortFunc(picked, func(a, b *candidate) int { return cmp.Compare(a.id, b.id) })
	return picked
}

// mix hashes a group number and a name.
func mix(number int, name string) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte{byte(number), byte(number >> 8)})
	_, _ = sum.Write([]byte(name))
	h := sum.Sum64()
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd // the finalizer of MurmurHash3: FNV alone mixes high bits badly
	return h ^ h>>33
}
