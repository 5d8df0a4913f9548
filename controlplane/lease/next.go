package lease

import (
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// View is everything that a decision is made from, beside the book.
type View struct {
	State *catalog.State
	// Leaders are the nodes that last reported to lead each group, or empty.
	Leaders *[catalog.Groups]rpc.NodeID
	// Now is by the clock that the book is kept by.
	Now time.Time
}

// Next returns the leases to grant now, or nil. Those it returns are withheld
// from their former holders from then on, whatever becomes of the command; a
// command that was lost is returned again.
func (b *Book) Next(v View) *catalog.GrantLeases {
	askers := b.askers(v)
	if len(askers) == 0 {
		return nil
	}
	gathered := b.gathered(askers, v.Now)
	command := &catalog.GrantLeases{At: v.Now}
	for n, owner := range b.owners(v, askers) {
		number := uint16(n)
		if owner == "" || !b.due(v, number, owner) || owner != v.Leaders[number] && !gathered {
			continue
		}
		lease := v.State.Lease(number)
		e := &b.groups[number]
		e.withheld, e.better = max(e.withheld, lease.Epoch), ""
		command.Grants = append(command.Grants, catalog.LeaseGrant{
			Group: number, After: lease.Epoch, Node: owner, Incarnation: b.candidates[owner].incarnation,
		})
	}
	if len(command.Grants) == 0 {
		return nil
	}
	return command
}

// due reports whether a group's lease is to be granted to its owner now. When
// somebody else renews it, that takes two steps: for a while the owner must be
// the better one, then the holder is no longer confirmed; when it cannot trust
// the lease any more, it is due.
func (b *Book) due(v View, number uint16, owner rpc.NodeID) bool {
	lease := v.State.Lease(number)
	e := &b.groups[number]
	if lease.Holder == "" {
		return true
	}
	if b.holds(lease, v.Now) && e.withheld < lease.Epoch {
		if lease.Holder == owner {
			e.better = ""
			return false
		}
		if e.better != owner {
			e.better, e.betterSince = owner, v.Now
		}
		if v.Now.Sub(e.betterSince) < b.ttl/settleShare {
			return false
		}
		e.withheld = lease.Epoch
	}
	return !v.Now.Before(b.Until(number))
}

// askers returns the nodes that leases can go to, ascending, and forgets those
// that no longer ask.
func (b *Book) askers(v View) []rpc.NodeID {
	var ids []rpc.NodeID
	for id, c := range b.candidates {
		if !b.asks(c, v.Now) {
			delete(b.candidates, id)
			continue
		}
		if v.State.Nodes[id].State == catalog.NodeActive {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// gathered reports whether nodes have had the time to turn up.
func (b *Book) gathered(askers []rpc.NodeID, now time.Time) bool {
	first := now
	for _, id := range askers {
		if since := b.candidates[id].since; since.Before(first) {
			first = since
		}
	}
	return now.Sub(first) >= b.ttl/gatherShare
}

// owners returns who should hold each group's lease: the node that leads it, or
// else one of the best that ask, shared out evenly with few changes. Without
// anyone that asks nobody does.
func (b *Book) owners(v View, askers []rpc.NodeID) [catalog.Groups]rpc.NodeID {
	var owners [catalog.Groups]rpc.NodeID
	load := make(map[rpc.NodeID]int, len(askers))
	for _, id := range askers {
		load[id] = 0
	}
	choices := make([][]rpc.NodeID, len(v.State.Placed))
	for number := range v.State.Placed {
		choices[number] = choose(v, uint16(number), askers)
		lease := v.State.Lease(uint16(number))
		switch choice := choices[number]; {
		case len(choice) == 1:
			owners[number] = choice[0]
		case b.holds(lease, v.Now) && slices.Contains(choice, lease.Holder):
			owners[number] = lease.Holder
		default:
			continue
		}
		load[owners[number]]++
	}
	for number, choice := range choices {
		if len(choice) == 0 {
			continue
		}
		least := slices.MinFunc(choice, func(a, b rpc.NodeID) int { return load[a] - load[b] })
		switch owner := owners[number]; {
		case owner == "":
			owners[number] = least
			load[least]++
		case load[owner] > load[least]+1:
			owners[number] = least
			load[owner]--
			load[least]++
		}
	}
	return owners
}

// choose returns the best of the askers for a group: the leader, else those that
// hold a replica, else all.
func choose(v View, number uint16, askers []rpc.NodeID) []rpc.NodeID {
	group := &v.State.Placed[number]
	if len(group.Replicas) == 0 {
		return nil
	}
	asks := func(id rpc.NodeID) bool {
		_, found := slices.BinarySearch(askers, id)
		return found
	}
	if leader := v.Leaders[number]; leader != "" && group.Holds(leader) && asks(leader) {
		return []rpc.NodeID{leader}
	}
	var holders []rpc.NodeID
	for _, replica := range group.Replicas {
		if replica.Voter && !replica.Leaving && v.State.Intact(replica) && asks(replica.Node) {
			holders = append(holders, replica.Node)
		}
	}
	if len(holders) > 0 {
		return holders
	}
	return askers
}
