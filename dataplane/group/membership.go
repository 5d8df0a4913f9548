package group

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// membershipTimeout bounds the hand-over of one change to Raft.
	membershipTimeout = 5 * time.Second
	// maxPromotionLag is how many entries a non-voter may lack when it becomes
	// a voter: what an append or two in flight can account for.
	maxPromotionLag = 64
)

// Converge takes at most one step from the group's membership towards want and
// reports whether it took one. The leader calls it until nothing is left to do;
// elsewhere it does nothing. The order keeps every quorum: newcomers join
// without a vote, vote once they have caught up, and only then do leavers go,
// the leader last and after handing over.
func (g *Group) Converge(want []Member) (bool, error) {
	r := g.raft.Load()
	if r == nil || !g.Leading() {
		return false, nil
	}
	step, index, err := g.nextChange(r, want)
	if err != nil {
		return false, fmt.Errorf("group %d: read membership: %w", g.opts.Group, err)
	}
	if step == nil {
		return false, nil
	}
	if err := step(r, index); err != nil {
		return false, fmt.Errorf("group %d: change membership: %w", g.opts.Group, err)
	}
	return true, nil
}

// Converged reports whether Converge has nothing to do. It never waits.
func (g *Group) Converged(want []Member) bool {
	r := g.raft.Load()
	if r == nil || !g.Leading() {
		return true
	}
	step, _, err := g.nextChange(r, want)
	return step == nil && err == nil
}

// nextChange returns the next step towards the wanted members, or nil, and the
// index of the configuration it was decided from.
func (g *Group) nextChange(r *raft.Raft, want []Member) (membershipStep, uint64, error) {
	future := r.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, 0, err
	}
	return g.nextStep(future.Configuration().Servers, want), future.Index(), nil
}

// A membershipStep is one Raft configuration change, compare-and-set on the
// configuration it was decided from.
type membershipStep func(r *raft.Raft, prevIndex uint64) error

func (g *Group) nextStep(have []raft.Server, want []Member) membershipStep {
	for _, m := range want {
		i := slices.IndexFunc(have, func(s raft.Server) bool { return string(s.ID) == m.Node })
		id, address := raft.ServerID(m.Node), raft.ServerAddress(m.Node)
		switch {
		case i < 0:
			return func(r *raft.Raft, prev uint64) error {
				g.log.Info("adding replica", "replica", m.Node)
				g.lease.forget(id) // it may have been here before, and been wiped
				return r.AddNonvoter(id, address, prev, membershipTimeout).Error()
			}
		case m.Voter && have[i].Suffrage != raft.Voter && g.caughtUp(id):
			return func(r *raft.Raft, prev uint64) error {
				g.log.Info("promoting replica", "replica", m.Node)
				return r.AddVoter(id, address, prev, membershipTimeout).Error()
			}
		}
	}
	if !g.canShrink(have, want) {
		return nil
	}
	if leaver, ok := g.nextLeaver(have, want); ok {
		return func(r *raft.Raft, prev uint64) error {
			g.log.Info("removing replica", "replica", leaver)
			err := r.RemoveServer(leaver, prev, membershipTimeout).Error()
			g.lease.forget(leaver)
			return err
		}
	}
	if !slices.ContainsFunc(want, func(m Member) bool { return m.Node == g.opts.NodeID }) {
		return func(*raft.Raft, uint64) error {
			g.log.Info("handing over before leaving")
			return g.TransferLeadership("")
		}
	}
	return nil
}

// nextLeaver returns the member to remove next, this one excepted: one that does
// not answer before one that does, because the living keep the quorum.
func (g *Group) nextLeaver(have []raft.Server, want []Member) (raft.ServerID, bool) {
	var leaver raft.ServerID
	r := g.raft.Load()
	for _, s := range have {
		if r == nil || string(s.ID) == g.opts.NodeID || slices.ContainsFunc(want, func(m Member) bool { return m.Node == string(s.ID) }) {
			continue
		}
		if !g.lease.live(s.ID, r.CurrentTerm(), time.Now(), g.opts.Timing.Heartbeat) {
			return s.ID, true
		}
		leaver = s.ID
	}
	return leaver, leaver != ""
}

// canShrink reports whether every wanted voter votes already: until then
// nobody is removed.
func (g *Group) canShrink(have []raft.Server, want []Member) bool {
	voters := 0
	for _, m := range want {
		if !m.Voter {
			continue
		}
		if !slices.ContainsFunc(have, func(s raft.Server) bool {
			return string(s.ID) == m.Node && s.Suffrage == raft.Voter
		}) {
			return false
		}
		voters++
	}
	return voters > 0
}

// caughtUp reports whether the follower lacks no more than what is in flight.
func (g *Group) caughtUp(id raft.ServerID) bool {
	r := g.raft.Load()
	if r == nil {
		return false
	}
	match, ok := g.lease.matched(id, r.CurrentTerm())
	return ok && match+maxPromotionLag >= r.LastIndex()
}

// MoveLeadership hands leadership to the preferred replica when it votes and
// has caught up; otherwise it does nothing and reports false.
func (g *Group) MoveLeadership(preferred string) (bool, error) {
	if !g.Leading() || preferred == g.opts.NodeID || !g.caughtUp(raft.ServerID(preferred)) {
		return false, nil
	}
	for _, s := range g.servers() {
		if string(s.ID) == preferred && s.Suffrage == raft.Voter {
			return true, g.TransferLeadership(preferred)
		}
	}
	return false, nil
}

// HandOver passes leadership to a voter that is alive, has caught up and takes
// it. It does nothing and reports false when this replica does not lead or
// nobody else can.
func (g *Group) HandOver() (bool, error) {
	r := g.raft.Load()
	if r == nil || !g.Leading() {
		return false, nil
	}
	var errs []error
	now, term := time.Now(), r.CurrentTerm()
	for _, s := range g.servers() {
		if s.Suffrage != raft.Voter || string(s.ID) == g.opts.NodeID {
			continue
		}
		if g.lease.live(s.ID, term, now, g.opts.Timing.Heartbeat) && g.caughtUp(s.ID) {
			err := g.TransferLeadership(string(s.ID))
			if err == nil {
				return true, nil
			}
			errs = append(errs, err)
		}
	}
	return len(errs) > 0, errors.Join(errs...)
}
