package group

import (
	"github.com/hashicorp/raft"
)

// Member is one replica in the group's Raft configuration.
type Member struct {
	Node  string
	Voter bool
}

// Status is what a replica knows of itself.
type Status struct {
	Leading   bool // leads and may serve reads
	Leader    string
	Term      uint64
	Applied   uint64
	LastIndex uint64
	// Members is the membership as far as it is committed; nil while a change
	// is not. Others delete replicas on its word.
	Members []Member
	Failure error // the replica has stopped
}

// Status returns the replica's state of this moment.
func (g *Group) Status() Status {
	applied, _ := g.machine.Applied()
	s := Status{Applied: applied, Failure: g.failed()}
	r := g.raft.Load()
	if r == nil {
		return s
	}
	s.Leading, s.Leader, s.Term, s.LastIndex = g.Leading(), g.Leader(), r.CurrentTerm(), r.LastIndex()
	future := r.GetConfiguration()
	if future.Error() != nil || r.CommitIndex() < future.Index() {
		return s
	}
	for _, srv := range future.Configuration().Servers {
		s.Members = append(s.Members, Member{Node: string(srv.ID), Voter: srv.Suffrage == raft.Voter})
	}
	return s
}

// Progress returns the index of the newest entry applied, and of the newest in
// the log. It is cheap.
func (g *Group) Progress() (applied, last uint64) {
	applied, _ = g.machine.Applied()
	if r := g.raft.Load(); r != nil {
		last = r.LastIndex()
	}
	return applied, last
}

// servers returns the latest membership this replica knows, committed or not.
func (g *Group) servers() []raft.Server {
	r := g.raft.Load()
	if r == nil {
		return nil
	}
	future := r.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

// SoleVoter reports whether this replica is the only voter of its group.
func (g *Group) SoleVoter() bool {
	voters, self := 0, false
	for _, srv := range g.servers() {
		if srv.Suffrage == raft.Voter {
			voters++
			self = self || string(srv.ID) == g.opts.NodeID
		}
	}
	return self && voters == 1
}
