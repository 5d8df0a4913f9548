package lease

import (
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

const (
	// DefaultTTL is how long a holder may trust its leases without renewing them.
	DefaultTTL = 10 * time.Second
	// driftShare is the part of the TTL by which clocks may differ over one TTL:
	// a lease is taken away that much later than its holder stops to trust it.
	driftShare = 20
	// settleShare is the part of the TTL for which another node must have been
	// the better holder before a lease is taken from one that renews it.
	settleShare = 5
	// gatherShare is the part of the TTL for which nodes are let to turn up
	// before a lease goes to one that does not lead the group.
	gatherShare = 4
	// handoverShare is the part of the TTL for which a deposed leader may go on to
	// confirm leases before it notices. See DESIGN.md for what bounds that.
	handoverShare = 3
)

// Book is what a control leader knows of leases beyond the catalog, for one term.
// It is lost with the leader; the next one lets a TTL pass before it takes a
// lease from a holder that it has not heard of. It is not safe for concurrent
// use.
type Book struct {
	ttl, trust time.Duration // trust is the TTL and the drift of clocks
	began      time.Time
	candidates map[rpc.NodeID]*candidate
	groups     [catalog.Groups]entry
}

// candidate is a node that asks for leases.
type candidate struct {
	incarnation string
	since       time.Time // it has asked without a break
	asked       time.Time
}

// entry is what is known of one group's lease.
type entry struct {
	confirmed time.Time // when a holder was last told that it holds
	// withheld is the newest epoch that holders are no longer told of, for the
	// lease is being given to another or given back.
	withheld uint64
	// better should hold instead of the holder, and has since then.
	better      rpc.NodeID
	betterSince time.Time
}

// NewBook returns the book of a leader whose term has begun at now: any lease
// may have been confirmed until a moment later by another.
func NewBook(ttl time.Duration, now time.Time) *Book {
	return &Book{ttl: ttl, trust: ttl + ttl/driftShare, began: now, candidates: make(map[rpc.NodeID]*candidate)}
}

// Confirm notes that a node asks and returns the leases that it holds, ascending
// by group. The node may trust them for the TTL from when it asked, which was
// before now; the caller must make sure that this leader is not deposed yet.
// fresh reports whether the node has not asked before, or not for a while.
func (b *Book) Confirm(state *catalog.State, node rpc.NodeID, incarnation string, now time.Time) (held []rpc.Lease, fresh bool) {
	c := b.candidates[node]
	if c == nil || c.incarnation != incarnation || !b.asks(c, now) {
		c = &candidate{incarnation: incarnation, since: now}
		b.candidates[node] = c
		fresh = true
	}
	c.asked = now
	for number, lease := range state.Leases {
		if e := &b.groups[number]; lease.HeldBy(node, incarnation) && e.withheld < lease.Epoch {
			e.confirmed = now
			held = append(held, rpc.Lease{Group: uint16(number), Epoch: lease.Epoch})
		}
	}
	return held, fresh
}

// Release returns the leases that a node holds and gives back by a request that
// came in at arrived, and withholds them. Those that were confirmed since then
// stay: the request is then one of the node's former life.
func (b *Book) Release(state *catalog.State, node rpc.NodeID, incarnation string, arrived time.Time) []rpc.Lease {
	if c := b.candidates[node]; c != nil && c.incarnation == incarnation && !c.asked.After(arrived) {
		delete(b.candidates, node)
	}
	var given []rpc.Lease
	for number, lease := range state.Leases {
		e := &b.groups[number]
		if lease.HeldBy(node, incarnation) && !e.confirmed.After(arrived) {
			e.withheld = max(e.withheld, lease.Epoch)
			given = append(given, rpc.Lease{Group: uint16(number), Epoch: lease.Epoch})
		}
	}
	return given
}

// Until returns until when a holder of a group's lease may trust it. It is in the
// past when nobody may.
func (b *Book) Until(group uint16) time.Time {
	confirmed := b.groups[group].confirmed
	if earlier := b.began.Add(b.ttl / handoverShare); confirmed.Before(earlier) {
		confirmed = earlier
	}
	return confirmed.Add(b.trust)
}

func (b *Book) asks(c *candidate, now time.Time) bool { return now.Sub(c.asked) < b.trust }

// holds reports whether the holder of a lease still renews it.
func (b *Book) holds(lease catalog.Lease, now time.Time) bool {
	c := b.candidates[lease.Holder]
	return c != nil && c.incarnation == lease.Incarnation && b.asks(c, now)
}
