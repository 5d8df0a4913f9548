package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A fault is one thing that goes wrong while clients append and read, and the
// way back: when it returns, everything runs again and is ready.
type fault struct {
	name   string
	inject func(s *scene)
}

// scene is what a fault has to work with.
type scene struct {
	t      *testing.T
	c      *Cluster
	load   *load
	watch  *machine
	random *rand.Rand
	// long is set in the long run, where a fault may last.
	long bool
}

// faults of the short run, each of which the long run also draws from. The
// order matters: the first finds the leaders where the cluster has put them.
var faults = []fault{
	{"kill the node that leads most", (*scene).killLeader},
	{"pause a node and a router", (*scene).pauseNode},
	{"partition a node from its peers", (*scene).partitionNode},
	{"kill a router", (*scene).killRouter},
	{"kill the control leader", (*scene).killControlLeader},
	{"kill the whole control plane, and a node meanwhile", (*scene).killControlPlane},
	{"cut one node from another", (*scene).cutPair},
	{"kill all data nodes at once", (*scene).killAllData},
}

// TestFaults lets one thing after another go wrong on a cluster under load. Each
// ends with a look at everything that clients were told.
func TestFaults(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Control: 3, Data: 3, Routers: 2, Proxied: true})
	watch := watchMachine(t)
	seed := seedOf(t)
	for i, f := range faults {
		ok := t.Run(f.name, func(t *testing.T) {
			l := startLoad(t, c, fmt.Sprintf("fault-%d", i), 24, 100*time.Millisecond)
			l.awaitAppends(t)
			f.inject(&scene{t: t, c: c, load: l, watch: watch, random: rand.New(rand.NewPCG(seed, uint64(i)))})
			l.awaitAppends(t)
			l.finish(t)
			require.NoError(t, c.CheckRunning())
		})
		if !ok {
			t.Fatal("the cluster is in no known state")
		}
	}
	sameReplicas(t, c)
}

// others are the data nodes but one.
func (s *scene) others(n *Node) []*Node {
	return slices.DeleteFunc(slices.Clone(s.c.Data), func(o *Node) bool { return o == n })
}

func (s *scene) anyData() *Node { return s.c.Data[s.random.IntN(len(s.c.Data))] }

// restart starts a process that is not running, and waits until it is ready.
func (s *scene) restart(nodes ...*Node) {
	s.t.Helper()
	for _, n := range nodes {
		require.NoError(s.t, n.Start())
	}
	ready(s.t, nodes...)
}

// killLeader kills the data node that leads most with SIGKILL. Appends to its
// groups succeed again; appends to the groups that others lead never fail.
func (s *scene) killLeader() {
	leaders := leadersOf(s.t, s.c, s.load.conversations)
	victim := leadsMost(s.t, s.c, leaders)
	s.watch.reset()
	killed := s.load.history.now()
	victim.Kill()
	outage := s.load.awaitAppendsSince(s.t, killed)
	recovered := s.load.history.now()
	own := map[string]time.Duration{}
	for id, leader := range leaders {
		if leader == victim {
			own[id] = outage[id]
			continue
		}
		if failed := s.load.history.failures(id, killed, recovered); len(failed) > 0 && !s.long {
			s.watch.blame(s.t, "%s killed: operations on %s failed, which %s leads: %v", victim.Name, id, leader.Name, failed)
		}
	}
	s.t.Logf("%s killed, which led %d of %d conversations: appends to them succeeded after %s",
		victim.Name, len(own), len(leaders), spread(own))
	s.restart(victim)
}

// pauseNode stops a data node and a router with SIGSTOP. Others take over. When
// both go on, the node still believes to lead, and the router believes so too:
// the node must acknowledge nothing and serve nothing old.
func (s *scene) pauseNode() {
	leaders := leadersOf(s.t, s.c, s.load.conversations)
	victim := leadsMost(s.t, s.c, leaders)
	router := s.c.Routers[len(s.c.Routers)-1]
	require.NoError(s.t, router.Pause())
	require.NoError(s.t, victim.Pause())
	since := s.load.history.now()
	s.t.Logf("%s paused: appends succeeded after %s", victim.Name, spread(s.load.awaitAppendsSince(s.t, since)))
	require.NoError(s.t, router.Continue())
	require.NoError(s.t, victim.Continue())
	s.load.awaitAppends(s.t)
	ready(s.t, victim, router)
}

