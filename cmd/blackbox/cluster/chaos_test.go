package cluster

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	chaosFor  = flag.Duration("chaos", 0, "how long TestChaos runs; 0 skips it")
	chaosSeed = flag.Uint64("chaos-seed", 0, "seed of the faults of TestChaos; 0 draws one")
)

// harsher are the faults that only the long run draws.
var harsher = []fault{
	{"one way between two nodes", (*scene).holdOneWay},
	{"one node hears nobody", (*scene).deafNode},
	{"one node is heard by nobody", (*scene).muteNode},
	{"cut between two nodes", (*scene).cutPair},
	{"slow network", (*scene).slowNetwork},
	{"a router cut from a node", (*scene).cutRouter},
	{"the control plane cut from a node", (*scene).cutControl},
	{"kill two data nodes", (*scene).killTwo},
	{"kill one data node while another is paused", (*scene).killWhilePaused},
	{"kill a data node again and again", (*scene).killAgain},
	{"restart a follower of a partitioned leader", (*scene).restartVoter},
	{"wipe a data node", (*scene).wipeNode},
}

// TestChaos lets faults, drawn by a seed, go wrong one after another for a
// given time. The seed repeats the order of faults and whom they hit; what they
// interrupt differs from run to run.
func TestChaos(t *testing.T) {
	if *chaosFor == 0 {
		t.Skip("takes -chaos, see make chaos")
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos-seed %d repeats this run", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := start(t, Config{Control: 3, Data: 3, Routers: 2, Proxied: true})
	watch := watchMachine(t)
	all := slices.Concat(faults, harsher)
	for round, end := 0, time.Now().Add(*chaosFor); time.Now().Before(end); round++ {
		ok := t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) {
			l := startLoad(t, c, fmt.Sprintf("chaos-%d", round), 32, 30*time.Millisecond)
			l.awaitAppends(t)
			for range 1 + random.IntN(3) {
				f := all[random.IntN(len(all))]
				t.Logf("%v: %s", l.history.now().Round(time.Millisecond), f.name)
				f.inject(&scene{t: t, c: c, load: l, watch: watch, random: random, long: true})
				l.awaitAppends(t)
			}
			l.finish(t)
			require.NoError(t, c.CheckRunning())
		})
		if !ok {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
}

// last is how long a fault of the network lasts: longer than any election, or
// so short that it only disturbs one.
func (s *scene) last() {
	s.t.Helper()
	stay(s.t, time.Duration(s.random.Int64N(int64(6*time.Second))))
}

// pair are two different data nodes.
func (s *scene) pair() (a, b *Node) {
	order := s.random.Perm(len(s.c.Data))
	return s.c.Data[order[0]], s.c.Data[order[1]]
}

func (s *scene) holdOneWay() {
	a, b := s.pair()
	s.c.Network.Set(a.Name, b.Name, Rule{Hold: true})
	s.last()
	s.c.Network.Heal()
}

func (s *scene) deafNode() {
	n := s.anyData()
	for _, peer := range s.others(n) {
		s.c.Network.Set(peer.Name, n.Name, Rule{Hold: true})
	}
	s.load.awaitAppends(s.t)
	s.last()
	s.c.Network.Heal()
}

func (s *scene) muteNode() {
	n := s.anyData()
	for _, peer := range s.others(n) {
		s.c.Network.Set(n.Name, peer.Name, Rule{Hold: true})
	}
	s.load.awaitAppends(s.t)
	s.last()
	s.c.Network.Heal()
}

func (s *scene) cutPair() {
	a, b := s.pair()
	s.c.Network.Between(a.Name, b.Name, Rule{Cut: true})
	s.last()
	s.c.Network.Heal()
}

func (s *scene) slowNetwork() {
	for _, from := range s.c.Nodes() {
		for _, to := range s.c.Nodes() {
			s.c.Network.Set(from.Name, to.Name, Rule{Delay: time.Duration(s.random.Int64N(int64(40 * time.Millisecond)))})
		}
	}
	s.last()
	s.c.Network.Heal()
}

func (s *scene) cutRouter() {
	router := s.c.Routers[s.random.IntN(len(s.c.Routers))]
	s.c.Network.Between(router.Name, s.anyData().Name, Rule{Cut: s.random.IntN(2) == 0, Hold: true})
	s.last()
	s.c.Network.Heal()
}

func (s *scene) cutControl() {
	n := s.anyData()
	for _, member := range s.c.Control {
		s.c.Network.Between(member.Name, n.Name, Rule{Hold: true})
	}
	s.load.awaitAppends(s.t)
	s.last()
	s.c.Network.Heal()
	ready(s.t, n)
}

func (s *scene) killTwo() {
	a, b := s.pair()
	a.Kill()
	b.Kill()
	s.last()
	s.restart(a, b)
}

func (s *scene) killWhilePaused() {
	a, b := s.pair()
	require.NoError(s.t, a.Pause())
	s.last()
	b.Kill()
	require.NoError(s.t, b.Start())
	require.NoError(s.t, a.Continue())
	ready(s.t, a, b)
}

func (s *scene) killAgain() {
	n := s.anyData()
	for range 5 {
		require.NoError(s.t, n.Restart())
		stay(s.t, time.Duration(s.random.Int64N(int64(time.Second))))
	}
	ready(s.t, n)
}

// restartVoter takes a node from one peer and restarts the other peer, quickly:
// it may have promised a leader not to vote for anybody else for a while, and
// must not forget that with the restart.
func (s *scene) restartVoter() {
	leader := leadsMost(s.t, s.c, leadersOf(s.t, s.c, s.load.conversations))
	peers := s.others(leader)
	s.c.Network.Between(leader.Name, peers[0].Name, Rule{Hold: true})
	stay(s.t, 500*time.Millisecond+time.Duration(s.random.Int64N(int64(time.Second))))
	require.NoError(s.t, peers[1].Restart())
	s.load.awaitAppends(s.t)
	s.c.Network.Heal()
	ready(s.t, peers...)
}

func (s *scene) wipeNode() {
	n := s.anyData()
	n.Kill()
	s.load.awaitAppends(s.t)
	require.NoError(s.t, n.Wipe())
	s.restart(n)
	counts(s.t, s.c, s.load, n)
}
