package catalog

import (
	"errors"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Why a wish of an operator was refused. Nothing was changed.
var (
	// ErrUnknownNode: there is no such node.
	ErrUnknownNode = errors.New("no such node")
	// ErrUnknownGroup: there is no such group, or it has no place yet.
	ErrUnknownGroup = errors.New("no such group")
	// ErrUnknownMove: there is no such move under way.
	ErrUnknownMove = errors.New("no such move under way")
	// ErrDrainUnderWay: another node is being drained.
	ErrDrainUnderWay = errors.New("another node is being drained")
	// ErrTooFewNodes: the nodes that remain could not hold the replicas.
	ErrTooFewNodes = errors.New("too few nodes would remain")
	// ErrHoldsReplicas: the node holds replicas; it must be drained first.
	ErrHoldsReplicas = errors.New("node holds replicas")
	// ErrNotActive: the node is draining or was removed.
	ErrNotActive = errors.New("node is not active")
	// ErrNoReplica: the node has no replica of the group that could do it.
	ErrNoReplica = errors.New("node has no such replica of the group")
	// ErrHasReplica: the node has a replica of the group already.
	ErrHasReplica = errors.New("node has a replica of the group already")
	// ErrMoving: the group is moving, or was not formed yet.
	ErrMoving = errors.New("group is moving")
	// ErrRebalancing: a rebalance is under way.
	ErrRebalancing = errors.New("a rebalance is under way")
	// ErrRemoved: the node was removed from the cluster.
	ErrRemoved = errors.New("node was removed from the cluster")
)

// Rebalance is one that is under way.
type Rebalance struct {
	// ID is the index of the command that started it.
	ID        uint64    `json:"id"`
	StartedAt time.Time `json:"started_at"`
	// Planned is how many changes it was expected to take.
	Planned int `json:"planned"`
}

// SetNodeState drains a node or makes it active again. Asking for what is so
// changes nothing.
type SetNodeState struct {
	Node  rpc.NodeID `json:"node"`
	State NodeState  `json:"state"`
	At    time.Time  `json:"at"`
}

// RemoveNode takes a node that holds nothing out of the cluster. It can come
// back with another data directory only.
type RemoveNode struct {
	Node rpc.NodeID `json:"node"`
	At   time.Time  `json:"at"`
}

// SetNodeWeight says how much of the load a node takes. Leaders follow at once,
// replicas when they are moved for another reason or by a rebalance. Asking for
// what is so changes nothing.
type SetNodeWeight struct {
	Node   rpc.NodeID `json:"node"`
	Weight uint32     `json:"weight"` // 1 to MaxWeight
	At     time.Time  `json:"at"`
}

// PinLeader says who should lead one group, until a rebalance.
type PinLeader struct {
	Group uint16     `json:"group"`
	Node  rpc.NodeID `json:"node"`
	At    time.Time  `json:"at"`
}

// StartRebalance lets replicas be evened out. It ends pins of leaders.
type StartRebalance struct {
	Planned int       `json:"planned"`
	At      time.Time `json:"at"`
}

// EndRebalance ends the one that is under way; moves that it started go on.
type EndRebalance struct {
	ID        uint64    `json:"id"`
	Cancelled bool      `json:"cancelled,omitempty"`
	At        time.Time `json:"at"`
}

func (*SetNodeState) kind() Kind   { return KindSetNodeState }
func (*RemoveNode) kind() Kind     { return KindRemoveNode }
func (*SetNodeWeight) kind() Kind  { return KindSetNodeWeight }
func (*PinLeader) kind() Kind      { return KindPinLeader }
func (*StartRebalance) kind() Kind { return KindStartRebalance }
func (*EndRebalance) kind() Kind   { return KindEndRebalance }

// ReplicasOn counts the replicas that a node holds or is getting.
func (s *State) ReplicasOn(id rpc.NodeID) int {
	count := 0
	for number := range s.Placed {
		if s.Placed[number].Holds(id) {
			count++
		}
	}
	return count
}

// Width is the most replicas that any group has when its move is over.
func (s *State) Width() int {
	width := 0
	for number := range s.Placed {
		group := &s.Placed[number]
		replicas := len(group.Members())
		if move := group.Move; move != nil && move.Leave != "" && !group.replica(move.Leave).Leaving {
			replicas--
		}
		width = max(width, replicas)
	}
	return width
}

func (c *SetNodeState) apply(d *draft) error {
	node, err := d.livingNode(c.Node)
	switch {
	case err != nil:
		return err
	case c.State != NodeActive && c.State != NodeDraining:
		return fmt.Errorf("%w: node state %q", ErrInvalid, c.State)
	case node.State == c.State:
		return nil
	}
	kind := EventNodeActive
	if c.State == NodeDraining {
		if err := d.CanDrain(c.Node); err != nil {
			return err
		}
		kind = EventNodeDraining
	}
	node.State = c.State
	d.setNode(node)
	d.record(c.At, Event{Kind: kind, Node: c.Node})
	return nil
}

func (c *SetNodeWeight) apply(d *draft) error {
	node, err := d.livingNode(c.Node)
	switch {
	case err != nil:
		return err
	case c.Weight < 1 || c.Weight > MaxWeight:
		return fmt.Errorf("%w: weight %d", ErrInvalid, c.Weight)
	case node.Weight == c.Weight:
		return nil
	}
	was := node.Weight
	node.Weight = c.Weight
	d.setNode(node)
	d.record(c.At, Event{Kind: EventNodeWeighed, Node: c.Node, Detail: fmt.Sprintf("%d, was %d", c.Weight, was)})
	return nil
}

// CanDrain returns why a node cannot be drained, or nil. Who is alive does not
// count.
func (s *State) CanDrain(id rpc.NodeID) error {
	remain := 0
	for other, node := range s.Nodes {
		switch {
		case other == id || node.State == NodeRemoved:
		case node.State == NodeDraining && s.ReplicasOn(other) > 0:
			return fmt.Errorf("%w: %s", ErrDrainUnderWay, other)
		case node.State == NodeActive:
			remain++
		}
	}
	if width := s.Width(); remain < width {
		return fmt.Errorf("%w: %d for groups of %d replicas", ErrTooFewNodes, remain, width)
	}
	return nil
}

func (d *draft) livingNode(id rpc.NodeID) (Node, error) {
	node, known := d.Nodes[id]
	switch {
	case !known:
		return node, fmt.Errorf("%w: %q", ErrUnknownNode, id)
	case node.State == NodeRemoved:
		return node, fmt.Errorf("%w: %q", ErrRemoved, id)
	}
	return node, nil
}

func (c *RemoveNode) apply(d *draft) error {
	node, err := d.livingNode(c.Node)
	if errors.Is(err, ErrRemoved) {
		return nil
	}
	if err != nil {
		return err
	}
	if count := d.ReplicasOn(c.Node); count > 0 {
		return fmt.Errorf("%w: %d on %q", ErrHoldsReplicas, count, c.Node)
	}
	node.State = NodeRemoved
	d.setNode(node)
	d.record(c.At, Event{Kind: EventNodeRemoved, Node: c.Node})
	return nil
}

// forgetRemoved makes room in the registry: the removed node that came first
// goes. It returns whether there was one.
func (d *draft) forgetRemoved() bool {
	var first *Node
	for _, id := range d.NodeIDs() {
		if node := d.Nodes[id]; node.State == NodeRemoved && (first == nil || node.FirstSeen.Before(first.FirstSeen)) {
			first = &node
		}
	}
	if first == nil {
		return false
	}
	d.setNode(*first) // the map is ours from here on
	delete(d.Nodes, first.ID)
	return true
}

// FormedGroup returns a group that is at rest, or why there is none.
func (s *State) FormedGroup(number uint16) (*Group, error) {
	switch {
	case int(number) >= len(s.Placed) || len(s.Placed[number].Replicas) == 0:
		return nil, fmt.Errorf("%w: %d", ErrUnknownGroup, number)
	case s.Placed[number].Move != nil:
		return nil, fmt.Errorf("%w: group %d, move %d", ErrMoving, number, s.Placed[number].Move.ID)
	case !s.Placed[number].Formed:
		return nil, fmt.Errorf("%w: group %d was not formed yet", ErrMoving, number)
	}
	return &s.Placed[number], nil
}

func (c *PinLeader) apply(d *draft) error {
	at, err := d.FormedGroup(c.Group)
	if err != nil {
		return err
	}
	node, err := d.livingNode(c.Node)
	if err != nil {
		return err
	}
	if node.State != NodeActive {
		return fmt.Errorf("%w: %q", ErrNotActive, c.Node)
	}
	group := *at
	if replica := group.replica(c.Node); replica == nil || !replica.Voter || !d.Intact(*replica) {
		return fmt.Errorf("%w: %q in group %d", ErrNoReplica, c.Node, c.Group)
	}
	if group.Preferred == c.Node && group.Pinned {
		return nil
	}
	group.Preferred, group.Pinned = c.Node, true
	for _, replica := range group.Replicas {
		d.affect(replica.Node)
	}
	d.setGroup(c.Group, group)
	d.record(c.At, Event{Kind: EventLeaderPinned, Group: &c.Group, Node: c.Node})
	return nil
}

func (c *StartRebalance) apply(d *draft) error {
	switch {
	case d.ClusterID == "":
		return ErrNoCluster
	case d.Rebalance != nil:
		return fmt.Errorf("%w: since %s", ErrRebalancing, d.Rebalance.StartedAt.Format(time.RFC3339))
	case c.Planned < 0:
		return fmt.Errorf("%w: %d changes", ErrInvalid, c.Planned)
	}
	d.Rebalance = &Rebalance{ID: d.index, StartedAt: stamp(c.At), Planned: c.Planned}
	d.changed = true
	for number := range d.Placed {
		if group := d.Placed[number]; group.Pinned {
			group.Pinned = false
			d.setGroup(uint16(number), group)
		}
	}
	d.record(c.At, Event{Kind: EventRebalanceStarted, Detail: fmt.Sprintf("%d changes planned", c.Planned)})
	return nil
}

func (c *EndRebalance) apply(d *draft) error {
	if d.Rebalance == nil || d.Rebalance.ID != c.ID {
		return fmt.Errorf("%w: rebalance %d is over", ErrStale, c.ID)
	}
	d.Rebalance = nil
	d.changed = true
	kind := EventRebalanceFinished
	if c.Cancelled {
		kind = EventRebalanceCancelled
	}
	d.record(c.At, Event{Kind: kind})
	return nil
}
