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
		// A replica whose data the node has lost must not come back empty: it
		// would vote as the one that it was. The node gets another one once the
		// group's leader has removed it.
		if own == nil || own.Generation != node.Generation {
			continue
		}
		assignment.Groups = append(assignment.Groups, rpc.GroupAssignment{
			Group:     uint16(number),
			Replicas:  asRPC(group.Members()),
			Preferred: group.Preferred,
			Bootstrap: !group.Formed && group.Bootstrap == id,
		})
		// Those that leave included: until they are gone they may be needed.
		for _, replica := range group.Replicas {
			assignment.Addresses[replica.Node] = s.Nodes[replica.Node].Address
		}
	}
	return assignment, true
}

func asRPC(members []Replica) []rpc.Replica {
	replicas := make([]rpc.Replica, len(members))
	for i, replica := range members {
		replicas[i] = rpc.Replica{Node: replica.Node, Voter: replica.Voter}
	}
	return replicas
}

// serving returns the replicas of a group that can serve: those that vote, or
// are about to and have all that is needed, on nodes that have kept their data.
func (s *State) serving(group *Group) []rpc.Replica {
	var replicas []rpc.Replica
	for _, replica := range group.Replicas {
		if replica.Voter && s.Intact(replica) {
			replicas = append(replicas, rpc.Replica{Node: replica.Node, Voter: true})
		}
	}
	return replicas
}

// Table returns the placement as routers see it, without what only a leader
// knows: the version and who leads. The caller owns the table but not the
// replicas in it.
func (s *State) Table() *rpc.Table {
	table := &rpc.Table{ClusterID: s.ClusterID, Nodes: make(map[rpc.NodeID]rpc.NodeInfo, len(s.Nodes))}
	for id, node := range s.Nodes {
		if node.State != NodeRemoved {
			table.Nodes[id] = node.Info()
		}
	}
	placed := false
	groups := make([]rpc.Placement, len(s.Placed))
	for number := range s.Placed {
		group := &s.Placed[number]
		groups[number] = rpc.Placement{Replicas: s.serving(group), Preferred: group.Preferred}
		placed = placed || len(group.Replicas) > 0
	}
	if placed {
		table.Groups = groups
	}
	return table
}
