package catalog

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	dataplane "github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Bounds of the state. They are part of what Apply decides, so they must not
// change without a new command version.
const (
	// Groups is the number of groups of a placed cluster.
	Groups = dataplane.Groups
	// MaxNodes bounds the node registry.
	MaxNodes = 1024
	// MaxReplicas bounds the replicas of one group, those on the move included.
	MaxReplicas = 7
	// MaxIDBytes bounds ids, zones, incarnations and program versions.
	MaxIDBytes = 128
	// MaxAddressBytes bounds an address.
	MaxAddressBytes = 512
	// DefaultWeight is the weight of a node until an operator says otherwise.
	DefaultWeight = 100
	// MaxWeight bounds the weight of a node.
	MaxWeight = 10_000
)

// NodeState is what the control plane wants of a node.
type NodeState string

const (
	// NodeActive nodes hold replicas.
	NodeActive NodeState = "active"
	// NodeDraining nodes give theirs up and take no new ones.
	NodeDraining NodeState = "draining"
	// NodeRemoved nodes hold none and are in the registry only so that they do
	// not come back by themselves.
	NodeRemoved NodeState = "removed"
)

// Node is a registered data node.
type Node struct {
	ID          rpc.NodeID `json:"id"`
	Address     string     `json:"address"`
	Zone        string     `json:"zone,omitempty"`
	Incarnation string     `json:"incarnation"`
	Version     string     `json:"version,omitempty"`
	// Weight is how much of the load the node takes, beside those of the others.
	Weight uint32    `json:"weight"`
	State  NodeState `json:"state"`
	// Generation counts the data directories the id has had, from 1. A
	// replica that was placed on an earlier one lost its data.
	Generation uint32    `json:"generation"`
	FirstSeen  time.Time `json:"first_seen"`
	// Assigned is the index of the command that last changed what the node
	// should host, or 0. It only rises and is the version of its assignment.
	Assigned uint64 `json:"assigned,omitempty"`
}

// Replica is one member of a group.
type Replica struct {
	Node  rpc.NodeID `json:"node"`
	Voter bool       `json:"voter,omitempty"`
	// Generation is the node's when the replica was placed there.
	Generation uint32 `json:"generation"`
	// Leaving: the group's leader is to remove the replica. Its node keeps it
	// until the leader has reported that it did.
	Leaving bool `json:"leaving,omitempty"`
}

// Group is where a group lives.
type Group struct {
	// Replicas are in ascending order of node; none before the group is placed.
	Replicas []Replica `json:"replicas,omitempty"`
	// Preferred is the node that should lead.
	Preferred rpc.NodeID `json:"preferred,omitempty"`
	// Pinned: an operator chose who is preferred, and balancing leaves it so.
	Pinned bool `json:"pinned,omitempty"`
	// Bootstrap is the one node that ever forms the group.
	Bootstrap rpc.NodeID `json:"bootstrap,omitempty"`
	// Formed: the group has run, so nobody may form it again.
	Formed bool `json:"formed,omitempty"`
	// Changed is the index of the command that last changed the group.
	Changed uint64 `json:"changed,omitempty"`
	// Move is the move under way, or nil. A group has one at most.
	Move *Move `json:"move,omitempty"`
	// Step is the index of the command that last took a move of the group from
	// one phase to another, its end included, or 0. A node whose assignment is
	// older knows nothing of that yet.
	Step uint64 `json:"step,omitempty"`
	// Term is the highest of a leader of the group whose report was acted upon.
	Term uint64 `json:"term,omitempty"`
}

// Holds reports whether a node has a replica of the group.
func (g *Group) Holds(node rpc.NodeID) bool { return g.replica(node) != nil }

func (g *Group) replica(node rpc.NodeID) *Replica {
	for i := range g.Replicas {
		if g.Replicas[i].Node == node {
			return &g.Replicas[i]
		}
	}
	return nil
}

