package reconcile

import (
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

const (
	simTTL          = 3 * time.Second
	simReplaceAfter = 20 * time.Second
)

// sim is a cluster whose data plane obeys the rules of Raft and whose control
// plane is this package over a real catalog. Everything else is up to chance:
// who crashes, loses its disk, hears what and when.
type sim struct {
	t        require.TestingT
	now      time.Time
	state    *catalog.State
	evidence *Evidence
	seen     map[rpc.NodeID]time.Time // by this control leader
	tenure   time.Time
	nodes    []*simNode
	groups   []*simGroup
	flight   []simReport
	wipes    int
}

type simNode struct {
	id       rpc.NodeID
	life     int // number of its data directory
	up       bool
	assigned *rpc.Assignment // nil until the first session after a start
	floor    uint64
	replicas map[uint16]uint64 // applied, by group hosted
	deposed  map[uint16]rpc.GroupReport
}

// simGroup is the truth about a group.
type simGroup struct {
	number  uint16
	term    uint64
	leader  *simNode
	commit  uint64
	members []rpc.Replica
}

type simReport struct {
	rpc.Report
	life int
}

func newSim(t require.TestingT, nodes, groups, first int) *sim {
	s := &sim{t: t, now: time.Unix(1e9, 0), state: &catalog.State{}}
	s.failover()
	s.must(&catalog.CreateCluster{ClusterID: "sim", ReplicationFactor: 3, At: s.now})
	for i := range nodes {
		n := &simNode{id: rpc.NodeID(fmt.Sprint("d", i+1)), up: true, life: 1, replicas: map[uint16]uint64{}, deposed: map[uint16]rpc.GroupReport{}}
		s.nodes = append(s.nodes, n)
		s.must(n.registration(""))
	}
	place := &catalog.PlaceGroups{}
	form := &catalog.FormGroups{}
	for number := range groups {
		g := &simGroup{number: uint16(number), term: 1, commit: 1, leader: s.nodes[0]}
		placement := catalog.GroupPlacement{Group: g.number, Preferred: "d1", Bootstrap: "d1"}
		for _, n := range s.nodes[:first] {
			placement.Voters = append(placement.Voters, n.id)
			g.members = append(g.members, rpc.Replica{Node: n.id, Voter: true})
			n.replicas[g.number] = 1
		}
		place.Groups = append(place.Groups, placement)
		form.Groups = append(form.Groups, g.number)
		s.groups = append(s.groups, g)
	}
	s.must(place)
	s.must(form)
	return s
}

func (n *simNode) incarnation() string { return fmt.Sprint(n.id, "-", n.life) }

func (n *simNode) registration(replaces string) *catalog.RegisterNode {
	return &catalog.RegisterNode{ID: n.id, Address: "a:1", Incarnation: n.incarnation(), Replaces: replaces}
}

func (s *sim) apply(command catalog.Command) catalog.Result {
	data, err := catalog.Encode(command)
	require.NoError(s.t, err)
	state, result, err := catalog.Apply(s.state, s.state.Index+1, data)
	require.NoError(s.t, err)
	s.state = state
	return result
}

func (s *sim) must(command catalog.Command) { require.NoError(s.t, s.apply(command).Err) }

// failover replaces the control leader by one that knows nothing.
func (s *sim) failover() {
	s.evidence, s.seen, s.tenure = NewEvidence(), map[rpc.NodeID]time.Time{}, s.now
}

func (s *sim) lives() map[rpc.NodeID]Life {
	lives := map[rpc.NodeID]Life{}
	for _, n := range s.nodes {
		since, called := s.seen[n.id]
		if !called {
			since = s.tenure
		}
		if life := s.now.Sub(since); called && life < simTTL {
			lives[n.id] = Life{Alive: true}
		} else {
			lives[n.id] = Life{Silent: life}
		}
	}
	return lives
}

func (s *sim) view() View {
	return View{
		State: s.state, Evidence: s.evidence, Lives: s.lives(), Expected: 1, Now: s.now,
		Limits: Limits{MaxMoves: 3, MaxJoins: 2, ReplaceAfter: simReplaceAfter},
	}
}

func (s *sim) next() catalog.Command { return Next(s.view()) }

// tick lets the control leader decide. The command may be lost, be committed
// although the leader never learns, or be proposed twice.
func (s *sim) tick(lost, failover, twice bool) {
	command := s.next()
	if command == nil || lost {
		return
	}
	s.judge(command)
	s.must(command)
	if twice {
		_ = s.apply(command)
	}
	if failover {
		s.failover()
	}
	moves := 0
	joins := map[rpc.NodeID]int{}
	for number := range s.state.Moves() {
		moves++
		for _, id := range s.state.Placed[number].Move.Join {
			joins[id]++
			require.LessOrEqual(s.t, joins[id], 2)
		}
	}
	require.LessOrEqual(s.t, moves, 3)
}

// judge holds a decision against the truth.
func (s *sim) judge(command catalog.Command) {
	switch c := command.(type) {
	case *catalog.StartMoves:
		for _, start := range c.Moves {
			for _, id := range start.Join {
				require.False(s.t, s.groups[start.Group].member(id), "%s joins group %d, of which it is a member", id, start.Group)
			}
		}
	case *catalog.AdvanceMoves:
		for _, step := range c.Steps {
			if step.From != catalog.PhaseJoin {
				continue
			}
			for _, id := range s.state.Placed[step.Group].Move.Join {
				n := s.node(id)
				if s.state.Nodes[id].Incarnation == n.incarnation() { // not wiped since it reported
					require.NotZero(s.t, n.replicas[step.Group], "%s is to vote in group %d without having anything", id, step.Group)
				}
			}
		}
	}
}

func (s *sim) node(id rpc.NodeID) *simNode {
	return s.nodes[slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.id == id })]
}

