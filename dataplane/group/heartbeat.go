package group

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// quietStretch is how much longer the timeouts are that Raft is given where its
// timers are not needed. A leader's only say how often they send heartbeats, each
// follower's every one to two tenths: often enough, three times as rarely. A
// follower's say when to look for a lost leader, of which Failover thinks.
const quietStretch = 3

// HeartbeatInterval is how often a node calls Heartbeat of all its groups: a bit
// less than what Raft waits at least, so that none of its own timers fires.
func (t Timing) HeartbeatInterval() time.Duration { return t.Heartbeat / 100 * (quietStretch*10 - 3) }

// Heartbeat makes this replica send heartbeats now, if it leads. Raft has a timer
// for each follower of each group; an idle node would wake up hundreds of times a
// second for them, which costs more than what is then done. The node therefore
// lets all groups beat together. Where it does not, or is late, the timers fire.
func (g *Group) Heartbeat() {
	r := g.raft.Load()
	if r == nil || r.State() != raft.Leader || !g.reload.TryLock() {
		return
	}
	defer g.reload.Unlock()
	g.nudge(r, r.ReloadableConfig())
}

// commitIndex is what is known here to be committed.
func (g *Group) commitIndex() uint64 {
	if r := g.raft.Load(); r != nil {
		return r.CommitIndex()
	}
	return 0
}

// pace gives Raft the timeouts of what it is, after each change of leadership and
// of transfers: those of Timing unless it leads and hands nothing over, which the
// election timeout limits too.
func (g *Group) pace() {
	r := g.raft.Load()
	if r == nil {
		return
	}
	g.reload.Lock()
	defer g.reload.Unlock()
	stretch := time.Duration(1)
	if r.State() == raft.Leader && !g.transfer.ours.Load() {
		stretch = quietStretch
	}
	g.nudge(r, g.timeouts(r, stretch))
}

// setTimeouts is pace for who has decided what Raft is; false when Raft's
// configuration is in other hands, as while the log is shortened.
func (g *Group) setTimeouts(r *raft.Raft, stretch time.Duration) bool {
	if !g.reload.TryLock() {
		return false
	}
	defer g.reload.Unlock()
	g.nudge(r, g.timeouts(r, stretch))
	return true
}

func (g *Group) timeouts(r *raft.Raft, stretch time.Duration) raft.ReloadableConfig {
	conf := r.ReloadableConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout = g.opts.Timing.Heartbeat*stretch, g.opts.Timing.Election*stretch
	return conf
}

// nudge sets Raft's configuration and makes it act on the heartbeat timeout at
// once, as it does whenever that becomes shorter: a follower looks how old the last
// sign of its leader is, a candidate waits anew, a leader sends heartbeats. The
// caller holds g.reload.
func (g *Group) nudge(r *raft.Raft, conf raft.ReloadableConfig) {
	longer := conf
	longer.HeartbeatTimeout++
	longer.ElectionTimeout++ // must not be the smaller of the two
	if err := errors.Join(r.ReloadConfig(longer), r.ReloadConfig(conf)); err != nil {
		g.log.Warn("setting raft's timeouts", "error", err)
	}
}
