package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// roles are those whose processes are disturbed, alone and in pairs.
var roles = [][]string{
	{"data"}, {"control"}, {"router"},
	{"data", "data"}, {"data", "control"}, {"data", "router"}, {"control", "control"}, {"control", "router"},
}

// disturbances are what is done to processes of these roles.
var disturbances = []struct {
	name   string
	inject func(*scene, []*Node)
}{
	{"kill", (*scene).killFor},
	{"pause", (*scene).pauseFor},
	{"isolate", (*scene).isolateFor},
}

// links are what is done to the network between the two of a pair.
var links = []struct {
	name        string
	there, back Rule
}{
	{"cut between", Rule{Cut: true}, Rule{Cut: true}},
	{"hold between", Rule{Hold: true}, Rule{Hold: true}},
	{"hold one way from", Rule{Hold: true}, Rule{}},
}

// everyFault is each disturbance of each role and pair of roles, and each
// trouble of the network between the two of a pair.
func everyFault() []fault {
	var all []fault
	for _, d := range disturbances {
		for _, who := range roles {
			all = append(all, fault{d.name + " " + strings.Join(who, " and "), func(s *scene) {
				victims := s.draw(who)
				s.t.Logf("%s: %s", d.name, names(victims))
				d.inject(s, victims)
			}})
		}
	}
	for _, l := range links {
		for _, who := range roles {
			if len(who) == 2 {
				all = append(all, fault{l.name + " " + strings.Join(who, " and "), func(s *scene) {
					pair := s.draw(who)
					s.t.Logf("%s %s", l.name, names(pair))
					s.c.Network.Set(pair[0].Name, pair[1].Name, l.there)
					s.c.Network.Set(pair[1].Name, pair[0].Name, l.back)
					s.goOn()
					s.c.Network.Heal()
				}})
			}
		}
	}
	return all
}

// TestEveryFault lets everything go wrong that is listed above, one after
// another.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	skipShort(t)
	c := start(t, Config{Control: 3, Data: 3, Routers: 2, Proxied: true})
	watch := watchMachine(t)
	seed := seedOf(t)
	for i, f := range everyFault() {
		ok := t.Run(f.name, func(t *testing.T) {
			l := startLoad(t, c, fmt.Sprintf("every-%d", i), 12, 100*time.Millisecond)
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

// draw picks a different process for each of the roles. The first router is
// never picked: through it the suite sees what goes on meanwhile.
func (s *scene) draw(who []string) []*Node {
	var out []*Node
	for _, role := range who {
		among := map[string][]*Node{"data": s.c.Data, "control": s.c.Control, "router": s.c.Routers[1:]}[role]
		among = slices.DeleteFunc(slices.Clone(among), func(n *Node) bool { return slices.Contains(out, n) })
		out = append(out, among[s.random.IntN(len(among))])
	}
	return out
}

func names(nodes []*Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return strings.Join(out, " and ")
}

// goOn lets a fault last while no more than the given nodes are gone, and makes
// sure that appends succeed meanwhile when those that are left can serve them.
func (s *scene) goOn(gone ...*Node) {
	s.t.Helper()
	data := 0
	for _, n := range gone {
		if slices.Contains(s.c.Data, n) {
			data++
		}
	}
	if data <= 1 {
		s.load.awaitAppends(s.t)
	}
	s.last()
}

func (s *scene) killFor(victims []*Node) {
	for _, n := range victims {
		n.Kill()
	}
	s.goOn(victims...)
	s.restart(victims...)
}

func (s *scene) pauseFor(victims []*Node) {
	for _, n := range victims {
		require.NoError(s.t, n.Pause())
	}
	s.goOn(victims...)
	for _, n := range victims {
		require.NoError(s.t, n.Continue())
	}
	ready(s.t, victims...)
}

// isolateFor takes each of the victims from everybody else.
func (s *scene) isolateFor(victims []*Node) {
	for _, n := range victims {
		for _, other := range s.c.Nodes() {
			if other != n {
				s.c.Network.Between(n.Name, other.Name, Rule{Hold: true})
			}
		}
	}
	s.goOn(victims...)
	s.c.Network.Heal()
	s.load.awaitAppends(s.t)
	ready(s.t, victims...)
}

// A run of a seed can be repeated: it draws the same faults and victims.
func TestSeedRepeatsFaults(t *testing.T) {
	t.Parallel()
	c := prepare(t, Config{Control: 3, Data: 3, Routers: 2})
	drawn := func(seed uint64) (all []string) {
		for step := range 50 {
			f, random := drawFault(seed, step)
			s := &scene{c: c, random: random}
			all = append(all, f.name+": "+names(s.draw(roles[step%len(roles)])))
		}
		return all
	}
	require.Equal(t, drawn(1), drawn(1))
	require.NotEqual(t, drawn(1), drawn(2))
}
