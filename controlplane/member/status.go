package member

import (
	"maps"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Status describes a member at one moment. What only a leader knows is zero on
// the others.
type Status struct {
	ID            string
	State         string // follower, candidate, leader or shutdown
	Term          uint64
	Leader        string
	LeaderAddress string
	LastIndex     uint64
	CommitIndex   uint64
	AppliedIndex  uint64
	// Members are the addresses of all members by id; without any for a member
	// that is alone.
	Members map[string]string
	// Problem is why the member does not do its part, or nil.
	Problem error

	ClusterID         string
	ReplicationFactor int
	Groups            GroupCounts
	Moves             MoveCounts
	Nodes             []NodeStatus // ascending by id

	// Leading says that this member leads; the rest is then known.
	Leading      bool
	TableVersion uint64
}

// GroupCounts counts groups.
type GroupCounts struct {
	Placed int
	Formed int
	// Lost have been formed and have no replica left that kept its data.
	Lost int
	// NoQuorum have been formed, and the replicas that kept their data are no
	// majority of the voters.
	NoQuorum int
	// Short have been formed and have fewer replicas that kept their data than
	// the replication factor.
	Short int
	// Led have a leader that is alive. Known to the leader only.
	Led int
}

// MoveCounts counts moves of replicas: those under way by phase, and those that
// were completed or taken back since the cluster was created.
type MoveCounts struct {
	Joining     int
	Promoting   int
	Leaving     int
	Withdrawing int
	Finished    uint64
	Aborted     uint64
}

// InFlight is how many moves are under way.
func (c MoveCounts) InFlight() int { return c.Joining + c.Promoting + c.Leaving + c.Withdrawing }

func countMoves(state *catalog.State) MoveCounts {
	counts := MoveCounts{Finished: state.MovesFinished, Aborted: state.MovesAborted}
	for _, move := range state.Moves() {
		switch move.Phase {
		case catalog.PhaseJoin:
			counts.Joining++
		case catalog.PhasePromote:
			counts.Promoting++
		case catalog.PhaseLeave:
			counts.Leaving++
		case catalog.PhaseWithdraw:
			counts.Withdrawing++
		}
	}
	return counts
}

// NodeStatus describes a registered data node.
type NodeStatus struct {
	rpc.NodeInfo
	State      catalog.NodeState
	Generation uint32
	FirstSeen  time.Time
	Assigned   uint64
	Replicas   int // placed on it
	Preferred  int // groups it should lead

	// The rest is known to the leader only.
	Liveness string // alive, silent, or unknown while the leader is new
	LastSeen time.Time
	Hosted   int    // replicas it reported
	Leads    int    // groups it reported to lead
	MaxLag   uint64 // most entries any of its replicas had yet to apply
	// DiskUsed and DiskFree are in bytes, 0 when the node does not say.
	DiskUsed, DiskFree uint64
}

// Status returns what the member knows.
func (s *Server) Status() Status {
	raft := s.consensus.Status()
	leadership, _ := s.consensus.Leadership()
	state := s.catalog.State()
	status := Status{
		ID:                s.cfg.ID,
		State:             raft.State,
		Members:           maps.Clone(s.cfg.Peers),
		Term:              raft.Term,
		Leader:            leadership.LeaderID,
		LeaderAddress:     leadership.LeaderAddress,
		LastIndex:         raft.LastIndex,
		CommitIndex:       raft.CommitIndex,
		AppliedIndex:      raft.AppliedIndex,
		Problem:           raft.StorageError,
		ClusterID:         state.ClusterID,
		ReplicationFactor: state.ReplicationFactor,
	}
	if err := s.fit(); err != nil {
		status.Problem = err
	}
	status.countPlacement(state)
	if t, _ := s.tenure.get(); t != nil {
		status.Leading = true
		status.addTenure(t)
	}
	if current, _ := s.table.get(); current != nil {
		status.TableVersion = current.table.Version
	}
	return status
}

// Ready returns nil when the control plane has a leader that this member knows
// and this member does its part, else why not.
func (s *Server) Ready() error {
	status := s.Status()
	switch {
	case s.ctx.Err() != nil:
		return rpc.ErrClosed
	case status.Problem != nil:
		return status.Problem
	case status.Leader == "":
		return rpc.ErrUnavailable
	}
	return nil
}

func (s *Status) countPlacement(state *catalog.State) {
	s.Moves = countMoves(state)
	unwell := healthOf(state)
	s.Groups.Lost, s.Groups.NoQuorum = unwell.lost, unwell.noQuorum
	at := make(map[rpc.NodeID]int, len(state.Nodes))
	for i, id := range state.NodeIDs() {
		node := state.Nodes[id]
		at[id] = i
		s.Nodes = append(s.Nodes, NodeStatus{
			NodeInfo: node.Info(), State: node.State, Generation: node.Generation,
			FirstSeen: node.FirstSeen, Assigned: node.Assigned,
		})
	}
	for number := range state.Placed {
		group := &state.Placed[number]
		if len(group.Replicas) == 0 {
			continue
		}
		s.Groups.Placed++
		intact := 0
		for _, replica := range group.Replicas {
			s.Nodes[at[replica.Node]].Replicas++
			if state.Intact(replica) {
				intact++
			}
		}
		if i, known := at[group.Preferred]; known {
			s.Nodes[i].Preferred++
		}
		if group.Formed {
			s.Groups.Formed++
			if intact < state.ReplicationFactor {
				s.Groups.Short++
			}
		}
	}
}

func (s *Status) addTenure(t *tenure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for i := range s.Nodes {
		node := &s.Nodes[i]
		node.Liveness = t.liveness(node.ID, now).String()
		if session := t.sessions[node.ID]; session != nil {
			node.LastSeen = session.seen
			node.Hosted, node.Leads, node.MaxLag = session.hosted, session.leading, session.lag
			node.DiskUsed, node.DiskFree = session.diskUsed, session.diskFree
		}
	}
	for _, hint := range t.leaders {
		if hint.node != "" && t.liveness(hint.node, now) == alive {
			s.Groups.Led++
		}
	}
}
