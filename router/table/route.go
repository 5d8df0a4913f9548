package table

import (
	"fmt"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	data "github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Node is a data node as a router needs it.
type Node struct {
	ID      control.NodeID
	Address string
	Zone    string
}

// Route tells where a group lives. What it points to belongs to the table and
// must not be modified.
type Route struct {
	// Leader is the node believed to lead: the last reported one, or the
	// preferred one while none was reported. It is nil when neither is known.
	Leader *Node
	// Replicas are the nodes that hold the group, ascending by id.
	Replicas []*Node
}

// LeaderID is the id of the leader, or empty.
func (r Route) LeaderID() control.NodeID {
	if r.Leader == nil {
		return ""
	}
	return r.Leader.ID
}

func (r Route) replica(id control.NodeID) *Node {
	for _, n := range r.Replicas {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// view is one placement table, resolved for lookups and never modified.
type view struct {
	cluster string
	version uint64
	nodes   map[control.NodeID]*Node
	routes  [data.Groups]Route
}

// newView resolves a table. It refuses one that does not place every group,
// because half a table would turn a control plane fault into lost groups.
func newView(t *control.Table) (*view, error) {
	if len(t.Groups) != data.Groups {
		return nil, fmt.Errorf("placement table %d places %d groups, want %d", t.Version, len(t.Groups), data.Groups)
	}
	v := &view{
		cluster: t.ClusterID,
		version: t.Version,
		nodes:   make(map[control.NodeID]*Node, len(t.Nodes)),
	}
	for id, info := range t.Nodes {
		v.nodes[id] = &Node{ID: id, Address: info.Address, Zone: info.Zone}
	}
	for g, p := range t.Groups {
		route := Route{Replicas: make([]*Node, 0, len(p.Replicas))}
		for _, replica := range p.Replicas {
			if n := v.nodes[replica.Node]; n != nil {
				route.Replicas = append(route.Replicas, n)
			}
		}
		if route.Leader = route.replica(p.Leader); route.Leader == nil {
			route.Leader = route.replica(p.Preferred)
		}
		v.routes[g] = route
	}
	return v, nil
}