// report sends what a node knows; it arrives later, perhaps never or twice.
func (s *sim) report(n *simNode) {
	r := simReport{life: n.life}
	r.Node.ID = n.id
	if n.assigned != nil {
		r.HaveAssignment = n.assigned.Version
	}
	for _, g := range s.groups {
		applied, hosts := n.replicas[g.number]
		if !hosts {
			continue
		}
		if old, believes := n.deposed[g.number]; believes {
			r.Groups = append(r.Groups, old)
			continue
		}
		r.Groups = append(r.Groups, rpc.GroupReport{
			Group: g.number, Leading: g.leader == n, Term: g.term, Applied: applied, LastIndex: applied, Replicas: slices.Clone(g.members),
		})
	}
	s.flight = append(s.flight, r)
}

// deliver hands a report to the control leader and the answer to the node.
func (s *sim) deliver(i int, keep, answerLost bool) {
	r := s.flight[i]
	if !keep {
		s.flight = slices.Delete(s.flight, i, i+1)
	}
	n := s.node(r.Node.ID)
	registered := s.state.Nodes[n.id]
	if incarnation := fmt.Sprint(n.id, "-", r.life); registered.Incarnation != incarnation {
		if r.life != n.life || s.now.Sub(s.seen[n.id]) < simTTL {
			return // a directory of the past, or one that may still live
		}
		s.must(n.registration(registered.Incarnation))
	}
	s.seen[n.id] = s.now
	s.evidence.Observe(&r.Report, s.state, s.now)
	if a, _ := s.state.Assignment(n.id); n.up && r.life == n.life && !answerLost && a.Version >= n.floor {
		s.follow(n, a)
	}
}

// follow makes a node host what it is told to, no more and no less.
func (s *sim) follow(n *simNode, a *rpc.Assignment) {
	n.assigned, n.floor = a, a.Version
	hosted := map[uint16]uint64{}
	for _, group := range a.Groups {
		hosted[group.Group] = n.replicas[group.Group]
	}
	for number := range n.replicas {
		if _, stays := hosted[number]; !stays {
			g := s.groups[number]
			require.False(s.t, g.member(n.id), "%s deletes its replica of group %d, a member of %v", n.id, number, g.members)
			delete(n.deposed, number)
		}
	}
	n.replicas = hosted
}

func (g *simGroup) member(id rpc.NodeID) bool {
	return slices.ContainsFunc(g.members, func(r rpc.Replica) bool { return r.Node == id })
}

// voters returns how many members vote and which of them run.
func (s *sim) voters(members []rpc.Replica, number uint16) (total int, up []*simNode) {
	for _, m := range members {
		if !m.Voter {
			continue
		}
		total++
		n := s.node(m.Node)
		if _, hosts := n.replicas[number]; hosts && n.up {
			up = append(up, n)
		}
	}
	return total, up
}

// commitEntry replicates one entry of a group to a quorum; the others lag.
func (s *sim) commitEntry(g *simGroup, members []rpc.Replica, everyone bool) bool {
	total, up := s.voters(members, g.number)
	_, hosts := g.leader.replicas[g.number]
	if !g.leader.up || !hosts || len(up) <= total/2 {
		return false
	}
	g.commit++
	g.leader.replicas[g.number] = g.commit
	acks := 0
	if slices.Contains(up, g.leader) {
		acks = 1
	}
	for _, n := range up {
		if n != g.leader && (everyone || acks <= total/2) {
			n.replicas[g.number] = g.commit
			acks++
		}
	}
	return true
}

// elect makes a replica leader if enough voters would grant it their vote.
func (s *sim) elect(g *simGroup, candidate *simNode) bool {
	total, up := s.voters(g.members, g.number)
	if !slices.Contains(up, candidate) || g.leader == candidate {
		return false
	}
	votes := 0
	for _, n := range up {
		if n.replicas[g.number] <= candidate.replicas[g.number] {
			votes++
		}
	}
	if votes <= total/2 {
		return false
	}
	require.Equal(s.t, g.commit, candidate.replicas[g.number], "group %d elects %s, which lacks what was committed", g.number, candidate.id)
	if old := g.leader; old.up {
		old.deposed[g.number] = rpc.GroupReport{
			Group: g.number, Leading: true, Term: g.term, Applied: old.replicas[g.number], LastIndex: g.commit, Replicas: slices.Clone(g.members),
		}
	}
	g.term++
	g.leader = candidate
	delete(candidate.deposed, g.number)
	return true
}

