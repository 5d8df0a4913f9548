package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/placement"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// memo keeps the last plan that was made, for as long as nothing it depends on
// has changed: decisions are asked for with every report.
type memo struct {
	key     string
	changes []placement.Change
}

// relocation is one change that is due, by the real number of its group.
type relocation struct {
	group    uint16
	from, to rpc.NodeID
	reason   catalog.MoveReason
}

// relocate starts moves away from nodes that drain or have been silent for too
// long, and those that even replicas out while a rebalance is under way.
func (s *starter) relocate() {
	if !s.steady() {
		return
	}
	due := make(map[uint16]relocation)
	for _, r := range s.relocations(s.State.Rebalance != nil) {
		if _, taken := due[r.group]; !taken {
			due[r.group] = r
		}
	}
	if len(due) == 0 {
		return
	}
	s.ready(func(number uint16, group *catalog.Group, l *leader) {
		r, found := due[number]
		if !found || !l.settled(group) || s.joins[r.to] >= s.Limits.MaxJoins || s.sends[l.node] >= s.Limits.MaxSends {
			return
		}
		for _, replica := range group.Replicas {
			if !s.State.Intact(replica) {
				return // its departure comes first
			}
		}
		s.add(catalog.MoveStart{Group: number, Join: []rpc.NodeID{r.to}, Leave: r.from, Reason: r.reason, Term: l.term}, l)
	})
}

// steady reports whether every node is known to be there or to be gone. A new
// control leader has not heard of most of them yet, and a node that restarts is
// back soon: what is planned without them would be undone with them.
func (v *View) steady() bool {
	for id, node := range v.State.Nodes {
		if life := v.Lives[id]; node.State != catalog.NodeRemoved && !life.Alive && life.Silent <= min(v.Limits.Patience, v.Limits.ReplaceAfter) {
			return false
		}
	}
	return true
}

// relocations plans what is to move, as if the moves under way were over. The
// replicas of nodes that must give them up come first.
func (v *View) relocations(rebalance bool) []relocation {
	members, forced := v.roles()
	if !rebalance && len(forced) == 0 || len(members) == 0 {
		return nil
	}
	numbers, groups, width := v.prospect()
	changes := v.plan(members, groups, width, rebalance)
	var out, later []relocation
	for _, change := range changes {
		if change.From == "" || change.To == "" {
			continue // growth is decided elsewhere, and nothing shrinks
		}
		r := relocation{
			group: numbers[change.Group], from: rpc.NodeID(change.From), to: rpc.NodeID(change.To), reason: catalog.ReasonRebalance,
		}
		if reason, must := forced[r.from]; must {
			r.reason = reason
			out = append(out, r)
			continue
		}
		later = append(later, r)
	}
	return append(out, later...)
}

// plan returns the changes to a better placement, from memory if it can.
func (v *View) plan(members []placement.Member, groups []placement.Group, width int, rebalance bool) []placement.Change {
	var key strings.Builder
	fmt.Fprint(&key, v.State.Revision, rebalance)
	for _, member := range members {
		fmt.Fprint(&key, " ", member.ID, member.Role)
	}
	if last := v.Evidence.planned; last.key == key.String() {
		return last.changes
	}
	replan := placement.Evacuate
	if rebalance {
		replan = placement.Rebalance
	}
	var changes []placement.Change
	// Ids are unique, no group is twice on a node, and somebody stays.
	if plan, err := replan(members, groups, max(1, width)); err == nil {
		changes = plan.Changes
	}
	v.Evidence.planned = memo{key.String(), changes}
	return changes
}

// roles says what may be done with each node, and why those that must give up
// their replicas must. Nobody stays where fewer nodes would remain than a group
// has replicas: then the silent are waited for.
func (v *View) roles() (members []placement.Member, forced map[rpc.NodeID]catalog.MoveReason) {
	forced = make(map[rpc.NodeID]catalog.MoveReason)
	takes, nodes := 0, 0
	for _, id := range v.State.NodeIDs() {
		node, life := v.State.Nodes[id], v.Lives[id]
		if node.State == catalog.NodeRemoved {
			continue
		}
		nodes++
		member := placement.Member{Node: placement.Node{ID: string(id), Zone: node.Zone, Weight: node.Weight}, Role: placement.Keeps}
		switch {
		case node.State == catalog.NodeDraining:
			member.Role, forced[id] = placement.Leaves, catalog.ReasonDrain
		case life.Alive:
			member.Role = placement.Takes
			takes++
		case life.Silent > v.Limits.ReplaceAfter:
			member.Role, forced[id] = placement.Leaves, catalog.ReasonRepair
		}
		members = append(members, member)
	}
	// When most nodes are silent the fault is more likely ours than theirs.
	if takes <= nodes/2 {
		for i := range members {
			if id := rpc.NodeID(members[i].ID); forced[id] == catalog.ReasonRepair {
				delete(forced, id)
				members[i].Role = placement.Keeps
			}
		}
	}
	if takes == 0 {
		return nil, nil
	}
	return members, forced
}

// prospect returns the placement as it will be when the moves under way are
// over: the numbers of the groups that are placed, their replicas, and how many
// of these most groups have at the most.
func (v *View) prospect() (numbers []uint16, groups []placement.Group, width int) {
	for n := range v.State.Placed {
		group := &v.State.Placed[n]
		if len(group.Replicas) == 0 {
			continue
		}
		prospect := placement.Group{Leader: string(group.Preferred)}
		for _, replica := range group.Members() {
			if group.Move == nil || group.Move.Phase == catalog.PhaseWithdraw || replica.Node != group.Move.Leave {
				prospect.Nodes = append(prospect.Nodes, string(replica.Node))
			}
		}
		numbers, groups = append(numbers, uint16(n)), append(groups, prospect)
		width = max(width, len(prospect.Nodes))
	}
	return numbers, groups, width
}

// endRebalance ends the rebalance when nothing is left to do for it.
func (v *View) endRebalance() catalog.Command {
	if v.State.Rebalance == nil || !v.steady() || len(v.relocations(true)) > 0 {
		return nil
	}
	if slices.ContainsFunc(v.State.Placed, func(g catalog.Group) bool { return g.Move != nil }) {
		return nil
	}
	return &catalog.EndRebalance{ID: v.State.Rebalance.ID, At: v.Now}
}

// needless returns why a move that has just begun need not go on, or nothing.
func (v *View) needless(group *catalog.Group) string {
	move := group.Move
	if move.Phase != catalog.PhaseJoin || move.Leave == "" {
		return ""
	}
	switch {
	case move.Reason == catalog.ReasonRepair && v.Lives[move.Leave].Alive:
		return "node is back"
	case move.Reason == catalog.ReasonDrain && v.State.Nodes[move.Leave].State == catalog.NodeActive:
		return "node is no longer drained"
	}
	return ""
}
