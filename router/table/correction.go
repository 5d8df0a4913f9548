package table

import (
	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	data "github.com/fastpaca/fastpaca/dataplane/rpc"
)

// correction overrides the leader of one group.
type correction struct {
	leader control.NodeID
	// instead is the leader the table itself named when the correction was
	// made. The correction holds only while the table still names it: a table
	// that names another leader has newer news of the group, while a table that
	// is newer for the sake of other groups says nothing about this one.
	instead control.NodeID
}

// Correct takes a data node's word that leader leads the group. believed is the
// leader that the caller's Lookup returned; when the table has moved on from it
// in the meantime, nothing is changed. It reports whether another Lookup is
// worth making at once, which is not so when the hint names a node that holds
// no replica or that was believed already.
func (t *Table) Correct(g data.Group, believed, leader control.NodeID) bool {
	v := t.view.Load()
	if v == nil || int(g) >= len(v.routes) {
		return false
	}
	route, old := v.routes[g], t.corrections[g].Load()
	if now, _ := t.Lookup(g); now.LeaderID() != believed {
		return true
	}
	if leader == believed || route.replica(leader) == nil {
		return false
	}
	var next *correction // none when the table itself names the hinted leader
	if instead := route.LeaderID(); instead != leader {
		next = &correction{leader: leader, instead: instead}
	}
	// When the swap fails another caller has just corrected the group.
	t.corrections[g].CompareAndSwap(old, next)
	return true
}

// Forget drops a correction that names the node as leader of the group, because
// the node could not be reached or does not lead either.
func (t *Table) Forget(g data.Group, id control.NodeID) {
	if int(g) >= len(t.corrections) {
		return
	}
	if c := t.corrections[g].Load(); c != nil && c.leader == id {
		t.corrections[g].CompareAndSwap(c, nil)
	}
}

// dropOutdated removes corrections that a new view overrides, so that they do
// not come back to life when leadership later returns to where it was.
func (t *Table) dropOutdated(v *view) {
	for g := range t.corrections {
		if c := t.corrections[g].Load(); c != nil && c.instead != v.routes[g].LeaderID() {
			t.corrections[g].CompareAndSwap(c, nil)
		}
	}
}