// converge is the step that a leading data node takes towards its assignment.
func (s *sim) converge(g *simGroup) {
	if !g.leader.up || g.leader.assigned == nil {
		return
	}
	at := slices.IndexFunc(g.leader.assigned.Groups, func(a rpc.GroupAssignment) bool { return a.Group == g.number })
	if at < 0 {
		return
	}
	want := g.leader.assigned.Groups[at].Replicas
	voting := true
	for _, w := range want {
		i := slices.IndexFunc(g.members, func(m rpc.Replica) bool { return m.Node == w.Node })
		if i < 0 {
			s.change(g, append(slices.Clone(g.members), rpc.Replica{Node: w.Node}))
			return
		}
		if w.Voter && !g.members[i].Voter {
			if n := s.node(w.Node); n.up && n.replicas[g.number]+catchUpSlack >= g.commit && n.replicas[g.number] > 0 {
				next := slices.Clone(g.members)
				next[i].Voter = true
				s.change(g, next)
				return
			}
			voting = false
		}
	}
	if !voting {
		return
	}
	for i, m := range g.members {
		if slices.ContainsFunc(want, func(w rpc.Replica) bool { return w.Node == m.Node }) {
			continue
		}
		if m.Node != g.leader.id {
			s.change(g, slices.Delete(slices.Clone(g.members), i, i+1))
			return
		}
	}
	if !slices.ContainsFunc(want, func(w rpc.Replica) bool { return w.Node == g.leader.id }) {
		_, up := s.voters(g.members, g.number)
		for _, n := range up {
			if s.elect(g, n) {
				return
			}
		}
	}
}

func (s *sim) change(g *simGroup, members []rpc.Replica) {
	if s.commitEntry(g, members, false) {
		g.members = members
	}
}

// wipe empties a node's disk if Raft could stand that: the groups in which it
// votes keep a quorum that holds everything.
func (s *sim) wipe(n *simNode) {
	for _, g := range s.groups {
		if !g.member(n.id) {
			continue
		}
		total, full := 0, 0
		for _, m := range g.members {
			if !m.Voter {
				continue
			}
			total++
			if applied, hosts := s.node(m.Node).replicas[g.number]; hosts && applied == g.commit && m.Node != n.id {
				full++
			}
		}
		if full <= total/2 {
			return
		}
	}
	s.wipes++
	n.life++
	n.replicas, n.deposed, n.assigned, n.floor = map[uint16]uint64{}, map[uint16]rpc.GroupReport{}, nil, 0
}

// check is what must hold at every moment.
func (s *sim) check() {
	for _, g := range s.groups {
		total, able, full := 0, 0, 0
		for _, m := range g.members {
			if !m.Voter {
				continue
			}
			total++
			if applied, hosts := s.node(m.Node).replicas[g.number]; hosts {
				able++
				if applied == g.commit {
					full++
				}
			}
		}
		require.Greater(s.t, able, total/2, "group %d has lost its quorum: %v", g.number, g.members)
		require.LessOrEqual(s.t, able-full, total/2, "group %d could elect a leader that lacks what was committed: %v", g.number, g.members)
	}
}

// settle lets everything run and be heard for a number of rounds, or until
// nothing has changed for some.
func (s *sim) settle(rounds int) {
	for _, n := range s.nodes {
		n.up = true
	}
	s.run(rounds)
}

// run is settle with nodes that are down left so.
func (s *sim) run(rounds int) {
	quiet := 0
	for range rounds {
		before := s.state.Revision
		if quiet++; quiet > 20 {
			return
		}
		s.now = s.now.Add(300 * time.Millisecond)
		for _, n := range s.nodes {
			clear(n.deposed)
			if n.up {
				s.report(n)
			}
		}
		for len(s.flight) > 0 {
			s.deliver(0, false, false)
		}
		for _, g := range s.groups {
			_, up := s.voters(g.members, g.number)
			if _, hosts := g.leader.replicas[g.number]; !hosts || !g.leader.up {
				for _, n := range up {
					s.elect(g, n)
				}
			}
			s.converge(g)
			s.replicate(g)
		}
		for range 4 {
			s.tick(false, false, false)
		}
		s.check()
		if s.state.Revision != before {
			quiet = 0
		}
	}
}

// replicate lets every replica that a leader knows catch up.
func (s *sim) replicate(g *simGroup) {
	if !g.leader.up {
		return
	}
	for _, m := range g.members {
		if n := s.node(m.Node); n.up {
			if _, hosts := n.replicas[g.number]; hosts {
				n.replicas[g.number] = g.commit
			}
		}
	}
}
