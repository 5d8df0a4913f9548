package catalog

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// MovePhase is how far a move has come.
type MovePhase string

// The phases of a move:
//
//	join ─▶ promote ─▶ leave ─▶ over        replicas join, one leaves
//	join ─▶ promote ─────────▶ over         replicas join
//	                   leave ─▶ over        a replica leaves
//	join, promote ─▶ withdraw ─▶ over       the move was aborted
//
// A phase says what the group's leader should make of its membership. The move
// goes on when that leader has reported that it did.
const (
	// PhaseJoin: the newcomers are to be added without a vote, and catch up.
	PhaseJoin MovePhase = "join"
	// PhasePromote: the newcomers are to vote.
	PhasePromote MovePhase = "promote"
	// PhaseLeave: the leaver is to be removed.
	PhaseLeave MovePhase = "leave"
	// PhaseWithdraw: newcomers of an aborted move are to be removed.
	PhaseWithdraw MovePhase = "withdraw"
)

// MoveReason is why a move was started.
type MoveReason string

const (
	// ReasonGrow: the group has fewer replicas than it should.
	ReasonGrow MoveReason = "grow"
	// ReasonLost: a node came back without the data of its replica.
	ReasonLost MoveReason = "lost"
	// ReasonRepair: a node has been silent for too long.
	ReasonRepair MoveReason = "repair"
	// ReasonDrain: a node is to hold nothing.
	ReasonDrain MoveReason = "drain"
	// ReasonRebalance: an operator has asked for replicas to be evened out.
	ReasonRebalance MoveReason = "rebalance"
	// ReasonOperator: an operator has asked for this very move.
	ReasonOperator MoveReason = "operator"
)

// Move is a change of a group's replicas under way. It is never modified, only
// replaced.
type Move struct {
	// ID is unique in the cluster's life and rises.
	ID     uint64     `json:"id"`
	Reason MoveReason `json:"reason,omitempty"`
	Phase  MovePhase  `json:"phase"`
	// Join are the nodes that get a replica, ascending.
	Join []rpc.NodeID `json:"join,omitempty"`
	// Leave is the node that loses its replica, or empty.
	Leave     rpc.NodeID `json:"leave,omitempty"`
	StartedAt time.Time  `json:"started_at"`
}

func (m *Move) validate(group *Group) error {
	switch m.Phase {
	case PhaseJoin, PhasePromote, PhaseLeave, PhaseWithdraw:
	default:
		return fmt.Errorf("move %d is in phase %q", m.ID, m.Phase)
	}
	if m.ID == 0 || len(m.Join) == 0 && m.Leave == "" {
		return errors.New("move of nothing")
	}
	for _, id := range m.Join {
		if !group.Holds(id) {
			return fmt.Errorf("move %d joins %q, which has no replica", m.ID, id)
		}
	}
	if m.Leave != "" && !group.Holds(m.Leave) {
		return fmt.Errorf("move %d leaves %q, which has no replica", m.ID, m.Leave)
	}
	return nil
}

// Members returns the membership that the group's leader should converge to:
// the replicas without those that are leaving.
func (g *Group) Members() []Replica {
	members := make([]Replica, 0, len(g.Replicas))
	for _, replica := range g.Replicas {
		if !replica.Leaving {
			members = append(members, replica)
		}
	}
	return members
}

// prefersMember reports whether the node that should lead is a voter that stays.
func (g *Group) prefersMember() bool {
	preferred := g.replica(g.Preferred)
	return preferred != nil && preferred.Voter && !preferred.Leaving
}

// Intact reports whether a replica's node still has the data directory on which
// the replica was placed.
func (s *State) Intact(replica Replica) bool {
	return s.Nodes[replica.Node].Generation == replica.Generation
}

// Moves returns the moves under way by group number.
func (s *State) Moves() map[uint16]*Move {
	moves := make(map[uint16]*Move)
	for number := range s.Placed {
		if move := s.Placed[number].Move; move != nil {
			moves[uint16(number)] = move
		}
	}
	return moves
}

// Moving reports whether any group moves.
func (s *State) Moving() bool {
	return slices.ContainsFunc(s.Placed, func(g Group) bool { return g.Move != nil })
}
