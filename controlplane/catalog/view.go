package catalog

import "github.com/fastpaca/fastpaca/controlplane/rpc"

// Info is the node as tables show it.
func (n *Node) Info() rpc.NodeInfo {
	return rpc.NodeInfo{ID: n.ID, Address: n.Address, Zone: n.Zone, Incarnation: n.Incarnation, Version: n.Version}
}

// Assignment returns what a node should host. ok is false for a node that is
// not registered.
func (s *State) Assignment(id rpc.NodeID) (*rpc.Assignment, bool) {
	node, ok := s.Nodes[id]
	if !ok {
		return nil, false
	}
	assignment := &rpc.Assignment{ClusterID: s.ClusterID, Version: node.Assigned, Addresses: map[rpc.NodeID]string{}}
	for number := range s.Placed {
		group := &s.Placed[number]
		own := group.replica(id)
		if own == nil {
			continue
		}
		assignment.Groups = append(assignment.Groups, rpc.GroupAssignment{
			Group:     uint16(number),
			Replicas:  group.RPC(),
			Preferred: group.Preferred,
			// A node that lost its data since cannot know whether it had
			// formed the group, so it does not form it again.
			Bootstrap: !group.Formed && group.Bootstrap == id && own.Generation == node.Generation,
		})
		for _, replica := range group.Replicas {
			assignment.Addresses[replica.Node] = s.Nodes[replica.Node].Address
		}
	}
	return assignment, true
}

// RPC returns the group's replicas as tables and assignments show them.
func (g *Group) RPC() []rpc.Replica {
	replicas := make([]rpc.Replica, len(g.Replicas))
	for i, replica := range g.Replicas {
		replicas[i] = rpc.Replica{Node: replica.Node, Voter: replica.Voter}
	}
	return replicas
}

// Table returns the placement as routers see it, without what only a leader
// knows: the version and who leads. The caller owns the table but not the
// replicas in it.
func (s *State) Table() *rpc.Table {
	table := &rpc.Table{ClusterID: s.ClusterID, Nodes: make(map[rpc.NodeID]rpc.NodeInfo, len(s.Nodes))}
	for id, node := range s.Nodes {
		table.Nodes[id] = node.Info()
	}
	placed := false
	groups := make([]rpc.Placement, len(s.Placed))
	for number := range s.Placed {
		group := &s.Placed[number]
		groups[number] = rpc.Placement{Replicas: group.RPC(), Preferred: group.Preferred}
		placed = placed || len(group.Replicas) > 0
	}
	if placed {
		table.Groups = groups
	}
	return table
}
