package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// Role is what a rebalance may do with a node.
type Role uint8

const (
	// Takes: the node holds its part.
	Takes Role = iota
	// Keeps: the node holds what it holds, no more and no less.
	Keeps
	// Leaves: the node is to hold nothing.
	Leaves
)

// Member is a node and its role.
type Member struct {
	Node
	Role Role
}

// Change is one change of a group's replicas: the one on From is replaced by one
// on To. Without From the group gets one more, without To it loses one.
type Change struct {
	Group    int
	From, To string
}

// Plan is the way from one placement to another.
type Plan struct {
	Changes []Change // ascending by group
	Groups  []Group  // the placement afterwards
}

// Evacuate replaces the replicas of nodes that leave and adds those that are
// missing, each by a single change, to the nodes that hold the least of their
// part. Replicas that can stay do. Replicas on nodes that are not given count as
// on one that leaves. Leaders stay where they can.
func Evacuate(members []Member, groups []Group, factor int) (*Plan, error) {
	return replan(members, groups, factor, false)
}

// Rebalance plans the fewest changes it can find to a placement that Initial
// could have made: no node leaves, every zone and node holds its part, and so do
// leaders. It finds a shortest chain of changes for each replica that a node
// holds too much; whoever holds more than others keeps what cannot be shared
// out evenly.
func Rebalance(members []Member, groups []Group, factor int) (*Plan, error) {
	return replan(members, groups, factor, true)
}

func replan(members []Member, groups []Group, factor int, balance bool) (*Plan, error) {
	if factor < 1 || factor > MaxReplicas {
		return nil, fmt.Errorf("plan %d replicas: out of range", factor)
	}
	b, err := newBoard(members, groups, factor)
	if err != nil {
		return nil, err
	}
	b.trim()
	if balance {
		b.openMisplaced()
	}
	b.p.shareZones()
	b.p.shareNodes()
	for number := range b.units {
		for b.units[number].open > 0 && b.fill(number, balance) {
		}
	}
	if balance {
		b.level()
	}
	return b.plan(groups)
}

// board is a placement while it is replanned.
type board struct {
	p       *planner
	byID    map[string]*candidate
	units   []unit
	visited []int // by node: the search that reached it last
	search  int
	lacking []*candidate // scratch of needy
}

// unit is one group on the board.
type unit struct {
	nodes  []*candidate
	before []string // as it was
	inZone []int    // replicas, by zone
	open   int      // replicas that are missing
}

func newBoard(members []Member, groups []Group, factor int) (*board, error) {
	var nodes []Node
	for _, member := range members {
		if member.Role != Leaves {
			nodes = append(nodes, member.Node)
		}
	}
	if len(nodes) == 0 {
		return nil, ErrNoNodes
	}
	b := &board{p: &planner{groups: len(groups), factor: min(factor, len(nodes))}, byID: make(map[string]*candidate)}
	if err := b.p.addNodes(nodes); err != nil {
		return nil, err
	}
	for i, z := range b.p.zones {
		for _, node := range z.nodes {
			node.zone = i
			b.byID[node.id] = node
		}
	}
	for _, member := range members {
		if member.Role == Keeps {
			b.byID[member.ID].fixed = true
		}
	}
	b.visited = make([]int, len(b.p.nodes))
	b.units = make([]unit, len(groups))
	for number, group := range groups {
		u := &b.units[number]
		u.before, u.inZone = group.Nodes, make([]int, len(b.p.zones))
		for _, id := range group.Nodes {
			node := b.byID[id]
			switch {
			case node == nil:
			case slices.Contains(u.nodes, node):
				return nil, fmt.Errorf("plan: group %d has two replicas on node %q", number, id)
			default:
				b.place(number, node)
			}
		}
		u.open = b.p.factor - len(u.nodes)
	}
	return b, nil
}

func (b *board) place(number int, node *candidate) {
	u := &b.units[number]
	u.nodes = append(u.nodes, node)
	u.inZone[node.zone]++
	node.held = append(node.held, number)
	b.p.zones[node.zone].held++
}

func (b *board) lift(number int, node *candidate) {
	u := &b.units[number]
	u.nodes = slices.DeleteFunc(u.nodes, func(n *candidate) bool { return n == node })
	u.inZone[node.zone]--
	node.held = slices.DeleteFunc(node.held, func(n int) bool { return n == number })
	b.p.zones[node.zone].held--
}

// trim removes replicas of groups that have too many, from the fullest zone and
// there from the fullest node.
func (b *board) trim() {
	for number := range b.units {
		u := &b.units[number]
		for ; u.open < 0; u.open++ {
			worst := slices.MaxFunc(u.nodes, func(x, y *candidate) int {
				return cmp.Or(cmp.Compare(u.inZone[x.zone], u.inZone[y.zone]), cmp.Compare(len(x.held), len(y.held)), cmp.Compare(x.id, y.id))
			})
			b.lift(number, worst)
		}
	}
}

// openMisplaced lifts the replicas of groups that crowd a zone while another one
// has room. It runs before parts are known, on the levels that zones fill.
func (b *board) openMisplaced() {
	bounds := b.p.levels()
	for number := range b.units {
		u := &b.units[number]
		for zone, bound := range bounds {
			for u.inZone[zone] > bound.high || u.inZone[zone] > bound.low && u.shortOf(bounds) > u.open {
				worst := b.movable(u, zone)
				if worst == nil {
					break
				}
				b.lift(number, worst)
				u.open++
			}
		}
	}
}

// movable returns the fullest node of a zone that has a replica of the group and
// need not keep it, or nil.
func (b *board) movable(u *unit, zone int) *candidate {
	var worst *candidate
	for _, node := range u.nodes {
		if node.zone == zone && !node.fixed && (worst == nil || len(node.held) > len(worst.held)) {
			worst = node
		}
	}
	return worst
}

// shortOf counts the replicas that zones must have and do not.
func (u *unit) shortOf(bounds []bound) int {
	short := 0
	for zone, bound := range bounds {
		short += max(0, bound.low-u.inZone[zone])
	}
	return short
}

// plan returns what has become of the placement.
func (b *board) plan(groups []Group) (*Plan, error) {
	plan := &Plan{Groups: make([]Group, len(groups))}
	for number := range b.units {
		u := &b.units[number]
		var gone, came []string
		for _, id := range u.before {
			if node := b.byID[id]; node == nil || !slices.Contains(u.nodes, node) {
				gone = append(gone, id)
			}
		}
		for _, node := range u.nodes {
			plan.Groups[number].Nodes = append(plan.Groups[number].Nodes, node.id)
			if !slices.Contains(u.before, node.id) {
				came = append(came, node.id)
			}
		}
		slices.Sort(plan.Groups[number].Nodes)
		slices.Sort(gone)
		slices.Sort(came)
		for i := range max(len(gone), len(came)) {
			change := Change{Group: number}
			if i < len(gone) {
				change.From = gone[i]
			}
			if i < len(came) {
				change.To = came[i]
			}
			plan.Changes = append(plan.Changes, change)
		}
		plan.Groups[number].Leader = groups[number].Leader
	}
	leaders, err := BalanceLeaders(plan.Groups, b.takers())
	if err != nil {
		return nil, err
	}
	for number, leader := range leaders {
		plan.Groups[number].Leader = leader
	}
	return plan, nil
}

// takers returns the nodes that leaders can be on.
func (b *board) takers() []Node {
	var nodes []Node
	for _, z := range b.p.zones {
		for _, node := range z.nodes {
			nodes = append(nodes, Node{ID: node.id, Zone: z.name, Weight: uint32(node.weight)})
		}
	}
	return nodes
}
