package lease

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

const (
	testTTL    = 10 * time.Second
	testGroups = 4
)

// sim is a control plane and its archivers in simulated time. Messages are
// delayed, lost and repeated, archivers pause and restart, control leaders
// follow one another, and commands are committed late or never.
type sim struct {
	t       require.TestingT
	now     time.Time
	state   *catalog.State
	book    *Book
	deposed deposed
	leaders [catalog.Groups]rpc.NodeID
	nodes   []*archiver
	flight  []*call
	pending []catalog.Command // proposed by this leader
	epochs  map[uint16]uint64 // newest granted
}

// deposed is a leader that has not noticed yet.
type deposed struct {
	book  *Book
	state *catalog.State
	until time.Time
}

// archiver is a data node that asks for leases.
type archiver struct {
	id    rpc.NodeID
	life  int
	slow  time.Duration // by how much its clock falls behind in a TTL
	trust map[uint16]trusted
}

type trusted struct {
	epoch uint64
	until time.Time
}

func (a *archiver) incarnation() string { return fmt.Sprint(a.id, "-", a.life) }

// call is a request on its way, and then its reply.
type call struct {
	node    *archiver
	life    int
	sent    time.Time
	release bool
	replied bool
	held    []rpc.Lease
}

func newSim(t require.TestingT, nodes int) *sim {
	s := &sim{t: t, now: time.Unix(1e9, 0), state: &catalog.State{}, epochs: map[uint16]uint64{}}
	s.must(&catalog.CreateCluster{ClusterID: "sim", ReplicationFactor: 3, At: s.now})
	for i := range nodes {
		a := &archiver{id: rpc.NodeID(fmt.Sprint("d", i+1)), trust: map[uint16]trusted{}}
		s.nodes = append(s.nodes, a)
		s.must(&catalog.RegisterNode{ID: a.id, Address: "a:1", Incarnation: "directory"})
	}
	place := &catalog.PlaceGroups{}
	for number := range testGroups {
		group := catalog.GroupPlacement{Group: uint16(number), Preferred: "d1", Bootstrap: "d1"}
		for _, a := range s.nodes[:min(3, nodes)] {
			group.Voters = append(group.Voters, a.id)
		}
		place.Groups = append(place.Groups, group)
	}
	s.must(place)
	s.failover(false)
	return s
}

func (s *sim) must(command catalog.Command) {
	result := s.apply(command)
	require.NoError(s.t, result.Err)
}

func (s *sim) apply(command catalog.Command) catalog.Result {
	data, err := catalog.Encode(command)
	require.NoError(s.t, err)
	state, result, err := catalog.Apply(s.state, s.state.Index+1, data)
	require.NoError(s.t, err)
	if grants, ok := command.(*catalog.GrantLeases); ok && result.Err == nil {
		for _, grant := range grants.Grants {
			require.Greater(s.t, state.Lease(grant.Group).Epoch, s.epochs[grant.Group], "epochs rise with every grant")
			s.epochs[grant.Group] = state.Lease(grant.Group).Epoch
		}
	}
	s.state = state
	return result
}

// failover lets another member lead. What the old one proposed is committed
// before, or never, and it goes on for a while to confirm what it knows.
func (s *sim) failover(committed bool) {
	s.deposed = deposed{s.book, s.state, s.now.Add(testTTL / handoverShare)}
	for _, command := range s.pending {
		if committed {
			s.apply(command)
		}
	}
	s.pending = nil
	s.book = NewBook(testTTL, s.now)
}

// decide lets the leader grant what is due.
func (s *sim) decide() {
	if command := s.book.Next(View{State: s.state, Leaders: &s.leaders, Now: s.now}); command != nil {
		s.pending = append(s.pending, command)
	}
}

// commit commits the oldest proposal of the leader.
func (s *sim) commit(lost bool) {
	if len(s.pending) == 0 {
		return
	}
	command := s.pending[0]
	s.pending = s.pending[1:]
	if !lost {
		s.apply(command)
	}
}

// leaving reports whether a node has given its leases up and the connection over
// which it did so still exists: it ends with the process, before the next one
// asks for anything.
func (s *sim) leaving(a *archiver) bool {
	return slices.ContainsFunc(s.flight, func(c *call) bool { return c.node == a && c.release })
}

func (s *sim) ask(a *archiver, release bool) {
	if s.leaving(a) {
		return
	}
	if release {
		clear(a.trust) // before it tells anybody
	}
	s.flight = append(s.flight, &call{node: a, life: a.life, sent: s.now, release: release})
}

