package consensus

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// reviewInterval is how often the leadership is read afresh, in case a hint
// about it was dropped.
const reviewInterval = time.Second

// Leadership is who leads, as this member sees it.
type Leadership struct {
	// Term rises with every election.
	Term uint64
	// Leading: this member leads the term and its state machine holds
	// everything that was committed before.
	Leading bool
	// LeaderID and LeaderAddress are empty while no leader is known.
	LeaderID      string
	LeaderAddress string
}

// leadershipCell holds the current leadership and a channel that is closed when
// it is replaced. Written by one goroutine.
type leadershipCell struct {
	current atomic.Pointer[leadershipState]
}

type leadershipState struct {
	Leadership
	changed chan struct{}
}

func (c *leadershipCell) init() {
	c.current.Store(&leadershipState{changed: make(chan struct{})})
}

func (c *leadershipCell) set(l Leadership) bool {
	old := c.current.Load()
	if old.Leadership == l {
		return false
	}
	c.current.Store(&leadershipState{Leadership: l, changed: make(chan struct{})})
	close(old.changed)
	return true
}

// Leadership returns who leads, and a channel that is closed once that changes.
func (m *Member) Leadership() (Leadership, <-chan struct{}) {
	state := m.leadership.current.Load()
	return state.Leadership, state.changed
}

// barrierResult is the outcome of the barrier of a new leader.
type barrierResult struct {
	term uint64
	err  error
}

// watch follows who leads until the member closes, and restarts raft when an
// installed snapshot asks for it. Raft blocks on notify, so nothing here waits
// for raft.
func (m *Member) watch() {
	defer m.watching.Done()
	tick := time.NewTicker(reviewInterval)
	defer tick.Stop()
	var (
		ready uint64 // the term whose barrier passed
		asked uint64 // the term whose barrier runs, or failed since the last tick
		busy  bool   // a barrier runs
	)
	for {
		select {
		case <-m.stopWatch:
			m.leadership.set(Leadership{Term: m.raft.Load().CurrentTerm()})
			return
		case <-m.notify:
		case <-m.observed:
		case <-tick.C:
			asked = 0
		case <-m.conflict:
			m.restartRaft()
			ready = 0
		case result := <-m.barriers:
			busy = false
			if result.err == nil {
				ready = result.term
			} else {
				m.logger.Debug("barrier of a new control leader failed", "term", result.term, "error", result.err)
			}
		}
		instance := m.raft.Load()
		if instance.State() == raft.Leader {
			if term := instance.CurrentTerm(); term != ready && term != asked && !busy {
				asked, busy = term, true
				m.startBarrier(instance, term)
			}
		}
		m.review(instance, ready)
	}
}

// startBarrier asks for a barrier without waiting for it. watch has one under
// way at a time, so the channel has room for its result.
func (m *Member) startBarrier(instance *raft.Raft, term uint64) {
	if err := m.enter(); err != nil {
		m.barriers <- barrierResult{term: term, err: err}
		return
	}
	go func() {
		defer m.leave()
		m.barriers <- barrierResult{term: term, err: instance.Barrier(enqueueTimeout).Error()}
	}()
}

// review publishes the leadership as raft shows it now.
func (m *Member) review(instance *raft.Raft, ready uint64) {
	_, leader := instance.LeaderWithID()
	term := instance.CurrentTerm()
	now := Leadership{
		Term:          term,
		Leading:       instance.State() == raft.Leader && term == ready,
		LeaderID:      string(leader),
		LeaderAddress: m.cfg.Peers[string(leader)],
	}
	if now.LeaderID == m.cfg.ID && !now.Leading {
		now.LeaderID, now.LeaderAddress = "", ""
	}
	before := m.leadership.current.Load().Leadership
	if !m.leadership.set(now) {
		return
	}
	if now.LeaderID != "" {
		m.raftLog.Settle()
	}
	switch {
	case now.Leading:
		m.logger.Info("leading the control plane", "term", now.Term)
	case before.Leading:
		m.logger.Warn("lost the lead of the control plane", "term", now.Term)
	case now.LeaderID != "" && now.LeaderID != before.LeaderID:
		m.logger.Info("following a control leader", "leader", now.LeaderID, "term", now.Term)
	}
}

// snapshotInstalled runs on raft's goroutines before a snapshot becomes
// visible. When the log holds another entry where the snapshot ends, raft would
// go on believing its stale last entry and never match the leader's log
// (hashicorp/raft issue 697); it has to start afresh.
func (m *Member) snapshotInstalled(meta *raft.SnapshotMeta) {
	first, last := m.store.first.Load(), m.store.last.Load()
	if meta.Index < first || meta.Index > last {
		return
	}
	var entry raft.Log
	if err := m.store.GetLog(meta.Index, &entry); err != nil || entry.Term == meta.Term {
		return
	}
	select {
	case m.conflict <- struct{}{}:
	default:
	}
}

// restartRaft replaces raft by a new instance over the same storage.
func (m *Member) restartRaft() {
	m.logger.Warn("restarting raft: the leader's snapshot contradicts the log")
	old := m.raft.Load()
	stopped := make(chan error, 1)
	go func() { stopped <- old.Shutdown().Error() }()
	for running := true; running; {
		select {
		case <-m.notify:
		case <-stopped:
			running = false
		}
	}
	err := m.alignLog()
	if err == nil {
		err = m.startRaft()
	}
	if err != nil {
		m.store.fail(fmt.Errorf("restart raft: %w", err))
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func serverIDs(servers []raft.Server) []string {
	ids := make([]string, 0, len(servers))
	for _, server := range servers {
		ids = append(ids, string(server.ID))
	}
	return ids
}