// partitionNode takes a data node from its peers; routers and the control plane
// still reach it.
func (s *scene) partitionNode() {
	leaders := leadersOf(s.t, s.c, s.load.conversations)
	victim := leadsMost(s.t, s.c, leaders)
	for _, peer := range s.others(victim) {
		s.c.Network.Between(victim.Name, peer.Name, Rule{Hold: true})
	}
	since := s.load.history.now()
	s.t.Logf("%s partitioned: appends succeeded after %s", victim.Name, spread(s.load.awaitAppendsSince(s.t, since)))
	s.c.Network.Heal()
	s.load.awaitAppends(s.t)
	ready(s.t, victim)
}

// cutPair breaks all connections between two data nodes, and refuses new ones.
func (s *scene) cutPair() {
	a, b := s.pair()
	s.c.Network.Between(a.Name, b.Name, Rule{Cut: true})
	s.goOn()
	s.c.Network.Heal()
}

// killRouter kills the second router; the first serves on. Then the first, so
// that nobody serves until it is back.
func (s *scene) killRouter() {
	second := s.c.Routers[len(s.c.Routers)-1]
	second.Kill()
	s.load.awaitAppends(s.t)
	s.restart(second)
	s.c.Routers[0].Kill()
	s.restart(s.c.Routers[0])
}

// killControlLeader kills each member of the control plane in turn, so that the
// leader is among them, and gives the others something to decide meanwhile.
func (s *scene) killControlLeader() {
	for _, member := range s.c.Control {
		member.Kill()
		s.load.awaitAppends(s.t)
		require.NoError(s.t, s.c.Routers[len(s.c.Routers)-1].Restart())
		ready(s.t, s.c.Routers[len(s.c.Routers)-1])
		s.restart(member)
	}
}

// killControlPlane kills all members of the control plane. Appends and reads go
// on. A data node that is killed meanwhile comes back with the assignment that
// it has kept: with it, and without another one, there is a quorum.
func (s *scene) killControlPlane() {
	for _, member := range s.c.Control {
		member.Kill()
	}
	s.load.awaitAppends(s.t)
	if s.long {
		s.nothingFails(time.Minute)
	} else {
		s.nothingFails(10 * time.Second)
	}
	first := s.anyData()
	require.NoError(s.t, first.Restart())
	s.load.awaitAppends(s.t)
	second := s.others(first)[s.random.IntN(2)]
	second.Kill()
	since := s.load.history.now()
	s.t.Logf("%s killed without a control plane: appends succeeded after %s", second.Name, spread(s.load.awaitAppendsSince(s.t, since)))
	require.NoError(s.t, second.Start())
	s.restart(s.c.Control...)
	ready(s.t, s.c.Nodes()...)
}

// nothingFails lets clients go on for a while in which nobody is missing whom
// they need: none of their appends and reads may fail.
func (s *scene) nothingFails(d time.Duration) {
	s.watch.reset()
	since := s.load.history.now()
	stay(s.t, d)
	s.load.awaitAppends(s.t)
	if troubles := s.load.history.troubles(since); len(troubles) > 0 {
		s.watch.blame(s.t, "%d operations failed, such as %s", len(troubles), troubles[0])
	}
}

// killAllData kills all data nodes at once.
func (s *scene) killAllData() {
	for _, n := range s.c.Data {
		require.NoError(s.t, n.Pause())
	}
	for _, n := range s.c.Data {
		n.Kill()
	}
	began := time.Now()
	for _, n := range s.c.Data {
		require.NoError(s.t, n.Start())
	}
	since := s.load.history.now()
	outage := s.load.awaitAppendsSince(s.t, since)
	ready(s.t, s.c.Data...)
	s.t.Logf("all data nodes restarted: appends succeeded after %s, ready after %v", spread(outage), time.Since(began).Round(time.Millisecond))
}
