package catalog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Why a command changed nothing. These are decisions of the state machine, the
// same on every member; the command is done with.
var (
	// ErrInvalid: the command breaks a rule whatever the state.
	ErrInvalid = errors.New("invalid catalog command")
	// ErrNoCluster: the cluster was not created yet.
	ErrNoCluster = errors.New("cluster was not created yet")
	// ErrStale: the command was made for a state that has passed. Look again.
	ErrStale = errors.New("catalog has changed meanwhile")
	// ErrConflict: another incarnation holds the node id.
	ErrConflict = errors.New("node id belongs to another incarnation")
	// ErrFull: the node registry is full.
	ErrFull = errors.New("node registry is full")
)

// Result is what a command came to.
type Result struct {
	// Changed: the state is another one than before.
	Changed bool
	// Err is why the command was refused, or nil. A command that asks for what
	// is already so is not refused and changes nothing.
	Err error
}

// draft is a state being changed. It copies what it changes, once.
type draft struct {
	State
	index      uint64
	changed    bool // nodes or groups
	minor      bool // leases or events, which are in no table and no assignment
	ownsNodes  bool
	ownsGroups bool
	ownsLeases bool
	ownsEvents bool
	affected   map[rpc.NodeID]struct{} // nodes whose assignment changes
}

// Apply executes a command on a state and returns the new one. The old one is
// not touched. An error means that the command cannot be understood and that
// the state is the old one still; see ErrCorrupt and ErrUnsupported. A command
// the state already holds, going by its index, changes nothing.
func Apply(state *State, index uint64, data []byte) (*State, Result, error) {
	if index <= state.Index {
		return state, Result{}, nil
	}
	command, err := Decode(data)
	if err != nil {
		return state, Result{}, fmt.Errorf("apply command at %d: %w", index, err)
	}
	d := &draft{State: *state, index: index}
	d.Index = index
	if err := command.apply(d); err != nil {
		refused := *state
		refused.Index = index
		return &refused, Result{Err: err}, nil
	}
	d.finish()
	return &d.State, Result{Changed: d.changed || d.minor}, nil
}

// finish stamps what the command changed.
func (d *draft) finish() {
	for id := range d.affected {
		if node, known := d.Nodes[id]; known {
			node.Assigned = d.index
			d.setNode(node)
		}
	}
	if d.changed {
		d.Revision = d.index
	}
}

func (d *draft) setNode(node Node) {
	if !d.ownsNodes {
		d.Nodes = maps.Clone(d.Nodes)
		if d.Nodes == nil {
			d.Nodes = make(map[rpc.NodeID]Node)
		}
		d.ownsNodes = true
	}
	d.Nodes[node.ID] = node
	d.changed = true
}

func (d *draft) setGroup(number uint16, group Group) {
	if !d.ownsGroups {
		d.Placed = slices.Clone(d.Placed)
		d.ownsGroups = true
	}
	group.Changed = d.index
	d.Placed[number] = group
	d.changed = true
}

// affect marks the assignment of a node as changed.
func (d *draft) affect(id rpc.NodeID) {
	if d.affected == nil {
		d.affected = make(map[rpc.NodeID]struct{})
	}
	d.affected[id] = struct{}{}
}

func (c *CreateCluster) apply(d *draft) error {
	switch {
	case !validName(c.ClusterID, MaxIDBytes):
		return fmt.Errorf("%w: cluster id", ErrInvalid)
	case c.ReplicationFactor < 1 || c.ReplicationFactor > MaxReplicas:
		return fmt.Errorf("%w: replication factor %d", ErrInvalid, c.ReplicationFactor)
	case d.ClusterID != "":
		return nil
	}
	d.ClusterID = c.ClusterID
	d.ReplicationFactor = c.ReplicationFactor
	d.CreatedAt = stamp(c.At)
	d.Placed = make([]Group, Groups)
	d.changed = true
	d.record(c.At, Event{Kind: EventClusterCreated, Detail: c.ClusterID})
	return nil
}

func (c *RegisterNode) apply(d *draft) error {
	if err := c.validate(); err != nil {
		return err
	}
	if d.ClusterID == "" {
		return ErrNoCluster
	}
	node, known := d.Nodes[c.ID]
	switch {
	case !known && len(d.Nodes) >= MaxNodes && !d.forgetRemoved():
		return ErrFull
	case !known:
		node = Node{ID: c.ID, Weight: DefaultWeight, State: NodeActive, Generation: 1, FirstSeen: stamp(c.At)}
		d.record(c.At, Event{Kind: EventNodeRegistered, Node: c.ID, Detail: c.Address})
	case node.Incarnation == c.Incarnation && node.State == NodeRemoved:
		return fmt.Errorf("%w: %q", ErrRemoved, c.ID)
	case node.Incarnation != c.Incarnation && node.Incarnation != c.Replaces:
		return fmt.Errorf("%w: %q", ErrConflict, c.ID)
	case node.Incarnation != c.Incarnation:
		kind := EventNodeLostData
		if node.State == NodeRemoved {
			node.State, kind = NodeActive, EventNodeRegistered
		}
		node.Generation++
		d.affect(c.ID)
		d.record(c.At, Event{Kind: kind, Node: c.ID, Detail: c.Address})
	}
	if known && node.Address != c.Address {
		d.affectNeighbours(c.ID)
	}
	before := node
	node.Address, node.Zone, node.Incarnation, node.Version = c.Address, c.Zone, c.Incarnation, c.Version
	if node != before {
		d.setNode(node)
	}
	return nil
}

