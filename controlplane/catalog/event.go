package catalog

import (
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// MaxEvents bounds the event log; the oldest are dropped.
const MaxEvents = 1024

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventClusterCreated     EventKind = "cluster_created"
	EventNodeRegistered     EventKind = "node_registered"
	EventNodeLostData       EventKind = "node_lost_data"
	EventNodeSilent         EventKind = "node_silent"
	EventNodeBack           EventKind = "node_back"
	EventNodeDraining       EventKind = "node_draining"
	EventNodeActive         EventKind = "node_active"
	EventNodeRemoved        EventKind = "node_removed"
	EventNodeWeighed        EventKind = "node_weighed"
	EventGroupsPlaced       EventKind = "groups_placed"
	EventLeaderPinned       EventKind = "leader_pinned"
	EventMoveStarted        EventKind = "move_started"
	EventMoveFinished       EventKind = "move_finished"
	EventMoveAborted        EventKind = "move_aborted"
	EventMoveWithdrawn      EventKind = "move_withdrawn"
	EventRebalanceStarted   EventKind = "rebalance_started"
	EventRebalanceFinished  EventKind = "rebalance_finished"
	EventRebalanceCancelled EventKind = "rebalance_cancelled"
)

// Event is something that an operator may want to know of.
type Event struct {
	// ID is unique in the cluster's life and rises by one.
	ID   uint64    `json:"id"`
	At   time.Time `json:"at,omitzero"`
	Kind EventKind `json:"kind"`
	// Node, Group and Move are what it is about, as far as that applies.
	Node   rpc.NodeID `json:"node,omitempty"`
	Group  *uint16    `json:"group,omitempty"`
	Move   uint64     `json:"move,omitempty"`
	Detail string     `json:"detail,omitempty"`
}

// record adds an event to the log.
func (d *draft) record(at time.Time, event Event) {
	if !d.ownsEvents {
		d.Events = slices.Clone(d.Events)
		d.ownsEvents = true
	}
	if drop := len(d.Events) - MaxEvents + 1; drop > 0 {
		d.Events = slices.Delete(d.Events, 0, drop)
	}
	d.LastEvent++
	event.ID, event.At = d.LastEvent, stamp(at)
	d.Events = append(d.Events, event)
	d.minor = true
}

func (d *draft) recordMove(at time.Time, kind EventKind, group uint16, move *Move, detail string) {
	d.record(at, Event{Kind: kind, Group: &group, Move: move.ID, Node: move.Leave, Detail: detail})
}

// NoteNodes records that nodes have become silent or have come back.
type NoteNodes struct {
	Silent []rpc.NodeID `json:"silent,omitempty"`
	Back   []rpc.NodeID `json:"back,omitempty"`
	At     time.Time    `json:"at"`
}

func (*NoteNodes) kind() Kind { return KindNoteNodes }

func (c *NoteNodes) apply(d *draft) error {
	if d.ClusterID == "" {
		return ErrNoCluster
	}
	for _, noted := range []struct {
		kind EventKind
		ids  []rpc.NodeID
	}{{EventNodeSilent, c.Silent}, {EventNodeBack, c.Back}} {
		for _, id := range noted.ids {
			if _, known := d.Nodes[id]; known {
				d.record(c.At, Event{Kind: noted.kind, Node: id})
			}
		}
	}
	return nil
}
