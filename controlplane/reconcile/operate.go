package reconcile

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Why a wish of an operator cannot be fulfilled now; see package catalog for
// reasons that do not depend on who is alive.
var (
	// ErrNoLeader: the group's leader is not in session, or has not settled.
	ErrNoLeader = errors.New("group has no settled leader in session")
	// ErrNodeDown: the node is silent.
	ErrNodeDown = errors.New("node is down")
	// ErrUnsafe: the group would be without a quorum.
	ErrUnsafe = errors.New("group would lose its quorum")
	// ErrTooLate: the move has come too far to be taken back.
	ErrTooLate = errors.New("move has come too far to be aborted")
	// ErrBelongsToDrain: the move would be started again at once.
	ErrBelongsToDrain = errors.New("move belongs to a drain")
)

// Relocation is a replica that would go from one node to another.
type Relocation struct {
	Group    uint16
	From, To rpc.NodeID
	Reason   catalog.MoveReason
}

// Relocations returns what is still to be started, with a rebalance or without.
func (v View) Relocations(rebalance bool) []Relocation {
	v.Limits = v.Limits.withDefaults()
	var out []Relocation
	for _, r := range v.relocations(rebalance) {
		out = append(out, Relocation{Group: r.group, From: r.from, To: r.to, Reason: r.reason})
	}
	return out
}

// CanDrain returns why a node cannot be drained now, or nil.
func (v View) CanDrain(id rpc.NodeID) error {
	node, known := v.State.Nodes[id]
	switch {
	case !known:
		return fmt.Errorf("%w: %q", catalog.ErrUnknownNode, id)
	case node.State == catalog.NodeRemoved:
		return fmt.Errorf("%w: %q", catalog.ErrRemoved, id)
	case node.State == catalog.NodeDraining:
		return nil
	}
	if err := v.State.CanDrain(id); err != nil {
		return err
	}
	alive := 0
	for other, node := range v.State.Nodes {
		if other != id && node.State == catalog.NodeActive && v.Lives[other].Alive {
			alive++
		}
	}
	if width := v.State.Width(); alive < width {
		return fmt.Errorf("%w: %d that are up, for groups of %d replicas", catalog.ErrTooFewNodes, alive, width)
	}
	return nil
}

// Move returns the command that moves a replica of a group from one node to
// another.
func (v View) Move(number uint16, from, to rpc.NodeID) (*catalog.StartMoves, error) {
	group, err := v.State.FormedGroup(number)
	if err != nil {
		return nil, err
	}
	target, known := v.State.Nodes[to]
	if _, knownFrom := v.State.Nodes[from]; !knownFrom {
		return nil, fmt.Errorf("%w: %q", catalog.ErrUnknownNode, from)
	}
	switch {
	case !known:
		return nil, fmt.Errorf("%w: %q", catalog.ErrUnknownNode, to)
	case target.State != catalog.NodeActive:
		return nil, fmt.Errorf("%w: %q", catalog.ErrNotActive, to)
	case group.Holds(to):
		return nil, fmt.Errorf("%w: %q, group %d", catalog.ErrHasReplica, to, number)
	case !group.Holds(from):
		return nil, fmt.Errorf("%w: %q in group %d", catalog.ErrNoReplica, from, number)
	case !v.Lives[to].Alive:
		return nil, fmt.Errorf("%w: %q", ErrNodeDown, to)
	}
	l := v.leader(number)
	if l == nil || !l.settled(group) {
		return nil, fmt.Errorf("%w: group %d", ErrNoLeader, number)
	}
	return &catalog.StartMoves{At: v.Now, Moves: []catalog.MoveStart{{
		Group: number, Join: []rpc.NodeID{to}, Leave: from, Reason: catalog.ReasonOperator, Term: l.term,
	}}}, nil
}

// Abort returns the command that takes a move back, or nil when it is being
// taken back already. What it was part of, a rebalance, has to be ended as well.
func (v View) Abort(id uint64) (*catalog.AbortMoves, error) {
	for n := range v.State.Placed {
		group := &v.State.Placed[n]
		move := group.Move
		if move == nil || move.ID != id {
			continue
		}
		stay := slices.DeleteFunc(slices.Clone(move.Join), func(id rpc.NodeID) bool {
			replica, held := find(group, id)
			return !held || replica.Leaving
		})
		switch {
		case move.Phase == catalog.PhaseLeave || len(move.Join) == 0:
			return nil, fmt.Errorf("%w: move %d", ErrTooLate, id)
		case len(stay) == 0:
			return nil, nil
		case move.Reason == catalog.ReasonDrain && v.State.Nodes[move.Leave].State == catalog.NodeDraining:
			return nil, fmt.Errorf("%w: of node %q", ErrBelongsToDrain, move.Leave)
		case move.Phase != catalog.PhaseJoin && !v.withdrawableAll(uint16(n), group):
			return nil, fmt.Errorf("%w: move %d of group %d", ErrUnsafe, id, n)
		}
		return &catalog.AbortMoves{At: v.Now, Moves: []catalog.MoveAbort{{
			Group: uint16(n), Move: id, Nodes: stay, Reason: "an operator asked for it",
		}}}, nil
	}
	return nil, fmt.Errorf("%w: %d", catalog.ErrUnknownMove, id)
}

// withdrawableAll reports whether the group keeps a quorum without any of the
// newcomers.
func (v *View) withdrawableAll(number uint16, group *catalog.Group) bool {
	l := v.leader(number)
	return l != nil && v.safe(number, l, nil, func(id rpc.NodeID) bool { return slices.Contains(group.Move.Join, id) })
}

// Health is how a group stands, by who is alive.
type Health struct {
	// Leader is who leads it and can be believed, or empty.
	Leader rpc.NodeID
	Term   uint64
	// Quorum: most voters live on nodes that have kept their data.
	Quorum bool
	// Applied is what the leader has applied.
	Applied uint64
	// Lags are the entries that each replica was behind the leader in its last
	// report; of those that reported.
	Lags map[rpc.NodeID]uint64
}

// Health returns how a group stands.
func (v View) Health(number uint16) Health {
	group := &v.State.Placed[number]
	h := Health{Lags: make(map[rpc.NodeID]uint64)}
	l := v.leader(number)
	if l != nil {
		h.Leader, h.Term, h.Applied = l.node, l.term, l.applied
	}
	voters, good := 0, 0
	for _, replica := range group.Replicas {
		if replica.Voter {
			voters++
			if v.Lives[replica.Node].Alive && v.State.Intact(replica) {
				good++
			}
		}
		w := v.Evidence.nodes[replica.Node]
		if l == nil || w == nil || w.generation != replica.Generation {
			continue
		}
		lag := uint64(0)
		if applied := w.replicas[number].applied; applied < l.applied {
			lag = l.applied - applied
		}
		h.Lags[replica.Node] = lag
	}
	h.Quorum = good > voters/2
	return h
}
