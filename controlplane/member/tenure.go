package member

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/lease"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// tenure is what a leader knows beyond the catalog, for as long as it leads.
type tenure struct {
	term  uint64
	since time.Time
	ttl   time.Duration
	// done is closed when the leadership is over.
	done chan struct{}
	// kick wakes the reconcile loop; it holds one wake-up, more say nothing new.
	kick chan struct{}

	// Owned by the goroutine that leads.
	shown      shown
	complained string    // the last problem that was logged
	quietUntil time.Time // when the same may be logged again
	health     health    // of the groups, as last logged

	mu       sync.Mutex // guards what follows
	sessions map[rpc.NodeID]*session
	leaders  [catalog.Groups]leaderHint
	hints    uint64 // rises with every change of leaders
	// ran holds groups that were seen to have run and that the catalog does
	// not know to be formed.
	ran map[uint16]struct{}
	// evidence is what moves depend on.
	evidence *reconcile.Evidence
	// leases is who asks for archiver leases and who may trust one.
	leases *lease.Book
	// beat is when this process was last seen to run, pauses how often it was
	// seen to have stopped for a while, and proven after how many of them it has
	// proven that it leads.
	beat           time.Time
	pauses, proven uint64
	// wentSilent and cameBack are nodes to be noted in the event log.
	wentSilent, cameBack []rpc.NodeID
	replaceAfter         time.Duration
}

// session is a node that has called in this tenure.
type session struct {
	info    rpc.NodeInfo
	seen    time.Time // start or end of its last call
	calls   int       // calls under way
	silent  bool      // it was reported as silent
	hosted  int       // replicas it reported
	leading int       // groups it reported to lead
	lag     uint64    // most entries any of its replicas had yet to apply

	diskUsed, diskFree uint64
}

// leaderHint is who last reported to lead a group.
type leaderHint struct {
	node rpc.NodeID
	term uint64
}

// liveness is what a tenure knows of a node.
type liveness uint8

const (
	unknown liveness = iota // it has not called, and the tenure is young
	alive
	silent
)

// String is for logs and status.
func (l liveness) String() string { return [...]string{"unknown", "alive", "silent"}[l] }

// newTenure begins a term of leadership; ttl is that of sessions, leaseTTL that
// of archiver leases.
func newTenure(term uint64, ttl, leaseTTL time.Duration) *tenure {
	now := time.Now()
	return &tenure{
		term:     term,
		since:    now,
		beat:     now,
		ttl:      ttl,
		done:     make(chan struct{}),
		kick:     make(chan struct{}, 1),
		sessions: make(map[rpc.NodeID]*session),
		ran:      make(map[uint16]struct{}),
		evidence: reconcile.NewEvidence(),
		leases:   lease.NewBook(leaseTTL, now),
	}
}

// complain logs a problem of the reconcile loop, the same one only now and then.
func (t *tenure) complain(logger *slog.Logger, problem error) {
	if text := problem.Error(); text != t.complained || time.Now().After(t.quietUntil) {
		t.complained, t.quietUntil = text, time.Now().Add(complainInterval)
		logger.Warn("control plane could not do what it should", "error", problem)
	}
}

func (t *tenure) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// liveness is called with mu held.
func (t *tenure) liveness(id rpc.NodeID, now time.Time) liveness {
	switch s := t.sessions[id]; {
	case s != nil && (s.calls > 0 || now.Sub(s.seen) < t.ttl):
		return alive
	case s == nil && now.Sub(t.since) < t.ttl:
		return unknown
	}
	return silent
}

// alive returns which of the nodes are alive.
func (t *tenure) alive(ids []rpc.NodeID) []rpc.NodeID {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var living []rpc.NodeID
	for _, id := range ids {
		if t.liveness(id, now) == alive {
			living = append(living, id)
		}
	}
	return living
}

// admit decides whether a node may take the place that the registry has for its
// id. A data directory can only be open once, so the same one at another
// address has moved, unless it was copied and the other still calls. Another
// directory takes over only from one that is known to be silent.
func (t *tenure) admit(info *rpc.NodeInfo, registered *catalog.Node) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := t.liveness(info.ID, time.Now())
	same := registered.Incarnation == info.Incarnation
	switch {
	case same && state == alive && t.sessions[info.ID].info.Address != info.Address:
		return fmt.Errorf("%w: node %q was just seen at %s", rpc.ErrUnavailable, info.ID, registered.Address)
	case same || state == silent:
		return nil
	case state == unknown:
		return fmt.Errorf("%w: cannot tell yet whether node %q with another data directory is gone", rpc.ErrUnavailable, info.ID)
	}
	return fmt.Errorf("%w: node %q at %s", rpc.ErrNodeConflict, info.ID, registered.Address)
}

