package admin

import (
	"maps"
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Status is the cluster on one screen.
type Status struct {
	ClusterID         string      `json:"cluster_id"`
	ReplicationFactor int         `json:"replication_factor"`
	Control           Control     `json:"control"`
	Nodes             NodeCounts  `json:"nodes"`
	Groups            GroupCounts `json:"groups"`
	Moves             MoveCounts  `json:"moves"`
	Leases            int         `json:"leases" doc:"Groups whose archiver lease is held."`
	Healthy           bool        `json:"healthy" doc:"Every group has a quorum and a leader, and no node is down."`
}

// Control is the control plane itself.
type Control struct {
	Leader  string          `json:"leader"`
	Term    uint64          `json:"term"`
	Members []ControlMember `json:"members" nullable:"false"`
}

// ControlMember is a member of the control plane.
type ControlMember struct {
	ID      string `json:"id"`
	Address string `json:"address,omitempty" doc:"Absent for a member that is alone."`
}

// NodeCounts counts nodes by state.
type NodeCounts struct {
	Up       int `json:"up"`
	Down     int `json:"down"`
	Draining int `json:"draining"`
	Removed  int `json:"removed"`
}

// GroupCounts counts groups.
type GroupCounts struct {
	Placed   int      `json:"placed"`
	Formed   int      `json:"formed"`
	Led      int      `json:"led" doc:"A leader is in session."`
	Short    int      `json:"short" doc:"Fewer replicas than the replication factor."`
	NoQuorum []uint16 `json:"no_quorum" nullable:"false" doc:"Groups of which most voters are down or lost their data."`
}

// MoveCounts counts moves.
type MoveCounts struct {
	UnderWay int    `json:"under_way"`
	Due      int    `json:"due" doc:"Planned and not started yet."`
	Finished uint64 `json:"finished"`
	Aborted  uint64 `json:"aborted"`
}

// Node is a data node.
type Node struct {
	ID        string     `json:"id"`
	State     string     `json:"state" enum:"up,down,draining,removed,unknown" doc:"Unknown: the control leader is new and the node has not called yet."`
	Alive     bool       `json:"alive" doc:"It is in session with the control plane."`
	Zone      string     `json:"zone"`
	Address   string     `json:"address"`
	Version   string     `json:"version"`
	Weight    uint32     `json:"weight"`
	Replicas  int        `json:"replicas" doc:"Replicas placed on it, those that come and go included."`
	Leaders   int        `json:"leaders" doc:"Groups that it leads."`
	Preferred int        `json:"preferred" doc:"Groups that it should lead."`
	Lost      int        `json:"lost" doc:"Replicas whose data it lost."`
	MaxLag    uint64     `json:"max_lag" doc:"Most entries that any of its replicas had yet to apply."`
	DiskUsed  uint64     `json:"disk_used" doc:"Bytes of its data; 0 when it does not say."`
	DiskFree  uint64     `json:"disk_free" doc:"Bytes left on its disk; 0 when it does not say."`
	FirstSeen time.Time  `json:"first_seen"`
	LastSeen  *time.Time `json:"last_seen,omitempty" doc:"Absent when it has not called since the control leader leads."`
}

// Group is a group and its replicas.
type Group struct {
	Group     uint16    `json:"group"`
	Leader    string    `json:"leader"`
	Term      uint64    `json:"term"`
	Preferred string    `json:"preferred"`
	Pinned    bool      `json:"pinned" doc:"An operator chose the preferred leader."`
	Formed    bool      `json:"formed"`
	Quorum    bool      `json:"quorum"`
	Applied   uint64    `json:"applied" doc:"The newest entry that the leader has applied."`
	Replicas  []Replica `json:"replicas" nullable:"false"`
	Move      uint64    `json:"move,omitempty" doc:"The move under way."`
}

// Replica is a replica of a group.
type Replica struct {
	Node    string  `json:"node"`
	Voter   bool    `json:"voter"`
	Leaving bool    `json:"leaving,omitempty"`
	Lost    bool    `json:"lost,omitempty" doc:"Its node lost its data."`
	Lag     *uint64 `json:"lag,omitempty" doc:"Entries behind the leader; absent when not known."`
}

// Move is a move under way.
type Move struct {
	ID        uint64    `json:"id"`
	Group     uint16    `json:"group"`
	Phase     string    `json:"phase" enum:"join,promote,leave,withdraw"`
	Reason    string    `json:"reason"`
	From      string    `json:"from,omitempty"`
	To        []string  `json:"to,omitempty"`
	StartedAt time.Time `json:"started_at"`
}

// Rebalance is one that is under way.
type Rebalance struct {
	ID        uint64    `json:"id"`
	StartedAt time.Time `json:"started_at"`
	Planned   int       `json:"planned"`
	Remaining int       `json:"remaining" doc:"Changes that are not over yet."`
}

// Relocation is a replica that is to go from one node to another.
type Relocation struct {
	Group  uint16 `json:"group"`
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

// Lease is the right to archive a group.
type Lease struct {
	Group     uint16     `json:"group"`
	Epoch     uint64     `json:"epoch"`
	Holder    string     `json:"holder" doc:"Empty when nobody holds it."`
	GrantedAt *time.Time `json:"granted_at,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When the holder stops to trust it, unless it renews it before."`
}

// Event is something that happened.
type Event struct {
	ID     uint64    `json:"id"`
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Node   string    `json:"node,omitempty"`
	Group  *uint16   `json:"group,omitempty"`
	Move   uint64    `json:"move,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

func statusOf(o *member.Overview) *Status {
	s := &Status{
		ClusterID: o.State.ClusterID, ReplicationFactor: o.State.ReplicationFactor,
		Control: Control{Leader: o.Status.Leader, Term: o.Status.Term},
		Groups:  GroupCounts{Placed: o.Status.Groups.Placed, Formed: o.Status.Groups.Formed, Short: o.Status.Groups.Short, NoQuorum: []uint16{}},
		Moves:   MoveCounts{UnderWay: len(o.State.Moves()), Due: len(o.Due), Finished: o.State.MovesFinished, Aborted: o.State.MovesAborted},
	}
	for _, id := range slices.Sorted(maps.Keys(o.Status.Members)) {
		s.Control.Members = append(s.Control.Members, ControlMember{ID: id, Address: o.Status.Members[id]})
	}
	if len(s.Control.Members) == 0 {
		s.Control.Members = []ControlMember{{ID: o.Status.ID}}
	}
	for i := range o.Status.Nodes {
		switch nodeState(&o.Status.Nodes[i]) {
		case "up":
			s.Nodes.Up++
		case "draining":
			s.Nodes.Draining++
		case "removed":
			s.Nodes.Removed++
		default:
			s.Nodes.Down++
		}
	}
	for number, health := range o.Groups {
		if health.Leader != "" {
			s.Groups.Led++
		}
		if o.State.Placed[number].Formed && !health.Quorum {
			s.Groups.NoQuorum = append(s.Groups.NoQuorum, uint16(number))
		}
		if o.State.Lease(uint16(number)).Holder != "" && time.Now().Before(o.LeaseUntil[number]) {
			s.Leases++
		}
	}
	s.Healthy = s.Nodes.Down == 0 && s.Groups.Placed == catalog.Groups && s.Groups.Led == s.Groups.Placed && len(s.Groups.NoQuorum) == 0
	return s
}

func nodeState(n *member.NodeStatus) string {
	switch {
	case n.State == catalog.NodeRemoved, n.State == catalog.NodeDraining:
		return string(n.State)
	case n.Liveness == "alive":
		return "up"
	case n.Liveness == "silent":
		return "down"
	}
	return "unknown"
}

func nodesOf(o *member.Overview) []Node {
	lost := make(map[rpc.NodeID]int)
	for number := range o.State.Placed {
		for _, replica := range o.State.Placed[number].Replicas {
			if !o.State.Intact(replica) {
				lost[replica.Node]++
			}
		}
	}
	nodes := []Node{}
	for i := range o.Status.Nodes {
		n := &o.Status.Nodes[i]
		node := Node{
			ID: string(n.ID), State: nodeState(n), Alive: n.Liveness == "alive", Zone: n.Zone, Address: n.Address, Version: n.Version,
			Weight: o.State.Nodes[n.ID].Weight, Replicas: n.Replicas, Preferred: n.Preferred, Lost: lost[n.ID],
			MaxLag: n.MaxLag, DiskUsed: n.DiskUsed, DiskFree: n.DiskFree, FirstSeen: n.FirstSeen,
		}
		if node.Alive {
			node.Leaders = n.Leads
		}
		if !n.LastSeen.IsZero() {
			at := n.LastSeen.UTC()
			node.LastSeen = &at
		}
		nodes = append(nodes, node)
	}
	return nodes
}

func groupsOf(o *member.Overview) []Group {
	groups := []Group{}
	for number, health := range o.Groups {
		placed := &o.State.Placed[number]
		group := Group{
			Group: uint16(number), Leader: string(health.Leader), Term: health.Term, Preferred: string(placed.Preferred), Pinned: placed.Pinned,
			Formed: placed.Formed, Quorum: health.Quorum, Applied: health.Applied, Replicas: []Replica{},
		}
		if placed.Move != nil {
			group.Move = placed.Move.ID
		}
		for _, r := range placed.Replicas {
			replica := Replica{Node: string(r.Node), Voter: r.Voter, Leaving: r.Leaving, Lost: !o.State.Intact(r)}
			if lag, known := health.Lags[r.Node]; known {
				replica.Lag = &lag
			}
			group.Replicas = append(group.Replicas, replica)
		}
		groups = append(groups, group)
	}
	return groups
}

func movesOf(o *member.Overview) []Move {
	moves := []Move{}
	under := o.State.Moves()
	for _, number := range slices.Sorted(maps.Keys(under)) {
		moves = append(moves, moveOf(number, under[number]))
	}
	slices.SortFunc(moves, func(a, b Move) int { return int(a.ID) - int(b.ID) })
	return moves
}

func moveOf(group uint16, m *catalog.Move) Move {
	move := Move{ID: m.ID, Group: group, Phase: string(m.Phase), Reason: string(m.Reason), From: string(m.Leave), StartedAt: m.StartedAt}
	for _, id := range m.Join {
		move.To = append(move.To, string(id))
	}
	return move
}

func rebalanceOf(o *member.Overview) *Rebalance {
	r := o.State.Rebalance
	if r == nil {
		return nil
	}
	return &Rebalance{ID: r.ID, StartedAt: r.StartedAt, Planned: r.Planned, Remaining: len(o.Due) + len(o.State.Moves())}
}

func relocationsOf(due []reconcile.Relocation) []Relocation {
	out := []Relocation{}
	for _, r := range due {
		out = append(out, Relocation{Group: r.Group, From: string(r.From), To: string(r.To), Reason: string(r.Reason)})
	}
	return out
}

func leasesOf(o *member.Overview) []Lease {
	leases := []Lease{}
	for number, l := range o.State.Leases {
		lease := Lease{Group: uint16(number), Epoch: l.Epoch, Holder: string(l.Holder)}
		if l.Holder != "" {
			granted, expires := l.GrantedAt, o.LeaseUntil[number].UTC()
			lease.GrantedAt, lease.ExpiresAt = &granted, &expires
		}
		leases = append(leases, lease)
	}
	return leases
}

func eventsOf(o *member.Overview, after uint64, limit int) []Event {
	events := []Event{}
	for _, e := range o.State.Events {
		if e.ID > after {
			events = append(events, Event{
				ID: e.ID, At: e.At, Kind: string(e.Kind), Node: string(e.Node), Group: e.Group, Move: e.Move, Detail: e.Detail,
			})
		}
	}
	// The newest of those after nothing, the oldest of those after something, so
	// that a reader that follows misses none.
	if len(events) > limit && after == 0 {
		return events[len(events)-limit:]
	}
	return events[:min(limit, len(events))]
}
