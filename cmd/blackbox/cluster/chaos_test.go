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
	chaosSeed = flag.Uint64("chaos-seed", 0, "seed of the faults of all tests; 0 draws one")
	chaosFrom = flag.Int("chaos-from", 0, "number of the first fault of TestChaos")
)

const (
	// chaosRound is how many faults go wrong between two looks at everything.
	chaosRound = 3
	// longestFault bounds how long a fault of the network lasts.
	longestFault = 6 * time.Second
)

// harsher are the faults that only the long run draws.
var harsher = []fault{
	{"one node hears nobody", (*scene).deafNode},
	{"one node is heard by nobody", (*scene).muteNode},
	{"slow network", (*scene).slowNetwork},
	{"the control plane cut from a node", (*scene).cutControl},
	{"kill one data node while another is paused", (*scene).killWhilePaused},
	{"kill a data node again and again", (*scene).killAgain},
	{"restart a follower of a partitioned leader", (*scene).restartVoter},
	{"wipe a data node", (*scene).wipeNode},
}

// seedOf returns the seed that was asked for or draws one, and tells which.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := *chaosSeed
	for seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos-seed %d repeats the faults of this run", seed)
	return seed
}

// drawFault returns the fault of one step of a long run, and the source of
// everything that is drawn for it. It depends on nothing but seed and step. The
// systematic faults, which are many, are half of all.
func drawFault(seed uint64, step int) (fault, *rand.Rand) {
	random := rand.New(rand.NewPCG(seed, uint64(step)))
	all := slices.Concat(faults, harsher)
	if random.IntN(2) == 0 {
		all = everyFault()
	}
	return all[random.IntN(len(all))], random
}

// TestChaos lets faults, drawn by a seed, go wrong one after another for a
// given time. The seed repeats the order of the faults, how long they last and
// whom they hit, unless they aim at who leads most; what they interrupt differs
// from run to run.
func TestChaos(t *testing.T) {
	if *chaosFor == 0 {
		t.Skip("takes -chaos, see make chaos")
	}
	seed := seedOf(t)
	c := start(t, Config{Control: 3, Data: 3, Routers: 2, Proxied: true})
	watch := watchMachine(t)
	for step, end := *chaosFrom, time.Now().Add(*chaosFor); time.Now().Before(end); step += chaosRound {
		ok := t.Run(fmt.Sprintf("from %d", step), func(t *testing.T) {
			l := startLoad(t, c, fmt.Sprintf("chaos-%d", step), 32, 50*time.Millisecond)
			l.awaitAppends(t)
			for i := step; i < step+chaosRound; i++ {
				f, random := drawFault(seed, i)
				t.Logf("%v: fault %d: %s", l.history.now().Round(time.Millisecond), i, f.name)
				f.inject(&scene{t: t, c: c, load: l, watch: watch, random: random, long: true})
				l.awaitAppends(t)
			}
			l.finish(t)
			require.NoError(t, c.CheckRunning())
			sameReplicas(t, c)
		})
		if !ok {
			t.Fatalf("-chaos-seed %d -chaos-from %d begins with the faults of this round", seed, step)
		}
	}
}

// last is how long a fault of the network lasts: longer than any election, or
// so short that it only disturbs one.
func (s *scene) last() {
	s.t.Helper()
	stay(s.t, time.Duration(s.random.Int64N(int64(longestFault))))
}

// pair are two different data nodes.
func (s *scene) pair() (a, b *Node) {
	order := s.random.Perm(len(s.c.Data))
	return s.c.Data[order[0]], s.c.Data[order[1]]
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

func (s *scene) slowNetwork() {
	for _, from := range s.c.Nodes() {
		for _, to := range s.c.Nodes() {
			s.c.Network.Set(from.Name, to.Name, Rule{Delay: time.Duration(s.random.Int64N(int64(40 * time.Millisecond)))})
		}
	}
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
	began := time.Now()
	s.restart(n)
	counts(s.t, s.c, s.load, n, began)
}