// enter records a report and counts its call until leave. It returns whether
// the node was known to be silent.
func (t *tenure) enter(report *rpc.Report, state *catalog.State) (returned bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := report.Node.ID
	s := t.sessions[id]
	news := s == nil
	if s == nil {
		s = &session{}
		t.sessions[id] = s
	}
	returned, s.silent = s.silent, false
	s.info, s.seen = report.Node, time.Now()
	s.diskUsed, s.diskFree = report.DiskUsed, report.DiskFree
	if returned {
		t.cameBack = append(t.cameBack, id)
	}
	s.calls++
	s.hosted, s.leading, s.lag = len(report.Groups), 0, 0
	for i := range report.Groups {
		group := &report.Groups[i]
		if group.Leading {
			s.leading++
		}
		if group.LastIndex > group.Applied {
			s.lag = max(s.lag, group.LastIndex-group.Applied)
		}
		news = t.learn(id, group, state) || news
	}
	news = t.evidence.Observe(report, state, s.seen) || news
	if news || returned {
		t.wake()
	}
	return returned
}

// decide returns the command that is due for moves and leaders, or nil.
func (t *tenure) decide(state *catalog.State, expected int) catalog.Command {
	t.mu.Lock()
	defer t.mu.Unlock()
	return reconcile.Next(t.view(state, expected))
}

// view is what decisions are made from. It is called with mu held and used no
// longer than that.
func (t *tenure) view(state *catalog.State, expected int) reconcile.View {
	now := time.Now()
	lives := make(map[rpc.NodeID]reconcile.Life, len(state.Nodes))
	for id := range state.Nodes {
		if t.liveness(id, now) == alive {
			lives[id] = reconcile.Life{Alive: true}
			continue
		}
		since := t.since
		if s := t.sessions[id]; s != nil {
			since = s.seen
		}
		lives[id] = reconcile.Life{Silent: now.Sub(since)}
	}
	return reconcile.View{
		State: state, Evidence: t.evidence, Lives: lives, Expected: expected, Now: now,
		Limits: reconcile.Limits{ReplaceAfter: t.replaceAfter},
	}
}

// learn takes what a report says of one group. It is called with mu held and
// returns whether that was new.
func (t *tenure) learn(id rpc.NodeID, report *rpc.GroupReport, state *catalog.State) bool {
	placed := &state.Placed[report.Group]
	if !placed.Holds(id) {
		return false
	}
	news := false
	if _, seen := t.ran[report.Group]; !placed.Formed && !seen && (report.Leading || report.LastIndex > 0) {
		t.ran[report.Group] = struct{}{}
		news = true
	}
	hint := &t.leaders[report.Group]
	if report.Leading && (report.Term > hint.term || hint.node == "") {
		if hint.node != id {
			t.hints++
			news = true
		}
		*hint = leaderHint{node: id, term: report.Term}
	}
	return news
}

// leave ends a call of a node.
func (t *tenure) leave(id rpc.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sessions[id]; s != nil {
		s.calls--
		s.seen = time.Now()
	}
}

// newlySilent returns the nodes that have become silent since the last call.
// Those that were removed may.
func (t *tenure) newlySilent(state *catalog.State) []rpc.NodeID {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var gone []rpc.NodeID
	for id, s := range t.sessions {
		if !s.silent && t.liveness(id, now) == silent {
			s.silent = true
			if state.Nodes[id].State == catalog.NodeRemoved {
				continue
			}
			gone = append(gone, id)
			t.wentSilent = append(t.wentSilent, id)
		}
	}
	return gone
}

// toNote returns the nodes that have become silent or have come back since the
// last call.
func (t *tenure) toNote() (silent, back []rpc.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	silent, back = t.wentSilent, t.cameBack
	t.wentSilent, t.cameBack = nil, nil
	return silent, back
}

// unformed returns the groups that have run and drops those from it that the
// catalog knows by now.
func (t *tenure) unformed(state *catalog.State) []uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var groups []uint16
	for number := range t.ran {
		if state.Placed[number].Formed {
			delete(t.ran, number)
		} else {
			groups = append(groups, number)
		}
	}
	return groups
}

// warm reports whether the leader has heard from every node that holds
// replicas, or has waited long enough.
func (t *tenure) warm(state *catalog.State) bool {
	if time.Since(t.since) >= warmUp {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for number := range state.Placed {
		for _, replica := range state.Placed[number].Replicas {
			if t.sessions[replica.Node] == nil {
				return false
			}
		}
	}
	return true
}