// State is the whole catalog after one command. It is immutable; neither it nor
// anything it refers to may be modified.
type State struct {
	// Index is that of the last command applied.
	Index uint64 `json:"index"`
	// Revision is the index of the last command that changed anything but leases.
	Revision uint64 `json:"revision"`
	// ClusterID is empty until the cluster was created.
	ClusterID string    `json:"cluster_id,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	// ReplicationFactor is how many replicas a group should have when there
	// are nodes enough.
	ReplicationFactor int `json:"replication_factor,omitempty"`
	// Nodes is the registry.
	Nodes map[rpc.NodeID]Node `json:"nodes,omitempty"`
	// Placed has Groups entries once the cluster was created.
	Placed []Group `json:"groups,omitempty"`
	// LastMove is the id of the newest move there was.
	LastMove uint64 `json:"last_move,omitempty"`
	// MovesFinished and MovesAborted count the moves that are over.
	MovesFinished uint64 `json:"moves_finished,omitempty"`
	MovesAborted  uint64 `json:"moves_aborted,omitempty"`
	// Leases has Groups entries once there was a lease.
	Leases []Lease `json:"leases,omitempty"`
	// Rebalance is the one under way, or nil.
	Rebalance *Rebalance `json:"rebalance,omitempty"`
	// Events are the newest, ascending, MaxEvents at most. LastEvent is the id
	// of the newest there was.
	Events    []Event `json:"events,omitempty"`
	LastEvent uint64  `json:"last_event,omitempty"`
}

// requires is the lowest catalog version that understands the state.
func (s *State) requires() uint8 {
	switch {
	case s.LastEvent > 0:
		return versionOperated
	case len(s.Leases) > 0:
		return versionLeases
	case s.LastMove > 0:
		return versionMoves
	}
	return versionFirst
}

// NodeIDs returns the ids of all nodes in ascending order.
func (s *State) NodeIDs() []rpc.NodeID {
	ids := make([]rpc.NodeID, 0, len(s.Nodes))
	for id := range s.Nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// IsPlaced reports whether every group has a place.
func (s *State) IsPlaced() bool {
	if len(s.Placed) == 0 {
		return false
	}
	return !slices.ContainsFunc(s.Placed, func(g Group) bool { return len(g.Replicas) == 0 })
}

// Hash identifies the state: members that applied the same commands agree on it.
func (s *State) Hash() ([sha256.Size]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("hash catalog: %w", err)
	}
	return sha256.Sum256(data), nil
}

// validate checks what a restored state must satisfy for the code around it to
// be safe with it.
func (s *State) validate() error {
	if len(s.Nodes) > MaxNodes {
		return errors.New("too many nodes")
	}
	if s.Revision > s.Index {
		return errors.New("revision lies beyond the index")
	}
	if (s.ClusterID == "") != (len(s.Placed) == 0) || s.ClusterID != "" && len(s.Placed) != Groups {
		return fmt.Errorf("cluster %q with %d groups", s.ClusterID, len(s.Placed))
	}
	for id, node := range s.Nodes {
		if id != node.ID || node.Generation == 0 || node.Assigned > s.Index {
			return fmt.Errorf("node %q is inconsistent", id)
		}
		if node.State == NodeRemoved && s.ReplicasOn(id) > 0 {
			return fmt.Errorf("node %q is removed and holds replicas", id)
		}
	}
	for number := range s.Placed {
		if err := s.validateGroup(&s.Placed[number]); err != nil {
			return fmt.Errorf("group %d: %w", number, err)
		}
	}
	if len(s.Events) > MaxEvents || s.Rebalance != nil && s.Rebalance.ID > s.Index {
		return errors.New("events or rebalance are inconsistent")
	}
	return s.validateLeases()
}

func (s *State) validateGroup(group *Group) error {
	if len(group.Replicas) == 0 {
		if group.Formed || group.Preferred != "" || group.Bootstrap != "" || group.Move != nil {
			return errors.New("it is not placed, yet in use")
		}
		return nil
	}
	if len(group.Replicas) > MaxReplicas || group.Changed > s.Index || group.Step > s.Index {
		return errors.New("it is inconsistent")
	}
	for i, replica := range group.Replicas {
		if i > 0 && replica.Node <= group.Replicas[i-1].Node {
			return errors.New("replicas are out of order")
		}
		if node, known := s.Nodes[replica.Node]; !known || replica.Generation == 0 || replica.Generation > node.Generation {
			return fmt.Errorf("replica on node %q is inconsistent", replica.Node)
		}
		if replica.Leaving && group.Move == nil {
			return fmt.Errorf("replica on node %q leaves without a move", replica.Node)
		}
	}
	if !group.prefersMember() {
		return errors.New("nobody who stays is to lead it")
	}
	if group.Move != nil {
		if group.Move.ID > s.LastMove {
			return errors.New("its move was never started")
		}
		return group.Move.validate(group)
	}
	return nil
}