func (c *RegisterNode) validate() error {
	switch {
	case !validName(string(c.ID), MaxIDBytes):
		return fmt.Errorf("%w: node id", ErrInvalid)
	case !validName(c.Address, MaxAddressBytes):
		return fmt.Errorf("%w: node address", ErrInvalid)
	case !validName(c.Incarnation, MaxIDBytes):
		return fmt.Errorf("%w: node incarnation", ErrInvalid)
	case c.Zone != "" && !validName(c.Zone, MaxIDBytes):
		return fmt.Errorf("%w: zone", ErrInvalid)
	case c.Version != "" && !validName(c.Version, MaxIDBytes):
		return fmt.Errorf("%w: program version", ErrInvalid)
	}
	return nil
}

// affectNeighbours marks the assignments that name a node's address.
func (d *draft) affectNeighbours(id rpc.NodeID) {
	for number := range d.Placed {
		group := &d.Placed[number]
		if !group.Holds(id) {
			continue
		}
		for _, replica := range group.Replicas {
			d.affect(replica.Node)
		}
	}
}

func (c *PlaceGroups) apply(d *draft) error {
	if d.ClusterID == "" {
		return ErrNoCluster
	}
	if len(c.Groups) == 0 || len(c.Groups) > Groups {
		return fmt.Errorf("%w: placement of %d groups", ErrInvalid, len(c.Groups))
	}
	for i := range c.Groups {
		placement := &c.Groups[i]
		if placement.Group >= Groups {
			return fmt.Errorf("%w: group %d", ErrInvalid, placement.Group)
		}
		if len(d.Placed[placement.Group].Replicas) > 0 {
			return fmt.Errorf("%w: group %d is placed", ErrStale, placement.Group)
		}
		group, err := placement.group(d)
		if err != nil {
			return err
		}
		d.setGroup(placement.Group, group)
	}
	d.record(c.At, Event{Kind: EventGroupsPlaced, Detail: fmt.Sprintf("%d groups", len(c.Groups))})
	return nil
}

// group makes the catalog's entry from a placement.
func (p *GroupPlacement) group(d *draft) (Group, error) {
	group := Group{Preferred: p.Preferred, Bootstrap: p.Bootstrap}
	if len(p.Voters) == 0 || len(p.Voters) > MaxReplicas {
		return group, fmt.Errorf("%w: group %d on %d nodes", ErrInvalid, p.Group, len(p.Voters))
	}
	for _, id := range slices.Sorted(slices.Values(p.Voters)) {
		node, known := d.Nodes[id]
		if !known || node.State != NodeActive {
			return group, fmt.Errorf("%w: node %q does not take replicas", ErrStale, id)
		}
		if group.Holds(id) {
			return group, fmt.Errorf("%w: group %d twice on node %q", ErrInvalid, p.Group, id)
		}
		group.Replicas = append(group.Replicas, Replica{Node: id, Voter: true, Generation: node.Generation})
		d.affect(id)
	}
	if !group.Holds(p.Preferred) || !group.Holds(p.Bootstrap) {
		return group, fmt.Errorf("%w: leader of group %d holds no replica", ErrInvalid, p.Group)
	}
	return group, nil
}

func (c *FormGroups) apply(d *draft) error {
	if d.ClusterID == "" {
		return ErrNoCluster
	}
	for _, number := range c.Groups {
		if number >= Groups {
			return fmt.Errorf("%w: group %d", ErrInvalid, number)
		}
		group := d.Placed[number]
		if len(group.Replicas) == 0 {
			return fmt.Errorf("%w: group %d is not placed", ErrInvalid, number)
		}
		if group.Formed {
			continue
		}
		group.Formed = true
		d.setGroup(number, group)
		d.affect(group.Bootstrap)
	}
	return nil
}

// stamp makes times equal whatever clock and zone they come from. A time that
// RFC 3339 cannot express becomes the zero time.
func stamp(at time.Time) time.Time {
	at = at.UTC().Truncate(time.Microsecond)
	if year := at.Year(); year < 1 || year > 9999 {
		return time.Time{}
	}
	return at
}

// ValidID reports whether the catalog takes a text as an id.
func ValidID(id string) bool { return validName(id, MaxIDBytes) }

// validName accepts 1 to limit bytes of printable UTF-8 without spaces.
func validName(name string, limit int) bool {
	if name == "" || len(name) > limit || !utf8.ValidString(name) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
