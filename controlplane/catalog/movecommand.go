package catalog

import (
	"fmt"
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// StartMoves starts moves of groups that do not move yet, all or none of them.
type StartMoves struct {
	Moves []MoveStart `json:"moves"`
	At    time.Time   `json:"at"`
}

// MoveStart is one move to start.
type MoveStart struct {
	Group  uint16       `json:"group"`
	Join   []rpc.NodeID `json:"join,omitempty"`
	Leave  rpc.NodeID   `json:"leave,omitempty"`
	Reason MoveReason   `json:"reason,omitempty"`
	// Term is that of the leader on whose report this is based.
	Term uint64 `json:"term,omitempty"`
	// Preferred is who should lead from now on; empty leaves that as it is. A
	// move that begins with a departure must not prefer the leaver.
	Preferred rpc.NodeID `json:"preferred,omitempty"`
}

// AdvanceMoves takes moves out of the phase they are in, all or none of them.
type AdvanceMoves struct {
	Steps []MoveStep `json:"steps"`
	At    time.Time  `json:"at,omitzero"`
}

// MoveStep takes one move to its next phase, or to its end.
type MoveStep struct {
	Group     uint16     `json:"group"`
	Move      uint64     `json:"move"`
	From      MovePhase  `json:"from"`
	Term      uint64     `json:"term,omitempty"`
	Preferred rpc.NodeID `json:"preferred,omitempty"`
}

// AbortMoves takes back moves whose newcomers have not all arrived. Repeating it
// takes back more of them.
type AbortMoves struct {
	Moves []MoveAbort `json:"moves"`
	At    time.Time   `json:"at,omitzero"`
}

// MoveAbort names a move to abort.
type MoveAbort struct {
	Group uint16 `json:"group"`
	Move  uint64 `json:"move"`
	// Nodes are the newcomers to withdraw. The others stay and vote, unless the
	// move has not come so far: then all are withdrawn.
	Nodes  []rpc.NodeID `json:"nodes"`
	Reason string       `json:"reason,omitempty"`
}

// PreferLeaders says who should lead groups that do not move.
type PreferLeaders struct {
	Groups []LeaderChoice `json:"groups"`
}

// LeaderChoice is who should lead one group.
type LeaderChoice struct {
	Group uint16     `json:"group"`
	Node  rpc.NodeID `json:"node"`
}

func (*StartMoves) kind() Kind    { return KindStartMoves }
func (*AdvanceMoves) kind() Kind  { return KindAdvanceMoves }
func (*AbortMoves) kind() Kind    { return KindAbortMoves }
func (*PreferLeaders) kind() Kind { return KindPreferLeaders }

func (c *StartMoves) apply(d *draft) error {
	return eachOf(d, c.Moves, func(m *MoveStart) uint16 { return m.Group }, func(m *MoveStart, group *Group) error {
		return m.start(d, group, stamp(c.At))
	})
}

func (c *AdvanceMoves) apply(d *draft) error {
	return eachOf(d, c.Steps, func(s *MoveStep) uint16 { return s.Group }, func(s *MoveStep, group *Group) error {
		return s.advance(d, group, c.At)
	})
}

func (c *AbortMoves) apply(d *draft) error {
	return eachOf(d, c.Moves, func(a *MoveAbort) uint16 { return a.Group }, func(a *MoveAbort, group *Group) error {
		return a.abort(d, group, c.At)
	})
}

func (c *PreferLeaders) apply(d *draft) error {
	return eachOf(d, c.Groups, func(l *LeaderChoice) uint16 { return l.Group }, func(l *LeaderChoice, group *Group) error {
		group.Preferred = l.Node
		if group.Move != nil || !group.prefersMember() {
			return fmt.Errorf("%w: node %q is not to lead group %d", ErrStale, l.Node, l.Group)
		}
		return nil
	})
}

// eachOf changes a copy of each group named by the items and stores it. The
// assignments of all nodes that held a replica before or do so then change.
func eachOf[T any](d *draft, items []T, number func(*T) uint16, change func(*T, *Group) error) error {
	if d.ClusterID == "" {
		return ErrNoCluster
	}
	if len(items) == 0 || len(items) > Groups {
		return fmt.Errorf("%w: about %d groups", ErrInvalid, len(items))
	}
	for i := range items {
		item := &items[i]
		n := number(item)
		if n >= Groups {
			return fmt.Errorf("%w: group %d", ErrInvalid, n)
		}
		group := d.Placed[n]
		if len(group.Replicas) == 0 {
			return fmt.Errorf("%w: group %d is not placed", ErrStale, n)
		}
		for _, replica := range group.Replicas {
			d.affect(replica.Node)
		}
		group.Replicas = slices.Clone(group.Replicas)
		if err := change(item, &group); err != nil {
			return err
		}
		for _, replica := range group.Replicas {
			d.affect(replica.Node)
		}
		d.setGroup(n, group)
	}
	return nil
}

// enter takes the group's move to another phase.
func (g *Group) enter(d *draft, phase MovePhase) {
	move := *g.Move
	move.Phase = phase
	g.Move, g.Step = &move, d.index
}

func (m *MoveStart) start(d *draft, group *Group, at time.Time) error {
	join := slices.Sorted(slices.Values(m.Join))
	switch {
	case len(join) == 0 && m.Leave == "", len(group.Replicas)+len(join) > MaxReplicas, len(m.Reason) > MaxIDBytes,
		len(slices.Compact(slices.Clone(join))) != len(join):
		return fmt.Errorf("%w: move of group %d", ErrInvalid, m.Group)
	case group.Move != nil || !group.Formed:
		return fmt.Errorf("%w: group %d does not take another move", ErrStale, m.Group)
	case m.Leave != "" && !group.Holds(m.Leave):
		return fmt.Errorf("%w: node %q has no replica of group %d", ErrStale, m.Leave, m.Group)
	}
	for _, id := range join {
		node, known := d.Nodes[id]
		if !known || node.State != NodeActive || group.Holds(id) {
			return fmt.Errorf("%w: node %q does not take group %d", ErrStale, id, m.Group)
		}
		group.Replicas = append(group.Replicas, Replica{Node: id, Generation: node.Generation})
	}
	slices.SortFunc(group.Replicas, func(a, b Replica) int {
		if a.Node < b.Node {
			return -1
		}
		return 1
	})
	d.LastMove++
	group.Move = &Move{ID: d.LastMove, Reason: m.Reason, Join: join, Leave: m.Leave, StartedAt: at}
	if len(join) > 0 {
		group.enter(d, PhaseJoin)
	} else {
		group.enter(d, PhaseLeave)
		group.replica(m.Leave).Leaving = true
	}
	d.recordMove(at, EventMoveStarted, m.Group, group.Move, string(m.Reason))
	return group.settle(m.Group, m.Term, m.Preferred)
}

func (s *MoveStep) advance(d *draft, group *Group, at time.Time) error {
	move := group.Move
	if move == nil || move.ID != s.Move || move.Phase != s.From {
		return fmt.Errorf("%w: group %d is not in phase %q of move %d", ErrStale, s.Group, s.From, s.Move)
	}
	switch {
	case move.Phase == PhaseJoin:
		for _, id := range move.Join {
			replica := group.replica(id)
			if !d.Intact(*replica) {
				return fmt.Errorf("%w: node %q lost its data", ErrStale, id)
			}
			replica.Voter = true
		}
		group.enter(d, PhasePromote)
	case move.Phase == PhasePromote && move.Leave != "":
		group.replica(move.Leave).Leaving = true
		group.enter(d, PhaseLeave)
	default:
		if move.Phase == PhaseWithdraw {
			d.MovesAborted++
			d.recordMove(at, EventMoveWithdrawn, s.Group, move, "")
		} else {
			d.MovesFinished++
			d.recordMove(at, EventMoveFinished, s.Group, move, string(move.Reason))
		}
		group.Replicas = slices.DeleteFunc(group.Replicas, func(r Replica) bool { return r.Leaving })
		group.Move, group.Step = nil, d.index
	}
	return group.settle(s.Group, s.Term, s.Preferred)
}

func (a *MoveAbort) abort(d *draft, group *Group, at time.Time) error {
	move := group.Move
	if move == nil || move.ID != a.Move || move.Phase == PhaseLeave {
		return fmt.Errorf("%w: move %d of group %d cannot be aborted", ErrStale, a.Move, a.Group)
	}
	nodes := a.Nodes
	if move.Phase == PhaseJoin {
		nodes = move.Join
	}
	if len(nodes) == 0 {
		return fmt.Errorf("%w: abort of move %d withdraws nobody", ErrInvalid, a.Move)
	}
	for _, id := range nodes {
		replica := group.replica(id)
		if !slices.Contains(move.Join, id) || replica.Leaving {
			return fmt.Errorf("%w: node %q is no newcomer of move %d", ErrStale, id, a.Move)
		}
		replica.Leaving = true
	}
	group.enter(d, PhaseWithdraw)
	d.recordMove(at, EventMoveAborted, a.Group, move, a.Reason)
	return group.settle(a.Group, 0, "")
}

// settle takes over on whose report a step was based and who should lead, and
// checks that the latter stays.
func (g *Group) settle(number uint16, term uint64, preferred rpc.NodeID) error {
	g.Term = max(g.Term, term)
	if preferred != "" {
		g.Preferred, g.Pinned = preferred, false
	}
	if !g.prefersMember() {
		return fmt.Errorf("%w: nobody who stays is to lead group %d", ErrInvalid, number)
	}
	return nil
}
