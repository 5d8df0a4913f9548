package placement

import (
	"cmp"
	"slices"
)

// bound is how many replicas of a group a zone has at least and at most.
type bound struct{ low, high int }

// levels returns the bounds of each zone, going by the levels in which the
// replicas of a group fill the zones.
func (p *planner) levels() []bound {
	bounds := make([]bound, len(p.zones))
	left := p.factor
	for left > 0 {
		open := 0
		for i, z := range p.zones {
			if bounds[i].low < len(z.nodes) {
				open++
			}
		}
		full := left >= open
		for i, z := range p.zones {
			if bounds[i].low < len(z.nodes) {
				bounds[i].high++
				if full {
					bounds[i].low++
				}
			}
		}
		left -= open
	}
	return bounds
}

// hop is one change of a chain: the replica of a group goes from one node to
// another. The first of a chain that fills a gap comes from nowhere.
type hop struct {
	group    int
	from, to *candidate
	before   *hop
}

func (h *hop) touches(group int) bool {
	for ; h != nil; h = h.before {
		if h.group == group {
			return true
		}
	}
	return false
}

// fill gives a group a replica that it lacks: on a node that holds less than its
// part, if need be by a chain of changes, else on any that can take it.
func (b *board) fill(number int, chains bool) bool {
	u := &b.units[number]
	b.search++
	best := b.bestGap(number)
	if best == nil && chains {
		var queue []*hop
		for _, node := range b.p.nodes {
			if b.canAdd(u, node) {
				b.visited[node.index] = b.search
				queue = append(queue, &hop{group: number, to: node})
			}
		}
		best = b.follow(queue)
	}
	if best == nil {
		if node := b.anyNode(u); node != nil {
			best = &hop{group: number, to: node}
		}
	}
	if best == nil {
		return false
	}
	b.take(best)
	u.open--
	return true
}

// level moves replicas from nodes that hold more than their part to such that
// hold less.
func (b *board) level() {
	nodes := slices.Clone(b.p.nodes)
	slices.SortStableFunc(nodes, func(x, y *candidate) int { return cmp.Compare(len(y.held)-y.share, len(x.held)-x.share) })
	for _, node := range nodes {
		for !node.fixed && len(node.held) > node.share {
			b.search++
			b.visited[node.index] = b.search
			best := b.follow([]*hop{{group: -1, to: node}})
			if best == nil {
				break
			}
			b.take(best)
		}
	}
}

// follow looks for the shortest chain from the ends of others to a node that
// holds less than its part.
func (b *board) follow(queue []*hop) *hop {
	for ; len(queue) > 0; queue = queue[1:] {
		last := queue[0]
		node := last.to
		if node.fixed {
			continue
		}
		if best := b.bestFrom(node, last); best != nil {
			return best
		}
		for _, number := range node.held {
			if last.touches(number) {
				continue
			}
			for _, next := range b.p.nodes {
				if b.visited[next.index] != b.search && b.canMove(&b.units[number], node, next) {
					b.visited[next.index] = b.search
					queue = append(queue, &hop{group: number, from: node, to: next, before: last})
				}
			}
		}
	}
	return nil
}

// bestFrom returns the best way to bring a replica from a node straight to one
// that holds less than its part, or nil: to the one that lacks the most, and of
// the replicas that can go there one that adds the fewest changes to the plan.
// Among equals a hash decides, which mixes the nodes that groups share.
func (b *board) bestFrom(node *candidate, last *hop) *hop {
	for _, to := range b.needy() {
		var best *hop
		var price int
		var hash uint64
		for _, number := range node.held {
			u := &b.units[number]
			if last.touches(number) || !b.canMove(u, node, to) {
				continue
			}
			p, h := u.price(node, to), mix(number, to.id)
			if best == nil || p < price || p == price && h < hash {
				best, price, hash = &hop{group: number, from: node, to: to, before: last}, p, h
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

// bestGap is the same for a replica that a group lacks.
func (b *board) bestGap(number int) *hop {
	u := &b.units[number]
	var best *candidate
	for _, node := range b.p.nodes {
		if len(node.held) >= node.share || !b.canAdd(u, node) {
			continue
		}
		if best == nil {
			best = node
			continue
		}
		order := cmp.Compare(u.price(nil, node), u.price(nil, best))
		if order == 0 {
			order = cmpNeed(node, best)
		}
		if order == 0 { // hashing is dear
			order = cmp.Or(cmp.Compare(mix(number, node.id), mix(number, best.id)), cmp.Compare(node.id, best.id))
		}
		if order < 0 {
			best = node
		}
	}
	if best == nil {
		return nil
	}
	return &hop{group: number, to: best}
}

// needy returns the nodes that hold less than their part, the neediest first.
func (b *board) needy() []*candidate {
	b.lacking = b.lacking[:0]
	for _, node := range b.p.nodes {
		if len(node.held) < node.share {
			b.lacking = append(b.lacking, node)
		}
	}
	slices.SortStableFunc(b.lacking, cmpNeed)
	return b.lacking
}

func cmpNeed(x, y *candidate) int { return cmp.Compare(y.share-len(y.held), x.share-len(x.held)) }

// price is how many changes a hop adds to the plan: none if the replica was to
// move anyway, less than none if it goes back to where it was.
func (u *unit) price(from, to *candidate) int {
	price := 0
	if from != nil && slices.Contains(u.before, from.id) {
		price++
	}
	if slices.Contains(u.before, to.id) {
		price--
	}
	return price
}

// take carries out a chain.
func (b *board) take(end *hop) {
	for h := end; h != nil; h = h.before {
		if h.group < 0 {
			continue
		}
		if h.from != nil {
			b.lift(h.group, h.from)
		}
		b.place(h.group, h.to)
	}
}

// canAdd reports whether a node can get a replica of a group that lacks one.
func (b *board) canAdd(u *unit, node *candidate) bool {
	if node.fixed || slices.Contains(u.nodes, node) {
		return false
	}
	bound := b.p.bounds[node.zone]
	if u.inZone[node.zone] < bound.low {
		return true
	}
	return u.inZone[node.zone] < bound.high && u.shortOf(b.p.bounds) < u.open
}

// canMove reports whether a replica can go from one node to another with the
// group as well spread over zones as before.
func (b *board) canMove(u *unit, from, to *candidate) bool {
	if to.fixed || from == to || slices.Contains(u.nodes, to) {
		return false
	}
	if from.zone == to.zone {
		return true
	}
	low := b.p.bounds[from.zone].low
	return u.inZone[to.zone] < b.p.bounds[to.zone].high && (u.inZone[from.zone] > low || u.inZone[to.zone] < b.p.bounds[to.zone].low)
}

// anyNode returns the node for a replica that has no good place: in the zone with
// the fewest of the group, the one that holds the least for its weight.
func (b *board) anyNode(u *unit) *candidate {
	var best *candidate
	for _, node := range b.p.nodes {
		if node.fixed || slices.Contains(u.nodes, node) {
			continue
		}
		if best == nil || u.inZone[node.zone] < u.inZone[best.zone] || u.inZone[node.zone] == u.inZone[best.zone] &&
			lighter(len(node.held)+1, node.weight, len(best.held)+1, best.weight) {
			best = node
		}
	}
	return best
}
