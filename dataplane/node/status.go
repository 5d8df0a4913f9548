package node

import (
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Status is what a node knows of itself, for readiness and operators.
type Status struct {
	Joined   bool // the node was told what to host, in this run or before it
	Assigned int  // groups it was told to host
	Open     int  // replicas running
	Leading  int  // replicas that lead and may serve
	// Leaderless are the hosted groups whose leader this node does not know.
	Leaderless []rpc.Group
	// Failed are the hosted groups whose replica stopped because of its storage.
	Failed []rpc.Group
	// Storage is nil, or why nothing can be written.
	Storage error
}

// Status returns the state of this moment.
func (n *Node) Status() Status {
	s := Status{Storage: n.engine.Health()}
	if a := n.assigned.Load(); a != nil {
		s.Joined, s.Assigned = true, len(a.Groups)
	}
	for i := range n.groups {
		g := n.groups[i].Load()
		if g == nil {
			continue
		}
		s.Open++
		switch {
		case g.Failure() != nil:
			s.Failed = append(s.Failed, rpc.Group(i))
		case g.Leading():
			s.Leading++
		case g.Leader() == "" || g.Leader() == n.conf.ID:
			s.Leaderless = append(s.Leaderless, rpc.Group(i))
		}
	}
	return s
}
