package reconcile

import (
	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/placement"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Next returns the command that is due, or nil. It asks for nothing that the
// state does not allow, so a command is refused only when the state has changed
// meanwhile. Steps of moves under way come before new moves; departures of lost
// replicas before growth, repair and drains, and these before a rebalance;
// leaders come last.
func Next(v View) catalog.Command {
	v.Limits = v.Limits.withDefaults()
	for _, due := range []func() catalog.Command{v.abort, v.advance, v.start, v.endRebalance, v.balanceLeaders} {
		if command := due(); command != nil {
			return command
		}
	}
	return nil
}

// starter gathers moves to start within the limits.
type starter struct {
	*View
	command  *catalog.StartMoves
	moves    int                // moves under way, the new ones included
	joins    map[rpc.NodeID]int // newcomers on each node
	sends    map[rpc.NodeID]int // moves whose newcomers each node feeds
	replicas map[string]int     // all replicas on each node
}

// start returns new moves.
func (v *View) start() catalog.Command {
	s := &starter{
		View: v, command: &catalog.StartMoves{At: v.Now},
		joins: make(map[rpc.NodeID]int), sends: make(map[rpc.NodeID]int), replicas: make(map[string]int),
	}
	for number := range v.State.Placed {
		group := &v.State.Placed[number]
		for _, replica := range group.Replicas {
			s.replicas[string(replica.Node)]++
		}
		if group.Move != nil {
			s.moves++
			for _, id := range group.Move.Join {
				s.joins[id]++
			}
			if len(group.Move.Join) > 0 {
				s.sends[s.feeder(uint16(number), group)]++
			}
		}
	}
	s.dropLost()
	s.grow()
	s.relocate()
	if len(s.command.Moves) == 0 {
		return nil
	}
	return s.command
}

// ready calls yield with every group that can start a move for as long as the
// limits allow it.
func (s *starter) ready(yield func(number uint16, group *catalog.Group, l *leader)) {
	started := make(map[uint16]bool, len(s.command.Moves))
	for _, move := range s.command.Moves {
		started[move.Group] = true
	}
	for n := range s.State.Placed {
		number, group := uint16(n), &s.State.Placed[n]
		if s.moves >= s.Limits.MaxMoves {
			return
		}
		if !group.Formed || group.Move != nil || started[number] {
			continue
		}
		if l := s.leader(number); l != nil {
			yield(number, group, l)
		}
	}
}

// feeder returns the node that newcomers of a group are fed by: its leader, or
// who should be while nobody is known.
func (s *starter) feeder(number uint16, group *catalog.Group) rpc.NodeID {
	if l := &s.Evidence.leaders[number]; l.leading {
		return l.node
	}
	return group.Preferred
}

// add starts a move that l, the leader of its group, can carry out.
func (s *starter) add(move catalog.MoveStart, l *leader) {
	s.command.Moves = append(s.command.Moves, move)
	s.moves++
	if len(move.Join) > 0 {
		s.sends[l.node]++
	}
	for _, id := range move.Join {
		s.joins[id]++
		s.replicas[string(id)]++
	}
}

// dropLost starts the departure of replicas whose nodes lost their data, one of a
// group at a time and only where the others keep a quorum. Afterwards the group
// has too few replicas and grows, on the same node or on another.
func (s *starter) dropLost() {
	s.ready(func(number uint16, group *catalog.Group, l *leader) {
		for _, replica := range group.Replicas {
			if s.State.Intact(replica) {
				continue
			}
			lost := func(id rpc.NodeID) bool { return id == replica.Node }
			if !s.safe(number, l, nil, lost) {
				return
			}
			move := catalog.MoveStart{Group: number, Leave: replica.Node, Reason: catalog.ReasonLost, Term: l.term}
			if group.Preferred == replica.Node {
				move.Preferred = s.leastLeading(group, func(r catalog.Replica) bool { return lost(r.Node) })
			}
			s.add(move, l)
			return
		}
	})
}

// grow starts adding replicas to groups that have fewer than they should. A node
// takes part only while it is alive.
func (s *starter) grow() {
	var nodes []placement.Node
	for _, id := range s.State.NodeIDs() {
		if node := s.State.Nodes[id]; node.State == catalog.NodeActive && s.Lives[id].Alive {
			nodes = append(nodes, placement.Node{ID: string(id), Zone: node.Zone, Weight: node.Weight})
		}
	}
	factor := placement.Factor(s.State.ReplicationFactor, len(nodes), s.Expected)
	s.ready(func(number uint16, group *catalog.Group, l *leader) {
		if len(group.Replicas) >= factor || !l.settled(group) || s.sends[l.node] >= s.Limits.MaxSends {
			return
		}
		have := make([]string, len(group.Replicas))
		for i, replica := range group.Replicas {
			if !s.State.Intact(replica) {
				return
			}
			have[i] = string(replica.Node)
		}
		missing := factor - len(have)
		move := catalog.MoveStart{Group: number, Reason: catalog.ReasonGrow, Term: l.term}
		for _, id := range placement.Extend(int(number), have, missing, nodes, s.replicas) {
			if s.joins[rpc.NodeID(id)] >= s.Limits.MaxJoins {
				return
			}
			move.Join = append(move.Join, rpc.NodeID(id))
		}
		// All at once or not at all, so that a group is never left with an even
		// number of replicas for longer than it takes.
		if len(move.Join) == missing {
			s.add(move, l)
		}
	})
}

// balanceLeaders returns who should lead instead of whom for leaders to be even.
// Groups that move, were not formed yet or have a leader that an operator chose
// count, and are left as they are. Nodes that drain lead nothing.
func (v *View) balanceLeaders() catalog.Command {
	var nodes []placement.Node
	for _, id := range v.State.NodeIDs() {
		if node := v.State.Nodes[id]; node.State == catalog.NodeActive {
			nodes = append(nodes, placement.Node{ID: string(id), Weight: node.Weight})
		}
	}
	groups := make([]placement.Group, len(v.State.Placed))
	for number := range v.State.Placed {
		group := &v.State.Placed[number]
		groups[number].Leader = string(group.Preferred)
		if !group.Formed || group.Move != nil || group.Pinned && v.State.Nodes[group.Preferred].State == catalog.NodeActive {
			groups[number].Nodes = []string{string(group.Preferred)}
			continue
		}
		for _, replica := range group.Replicas {
			if replica.Voter && v.State.Intact(replica) {
				groups[number].Nodes = append(groups[number].Nodes, string(replica.Node))
			}
		}
	}
	chosen, err := placement.BalanceLeaders(groups, nodes)
	if err != nil {
		return nil // node ids are unique
	}
	command := &catalog.PreferLeaders{}
	for number, leader := range chosen {
		if leader != "" && leader != groups[number].Leader {
			command.Groups = append(command.Groups, catalog.LeaderChoice{Group: uint16(number), Node: rpc.NodeID(leader)})
		}
	}
	if len(command.Groups) == 0 {
		return nil
	}
	return command
}
