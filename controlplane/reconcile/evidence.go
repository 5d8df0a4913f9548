package reconcile

import (
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

const (
	// catchUpSlack is how many entries a replica may lack and still count as
	// caught up: what appends in flight and the age of a report account for.
	catchUpSlack = 64
	// confirmations is how many reports in a row, by the same leader in the same
	// term, must agree on a membership for it to count.
	confirmations = 2
)

// Evidence is what data nodes have reported, as far as moves depend on it. It is
// lost with the control leader that gathered it and comes back with the next
// reports. It is not safe for concurrent use.
type Evidence struct {
	nodes   map[rpc.NodeID]*witness
	leaders [catalog.Groups]leader
	planned memo
}

// witness is what one node has reported of its replicas.
type witness struct {
	generation uint32
	have       uint64 // version of the assignment it follows
	replicas   [catalog.Groups]standing
}

// standing is how far one replica is behind its group's leader.
type standing struct {
	applied uint64
	// since is when the replica was first seen to be caught up; every report
	// since then agreed. Zero while it is not, or while its node does not know
	// of the last step of the group's moves.
	since time.Time
	seen  time.Time // the last report that agreed
}

// leader is what the leader of a group has reported. A report of a lower term,
// or an older one of the same, never replaces it.
type leader struct {
	node       rpc.NodeID
	generation uint32
	leading    bool // it has not said since that it no longer leads
	term       uint64
	applied    uint64
	have       uint64
	members    []rpc.Replica
	agreed     int // reports in a row with these members, up to confirmations
}

// NewEvidence returns evidence of nothing.
func NewEvidence() *Evidence {
	return &Evidence{nodes: make(map[rpc.NodeID]*witness)}
}

// Observe takes a report over. The caller has checked that it comes from the
// data directory that the state has registered for the node, and that its group
// numbers are in range. It returns whether the report said something that may
// let a move go on. The report's replicas are kept.
func (e *Evidence) Observe(report *rpc.Report, state *catalog.State, now time.Time) (news bool) {
	generation := state.Nodes[report.Node.ID].Generation
	w := e.nodes[report.Node.ID]
	if w == nil || w.generation != generation {
		w = &witness{generation: generation}
		e.nodes[report.Node.ID] = w
	}
	news = w.have != report.HaveAssignment
	w.have = report.HaveAssignment
	var hosted [catalog.Groups]bool
	for i := range report.Groups {
		group := &report.Groups[i]
		hosted[group.Group] = true
		news = e.observeLeader(report, group, generation) || news
		e.observeStanding(w, group, report.HaveAssignment >= state.Placed[group.Group].Step, now)
	}
	for number := range hosted {
		if !hosted[number] {
			w.replicas[number] = standing{}
			e.depose(uint16(number), report.Node.ID)
		}
	}
	return news
}

func (e *Evidence) depose(number uint16, node rpc.NodeID) {
	if l := &e.leaders[number]; l.node == node {
		l.leading = false
	}
}

// observeLeader takes over what a leader says of its group.
func (e *Evidence) observeLeader(report *rpc.Report, group *rpc.GroupReport, generation uint32) (news bool) {
	l := &e.leaders[group.Group]
	id := report.Node.ID
	if !group.Leading {
		if group.Term >= l.term {
			e.depose(group.Group, id)
		}
		return false
	}
	same := l.node == id && l.generation == generation && l.term == group.Term
	switch {
	case group.Term < l.term, group.Term == l.term && l.node != "" && !same, same && group.Applied < l.applied:
		return false
	}
	next := leader{
		node: id, generation: generation, leading: true, term: group.Term, applied: group.Applied,
		have: report.HaveAssignment, members: group.Replicas, agreed: 1,
	}
	if same && l.leading && slices.Equal(l.members, group.Replicas) {
		next.agreed = min(l.agreed+1, confirmations)
	}
	news = next.agreed != l.agreed || !same
	*l = next
	return news
}

// observeStanding compares a replica with its leader. What the leader applied is
// the measure, not what is in its log: entries that Raft adds for itself at an
// election are applied by nobody. A report that knows nothing of the group's last
// step may be of a replica that has been deleted since, and says nothing.
func (e *Evidence) observeStanding(w *witness, group *rpc.GroupReport, current bool, now time.Time) {
	l := &e.leaders[group.Group]
	s := &w.replicas[group.Group]
	if !current || !l.leading || group.Applied < s.applied || group.Applied+catchUpSlack < l.applied {
		*s = standing{applied: group.Applied}
		return
	}
	s.applied, s.seen = group.Applied, now
	if s.since.IsZero() {
		s.since = now
	}
}

// caughtUp reports whether a replica lacks no more than what is in flight, and
// has done so for a time.
func (e *Evidence) caughtUp(number uint16, replica catalog.Replica, stable time.Duration) bool {
	w := e.nodes[replica.Node]
	if w == nil || w.generation != replica.Generation {
		return false
	}
	s := &w.replicas[number]
	return !s.since.IsZero() && s.seen.Sub(s.since) >= stable
}

// follows reports whether a node was seen to follow an assignment of at least
// the given version.
func (e *Evidence) follows(id rpc.NodeID, version uint64) bool {
	w := e.nodes[id]
	return w != nil && w.have >= version
}
