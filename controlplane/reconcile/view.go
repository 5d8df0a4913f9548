package reconcile

import (
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

const (
	// DefaultMaxMoves bounds the moves under way in the cluster.
	DefaultMaxMoves = 20
	// DefaultMaxJoins bounds the replicas that one node is receiving.
	DefaultMaxJoins = 16
	// DefaultMaxSends bounds the moves whose newcomers one node feeds, as the
	// leader of their groups.
	DefaultMaxSends = 16
	// DefaultStable is how long a newcomer must have been caught up before it
	// votes.
	DefaultStable = time.Second
	// DefaultPatience is how long a newcomer may be silent before its move is
	// taken back, so that another node can take its place.
	DefaultPatience = 30 * time.Second
	// DefaultReplaceAfter is how long a node may be silent before its replicas
	// are replaced on others.
	DefaultReplaceAfter = 10 * time.Minute
)

// Limits bounds what goes on at a time. Zero fields stand for the defaults.
type Limits struct {
	MaxMoves     int
	MaxJoins     int
	MaxSends     int
	Stable       time.Duration
	Patience     time.Duration
	ReplaceAfter time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.MaxMoves == 0 {
		l.MaxMoves = DefaultMaxMoves
	}
	if l.MaxJoins == 0 {
		l.MaxJoins = DefaultMaxJoins
	}
	if l.MaxSends == 0 {
		l.MaxSends = DefaultMaxSends
	}
	if l.Stable == 0 {
		l.Stable = DefaultStable
	}
	if l.Patience == 0 {
		l.Patience = DefaultPatience
	}
	if l.ReplaceAfter == 0 {
		l.ReplaceAfter = DefaultReplaceAfter
	}
	return l
}

// Life is what is known of a node's session.
type Life struct {
	// Alive: the node has called within the session's time to live.
	Alive bool
	// Silent is for how long it has not called, counted from the beginning of
	// the present leader's term at the earliest; 0 for one that is alive.
	Silent time.Duration
}

// View is everything that a decision is made from.
type View struct {
	State    *catalog.State
	Evidence *Evidence
	// Lives has an entry for every node of the state.
	Lives map[rpc.NodeID]Life
	// Expected is how many nodes the operator expects at first.
	Expected int
	Limits   Limits
	// Now stamps what is started.
	Now time.Time
}

// leader returns the leader of a group as far as its word can be acted upon:
// its node is in session with the data on which the replica was placed, it
// knows of the last step of the group's moves, its term is not behind one that
// was acted upon before, and it has settled on a membership.
func (v *View) leader(number uint16) *leader {
	group := &v.State.Placed[number]
	l := &v.Evidence.leaders[number]
	replica, held := find(group, l.node)
	if !held || !l.leading || l.agreed < confirmations || !v.Lives[l.node].Alive || l.generation != replica.Generation ||
		!v.State.Intact(replica) || l.have < group.Step || l.term < group.Term || len(l.members) == 0 {
		return nil
	}
	return l
}

func find(group *catalog.Group, id rpc.NodeID) (catalog.Replica, bool) {
	for _, replica := range group.Replicas {
		if replica.Node == id {
			return replica, true
		}
	}
	return catalog.Replica{}, false
}

// counts reports whether a replica can be counted on for a quorum: its node
// lives, has kept its data and has caught up with the leader.
func (v *View) counts(number uint16, id rpc.NodeID, l *leader) bool {
	replica, held := find(&v.State.Placed[number], id)
	if !held || !v.State.Intact(replica) || !v.Lives[id].Alive {
		return false
	}
	return id == l.node || v.Evidence.caughtUp(number, replica, 0)
}

// safe reports whether a group keeps a quorum of replicas that can be counted on
// with the voters that its leader knows now, those that join and without those
// that leave. Leavers are removed one by one, in any order, so it must have one
// all the while: after the good leavers, those that are no use may still vote.
func (v *View) safe(number uint16, l *leader, join []rpc.NodeID, leaving func(rpc.NodeID) bool) bool {
	voters := make(map[rpc.NodeID]struct{})
	for _, member := range l.members {
		if member.Voter {
			voters[member.Node] = struct{}{}
		}
	}
	for _, id := range join {
		voters[id] = struct{}{}
	}
	stay, good, goodLeave, badLeave := 0, 0, 0, 0
	for id := range voters {
		counts := v.counts(number, id, l)
		switch {
		case leaving(id) && counts:
			goodLeave++
		case leaving(id):
			badLeave++
		case counts:
			stay, good = stay+1, good+1
		default:
			stay++
		}
	}
	if goodLeave == 0 && badLeave > 0 {
		badLeave-- // the first that is removed
	}
	return good > (stay+badLeave)/2
}

func nobody(rpc.NodeID) bool { return false }

// member returns what the leader says of one node.
func (l *leader) member(id rpc.NodeID) (voter, present bool) {
	for _, member := range l.members {
		if member.Node == id {
			return member.Voter, true
		}
	}
	return false, false
}

// settled reports whether the leader's membership is what the catalog has, all
// of them voters.
func (l *leader) settled(group *catalog.Group) bool {
	if len(l.members) != len(group.Replicas) {
		return false
	}
	for _, replica := range group.Replicas {
		if voter, _ := l.member(replica.Node); !voter || !replica.Voter {
			return false
		}
	}
	return true
}