// deliver takes a message one step further: to the leader, or one that was
// deposed and has not noticed, or back.
func (s *sim) deliver(i int, keep, toOld bool) {
	c := s.flight[i]
	incarnation := fmt.Sprint(c.node.id, "-", c.life)
	if c.replied {
		s.flight = append(s.flight[:i:i], s.flight[i+1:]...)
		if c.life == c.node.life {
			c.node.take(c.held, c.sent)
		}
		return
	}
	if c.release {
		if given := s.book.Release(s.state, c.node.id, incarnation, s.now); len(given) > 0 {
			s.pending = append(s.pending, &catalog.ReleaseLeases{Node: c.node.id, Incarnation: incarnation, Leases: given})
		}
		s.flight = append(s.flight[:i:i], s.flight[i+1:]...)
		return
	}
	if keep { // a copy stays on its way
		again := *c
		s.flight = append(s.flight, &again)
	}
	c.replied = true
	if old := s.deposed; toOld && old.book != nil && s.now.Before(old.until) {
		c.held, _ = old.book.Confirm(old.state, c.node.id, incarnation, s.now)
		return
	}
	c.held, _ = s.book.Confirm(s.state, c.node.id, incarnation, s.now)
}

// take is what a holder does with a reply: it holds what it is told, from when
// it asked.
func (a *archiver) take(held []rpc.Lease, sent time.Time) {
	fresh := map[uint16]trusted{}
	for _, lease := range held {
		fresh[lease.Group] = trusted{lease.Epoch, sent.Add(testTTL + a.slow)}
	}
	a.trust = fresh
}

// check holds what every archiver believes against the others.
func (s *sim) check() {
	holders := map[uint16]rpc.NodeID{}
	for _, a := range s.nodes {
		for number, trust := range a.trust {
			if !s.now.Before(trust.until) {
				continue
			}
			require.Empty(s.t, holders[number], "%s and %s both trust the lease of group %d", a.id, holders[number], number)
			holders[number] = a.id
			require.LessOrEqual(s.t, trust.epoch, s.epochs[number])
		}
	}
}

func (s *sim) restart(a *archiver) {
	a.life++
	a.trust = map[uint16]trusted{}
}

// Whatever is delayed, lost, repeated, paused or restarted: no two archivers
// trust the lease of one group at a time, and epochs rise.
func TestOneTrustedHolder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		s := newSim(r, rapid.IntRange(2, 4).Draw(r, "nodes"))
		for _, a := range s.nodes {
			a.slow = time.Duration(rapid.IntRange(0, int(testTTL/driftShare)).Draw(r, "slow"))
		}
		node := func() *archiver { return rapid.SampledFrom(s.nodes).Draw(r, "node") }
		actions := map[string]func(*rapid.T){
			"": func(*rapid.T) { s.check() },
			"time passes": func(r *rapid.T) {
				s.now = s.now.Add(time.Duration(rapid.IntRange(1, int(testTTL)).Draw(r, "time")))
			},
			"ask":     func(*rapid.T) { s.ask(node(), false) },
			"give up": func(*rapid.T) { s.ask(node(), true) },
			"restart": func(*rapid.T) { s.restart(node()) },
			"decide":  func(*rapid.T) { s.decide() },
			"decide and commit": func(*rapid.T) {
				s.decide()
				s.commit(false)
			},
			"commit":   func(r *rapid.T) { s.commit(rapid.Bool().Draw(r, "lost")) },
			"failover": func(r *rapid.T) { s.failover(rapid.Bool().Draw(r, "committed")) },
			"another leads": func(r *rapid.T) {
				s.leaders[rapid.IntRange(0, testGroups-1).Draw(r, "group")] = node().id
			},
			"deliver": func(r *rapid.T) {
				if len(s.flight) > 0 {
					s.deliver(rapid.IntRange(0, len(s.flight)-1).Draw(r, "message"), rapid.IntRange(0, 4).Draw(r, "copy") == 0, rapid.IntRange(0, 3).Draw(r, "old") == 0)
				}
			},
			"lose": func(r *rapid.T) {
				if len(s.flight) > 0 {
					i := rapid.IntRange(0, len(s.flight)-1).Draw(r, "message")
					s.flight = slices.Delete(s.flight, i, i+1)
				}
			},
			"renew": func(*rapid.T) { s.renew(node()) },
			"go on": func(r *rapid.T) {
				var running []*archiver
				for _, a := range s.nodes {
					if rapid.Bool().Draw(r, "runs") {
						running = append(running, a)
					}
				}
				s.run(testTTL/20*time.Duration(rapid.IntRange(1, 25).Draw(r, "steps")), running...)
			},
		}
		r.Repeat(actions)
	})
}

// renew is a call that takes no time.
func (s *sim) renew(a *archiver) []rpc.Lease {
	if s.leaving(a) {
		return nil
	}
	held, _ := s.book.Confirm(s.state, a.id, a.incarnation(), s.now)
	a.take(held, s.now)
	return held
}

// run lets some archivers renew, as they should, for a time.
func (s *sim) run(span time.Duration, running ...*archiver) {
	for end := s.now.Add(span); s.now.Before(end); s.now = s.now.Add(testTTL / 40) {
		for _, a := range running {
			s.renew(a)
		}
		s.decide()
		s.commit(false)
		s.check()
	}
	for _, a := range running {
		s.renew(a)
	}
}

// holder returns who trusts the lease of a group.
func (s *sim) holder(group uint16) (id rpc.NodeID, epoch uint64) {
	for _, a := range s.nodes {
		if trust, ok := a.trust[group]; ok && s.now.Before(trust.until) {
			return a.id, trust.epoch
		}
	}
	return "", 0
}
