package group

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// startGrace is how long after its start a replica waits for a leader to
	// make itself known before the first election.
	startGrace = 400 * time.Millisecond
	// startStagger lies between the elections of two replicas that never had a
	// leader, so that they do not split the votes.
	startStagger = 400 * time.Millisecond
	// lostStagger lies between the moments at which two replicas look for a
	// lost leader. It is larger than the interval at which they are asked.
	lostStagger = 60 * time.Millisecond
	// FailoverNotice is how long before it is due a failover is announced.
	FailoverNotice = 250 * time.Millisecond
)

// Failover makes this replica look for a leader as soon as it may: when the
// heartbeat timeout since the last sign of the leader has passed. Raft draws its
// timers at random and looks only when one fires, which is up to three timeouts
// later. The election itself is Raft's own, pre-vote included, and no lease is
// cut short. The node calls it for each group, from one goroutine, several times
// within FailoverNotice, and many times a second while it reports that one may
// soon be due.
//
// A replica that still believes in the lost leader refuses its vote, so that the
// last to look is elected, at once because those before it wait for votes. At a
// start nobody believes in anyone, and preferred goes first.
func (g *Group) Failover(now time.Time, preferred string) (soon bool) {
	r := g.raft.Load()
	if r == nil {
		return false
	}
	if state := r.State(); state != raft.Follower {
		if g.calm == r && (state == raft.Leader || g.setTimeouts(r, 1)) {
			g.calm = nil
		}
		return false
	}
	_, leader := r.LeaderWithID()
	contact := r.LastContact()
	started := time.Unix(0, g.startedAt.Load())
	var due time.Time
	switch {
	case leader != "" && !contact.IsZero():
		due = contact.Add(g.opts.Timing.Heartbeat)
		if now.Before(due.Add(-FailoverNotice)) {
			if g.calm != r && g.setTimeouts(r, quietStretch) {
				g.calm = r
			}
			return false // the usual case, and the cheap one
		}
		due = due.Add(time.Duration(g.rank(string(leader), "")) * lostStagger)
	case leader == "" && contact.IsZero() && g.urgedAt != started:
		due = started.Add(startGrace + time.Duration(g.rank("", preferred))*startStagger)
	default:
		return false // an election is under way, by Raft's own timers
	}
	if !now.Before(due) && g.setTimeouts(r, 1) {
		g.calm, g.urgedAt = nil, started
	}
	return true
}

// rank is this replica's place among the voters without the lost one, with
// first before all others.
func (g *Group) rank(lost, first string) int {
	var ids []string
	for _, s := range g.servers() {
		if s.Suffrage == raft.Voter && string(s.ID) != lost {
			ids = append(ids, string(s.ID))
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		switch {
		case a == first:
			return -1
		case b == first:
			return 1
		}
		return strings.Compare(a, b)
	})
	return max(slices.Index(ids, g.opts.NodeID), 0)
}
