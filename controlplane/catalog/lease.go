package catalog

import (
	"fmt"
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Lease is who archives one group. Whether the holder is still there is not in
// the catalog; only a holder that gave its lease back is known to be gone.
type Lease struct {
	// Epoch is that of the newest grant, 0 when there was none. It rises by one
	// with every grant and never falls, whoever holds.
	Epoch uint64 `json:"epoch"`
	// Holder is the node that holds the lease, empty when nobody does.
	Holder rpc.NodeID `json:"holder,omitempty"`
	// Incarnation is what the holder said of itself when it asked. The same node
	// with another one is another holder.
	Incarnation string    `json:"incarnation,omitempty"`
	GrantedAt   time.Time `json:"granted_at,omitzero"`
}

// HeldBy reports whether the lease is that of a node in an incarnation.
func (l Lease) HeldBy(node rpc.NodeID, incarnation string) bool {
	return l.Holder != "" && l.Holder == node && l.Incarnation == incarnation
}

// Lease returns the lease of a group, the zero lease when it never had one.
func (s *State) Lease(group uint16) Lease {
	if int(group) >= len(s.Leases) {
		return Lease{}
	}
	return s.Leases[group]
}

// GrantLeases gives leases to nodes, all or none of them. Whether a former
// holder may still trust its lease is for the sender to know.
type GrantLeases struct {
	Grants []LeaseGrant `json:"grants"`
	At     time.Time    `json:"at"`
}

// LeaseGrant gives the lease of one group to a node.
type LeaseGrant struct {
	Group uint16 `json:"group"`
	// After is the epoch that the sender saw. A grant that was overtaken by
	// another is refused, so one that is repeated happens once.
	After       uint64     `json:"after"`
	Node        rpc.NodeID `json:"node"`
	Incarnation string     `json:"incarnation"`
}

// ReleaseLeases takes leases back from a holder that gave them up, all or none
// of them.
type ReleaseLeases struct {
	Node        rpc.NodeID  `json:"node"`
	Incarnation string      `json:"incarnation"`
	Leases      []rpc.Lease `json:"leases"`
}

func (*GrantLeases) kind() Kind   { return KindGrantLeases }
func (*ReleaseLeases) kind() Kind { return KindReleaseLeases }

func (c *GrantLeases) apply(d *draft) error {
	if err := leaseNumbers(d, len(c.Grants)); err != nil {
		return err
	}
	for _, grant := range c.Grants {
		node, known := d.Nodes[grant.Node]
		switch {
		case grant.Group >= Groups || !validName(grant.Incarnation, MaxIDBytes):
			return fmt.Errorf("%w: lease of group %d", ErrInvalid, grant.Group)
		case d.Lease(grant.Group).Epoch != grant.After:
			return fmt.Errorf("%w: lease of group %d has epoch %d, not %d", ErrStale, grant.Group, d.Lease(grant.Group).Epoch, grant.After)
		case !known || node.State != NodeActive:
			return fmt.Errorf("%w: node %q takes no lease", ErrStale, grant.Node)
		}
		d.setLease(grant.Group, Lease{
			Epoch: grant.After + 1, Holder: grant.Node, Incarnation: grant.Incarnation, GrantedAt: stamp(c.At),
		})
	}
	return nil
}

func (c *ReleaseLeases) apply(d *draft) error {
	if err := leaseNumbers(d, len(c.Leases)); err != nil {
		return err
	}
	for _, given := range c.Leases {
		if given.Group >= Groups {
			return fmt.Errorf("%w: lease of group %d", ErrInvalid, given.Group)
		}
		lease := d.Lease(given.Group)
		if lease.Epoch != given.Epoch || !lease.HeldBy(c.Node, c.Incarnation) {
			return fmt.Errorf("%w: node %q does not hold the lease of group %d", ErrStale, c.Node, given.Group)
		}
		d.setLease(given.Group, Lease{Epoch: lease.Epoch})
	}
	return nil
}

func leaseNumbers(d *draft, count int) error {
	switch {
	case d.ClusterID == "":
		return ErrNoCluster
	case count == 0 || count > Groups:
		return fmt.Errorf("%w: about %d leases", ErrInvalid, count)
	}
	return nil
}

func (d *draft) setLease(group uint16, lease Lease) {
	if !d.ownsLeases {
		if d.Leases = slices.Clone(d.Leases); d.Leases == nil {
			d.Leases = make([]Lease, Groups)
		}
		d.ownsLeases = true
	}
	d.Leases[group] = lease
	d.minor = true
}

// validateLeases checks restored leases. A holder may have been removed from
// the registry; its lease then runs out.
func (s *State) validateLeases() error {
	if len(s.Leases) != 0 && len(s.Leases) != Groups {
		return fmt.Errorf("%d leases", len(s.Leases))
	}
	for number, lease := range s.Leases {
		if lease.Holder != "" && (lease.Epoch == 0 || lease.Incarnation == "") {
			return fmt.Errorf("lease of group %d is inconsistent", number)
		}
	}
	return nil
}
