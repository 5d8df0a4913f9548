// Package rpc is the border of the control plane: what routers and data nodes
// say to it. In one process the call is direct; between processes it is a
// network hop behind the same interface.
package rpc

import (
	"context"
	"errors"
	"time"
)

// Sentinels of the control plane; test with errors.Is.
var (
	// ErrUnavailable: no control leader or no quorum right now. Retry.
	ErrUnavailable = errors.New("control plane has no leader")
	// ErrWrongCluster: the caller belongs to another cluster. Do not retry.
	ErrWrongCluster = errors.New("wrong cluster id")
	// ErrNodeConflict: another live data directory registered this node id.
	ErrNodeConflict = errors.New("node id is in use by another data directory")
	// ErrClosed: the member is shutting down.
	ErrClosed = errors.New("control member is shutting down")
)

// NodeID names a data node. It is also its Raft server id, and never changes
// for a data directory.
type NodeID string

// NodeInfo is what a data node says of itself.
type NodeInfo struct {
	ID          NodeID
	Address     string // where peers and routers reach its internal listener
	Zone        string // failure domain, may be empty
	Incarnation string // random, made with the data directory; tells a wiped node from a restarted one
	Version     string // of the program
}

// Replica is one member of a group.
type Replica struct {
	Node  NodeID
	Voter bool
}

// Placement is where a group lives.
type Placement struct {
	Replicas []Replica // ascending by node; empty until placed
	// Leader is the node that last reported to lead, a hint. Preferred is the
	// one that should.
	Leader    NodeID
	Preferred NodeID
}

// Table is the placement table: a snapshot that the receiver must not modify.
type Table struct {
	ClusterID string
	Version   uint64 // rises with every change, leaders included
	Nodes     map[NodeID]NodeInfo
	Groups    []Placement // by group number; empty before the first placement
}

// GroupAssignment tells a node about one replica it should hold.
type GroupAssignment struct {
	Group     uint16
	Replicas  []Replica // the membership to converge to
	Preferred NodeID    // the node that should lead
	// Bootstrap: the group was never formed and this node forms it, alone, with
	// the listed voters. Exactly one node of a group is ever told so, and only
	// until the group has reported a leader.
	Bootstrap bool
}

// Assignment is everything a node should host.
type Assignment struct {
	ClusterID string
	Version   uint64
	Groups    []GroupAssignment // ascending by group
	Addresses map[NodeID]string // of every node named in Groups
}

// GroupReport is what a node knows of one replica it hosts.
type GroupReport struct {
	Group     uint16
	Leading   bool
	Term      uint64
	Applied   uint64 // index applied to the state machine
	LastIndex uint64 // newest entry in the local log
	Replicas  []Replica
}

// Report is a node's side of its session.
type Report struct {
	Node   NodeInfo
	Groups []GroupReport
	// HaveAssignment is the version the node has persisted, 0 for none.
	HaveAssignment uint64
	// DiskUsed is what the node's data takes, DiskFree what is left on its disk,
	// in bytes; both 0 when the node does not say.
	DiskUsed, DiskFree uint64
}

// ControlPlane is the control plane as routers and data nodes see it. Methods
// are safe for concurrent use and return the sentinels of this package.
type ControlPlane interface {
	// Table returns the placement table as soon as its version exceeds after,
	// else the current one when ctx ends without an error of its own (a poll
	// that found nothing new returns the same version again).
	Table(ctx context.Context, after uint64) (*Table, error)
	// Session reports the node's state and returns its assignment as soon as
	// its version differs from report.HaveAssignment, or after a bounded wait
	// of at most a second the unchanged one. Calling it registers the node and
	// keeps its session alive.
	Session(ctx context.Context, report *Report) (*Assignment, error)
}

// Lease is the right to archive one group. Epoch rises with every grant to
// another node and goes into every archive acknowledgement, so that a holder
// that does not know yet that it lost the lease is refused by the group.
type Lease struct {
	Group uint16
	Epoch uint64
}

// LeaseRequest renews the leases of a node that archives.
type LeaseRequest struct {
	Node        NodeID
	Incarnation string
	// Release gives all leases back: the node is going down.
	Release bool
}

// LeaseReply is everything the node holds from now on.
type LeaseReply struct {
	Leases []Lease // ascending by group
	// TTL is how long they may be trusted, counted by the holder's monotonic
	// clock from before it sent the request.
	TTL time.Duration
}

// Leases hands out archiver leases: one holder per group, preferably the node
// that leads it.
type Leases interface {
	// Lease asks for leases, or renews and updates those held. It is called
	// well before TTL has passed, again and again.
	Lease(ctx context.Context, req *LeaseRequest) (*LeaseReply, error)
}
