package reconcile

import (
	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// advance returns the steps that moves can take now.
func (v *View) advance() catalog.Command {
	command := &catalog.AdvanceMoves{At: v.Now}
	for number := range v.State.Placed {
		group := &v.State.Placed[number]
		if group.Move == nil {
			continue
		}
		l := v.leader(uint16(number))
		if l == nil || !v.done(uint16(number), group, l) {
			continue
		}
		command.Steps = append(command.Steps, catalog.MoveStep{
			Group: uint16(number), Move: group.Move.ID, From: group.Move.Phase, Term: l.term,
			Preferred: v.successor(group),
		})
	}
	if len(command.Steps) == 0 {
		return nil
	}
	return command
}

// done reports whether a move's phase is over and the next one can begin.
func (v *View) done(number uint16, group *catalog.Group, l *leader) bool {
	move := group.Move
	switch move.Phase {
	case catalog.PhaseJoin:
		for _, id := range move.Join {
			replica, _ := find(group, id)
			_, present := l.member(id)
			if !present || !v.State.Intact(replica) || !v.Lives[id].Alive ||
				!v.Evidence.caughtUp(number, replica, v.Limits.Stable) {
				return false
			}
		}
		return v.safe(number, l, move.Join, nobody)
	case catalog.PhasePromote:
		for _, id := range move.Join {
			if voter, _ := l.member(id); !voter {
				return false
			}
		}
		return move.Leave == "" || v.safe(number, l, nil, func(id rpc.NodeID) bool { return id == move.Leave })
	}
	return v.gone(group, l)
}

// gone reports whether the replicas that leave are out of the group for good: the
// leader says so, and no other replica that lives still follows an assignment
// that has them, as it could lead next and add them again. Only then may their
// nodes delete them.
func (v *View) gone(group *catalog.Group, l *leader) bool {
	for _, replica := range group.Replicas {
		_, present := l.member(replica.Node)
		switch {
		case replica.Leaving && present:
			return false
		case !replica.Leaving && v.State.Intact(replica) && v.Lives[replica.Node].Alive &&
			!v.Evidence.follows(replica.Node, group.Step):
			return false
		}
	}
	return true
}

// successor returns who should lead when the one who should is leaving, or
// nobody when that need not change.
func (v *View) successor(group *catalog.Group) rpc.NodeID {
	leaving := func(replica catalog.Replica) bool {
		return replica.Leaving || replica.Node == group.Move.Leave && group.Move.Phase == catalog.PhasePromote
	}
	if replica, held := find(group, group.Preferred); held && replica.Voter && !leaving(replica) {
		return ""
	}
	return v.leastLeading(group, leaving)
}

// leastLeading returns the voter of the group that should lead the fewest groups.
func (v *View) leastLeading(group *catalog.Group, leaving func(catalog.Replica) bool) rpc.NodeID {
	leads := make(map[rpc.NodeID]int)
	for number := range v.State.Placed {
		leads[v.State.Placed[number].Preferred]++
	}
	var best rpc.NodeID
	for _, replica := range group.Replicas {
		if !replica.Voter || leaving(replica) || !v.State.Intact(replica) {
			continue
		}
		if best == "" || leads[replica.Node] < leads[best] {
			best = replica.Node
		}
	}
	return best
}

// abort takes back the moves whose newcomers cannot arrive, for they lost their
// data on the way or have been silent for too long, and those that have lost
// their reason before anybody voted. A newcomer that
// may vote already is a leaver like any other: it goes only if the group can do
// without, and newcomers that are well stay.
func (v *View) abort() catalog.Command {
	command := &catalog.AbortMoves{At: v.Now}
	for number := range v.State.Placed {
		group := &v.State.Placed[number]
		if group.Move == nil || group.Move.Phase == catalog.PhaseLeave {
			continue
		}
		node, reason := v.hopeless(group)
		if why := v.needless(group); node == "" && why != "" {
			node, reason = group.Move.Join[0], why
		}
		if node == "" || !v.withdrawable(uint16(number), group, node) {
			continue
		}
		command.Moves = append(command.Moves, catalog.MoveAbort{
			Group: uint16(number), Move: group.Move.ID, Nodes: []rpc.NodeID{node}, Reason: reason,
		})
	}
	if len(command.Moves) == 0 {
		return nil
	}
	return command
}

// hopeless returns a newcomer that cannot arrive and why, the one that lost its
// data before one that is silent.
func (v *View) hopeless(group *catalog.Group) (node rpc.NodeID, reason string) {
	for _, id := range group.Move.Join {
		replica, held := find(group, id)
		switch {
		case !held || replica.Leaving:
		case !v.State.Intact(replica):
			return id, "node lost its data"
		case v.Lives[id].Silent > v.Limits.Patience:
			node, reason = id, "node is silent"
		}
	}
	return node, reason
}

// withdrawable reports whether the group keeps a quorum without the newcomer and
// those that leave already.
func (v *View) withdrawable(number uint16, group *catalog.Group, node rpc.NodeID) bool {
	if group.Move.Phase == catalog.PhaseJoin {
		return true // nobody of them has a vote
	}
	l := v.leader(number)
	return l != nil && v.safe(number, l, nil, func(id rpc.NodeID) bool {
		replica, _ := find(group, id)
		return id == node || replica.Leaving
	})
}
