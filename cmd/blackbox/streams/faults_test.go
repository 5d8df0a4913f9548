package streams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// scene is what a fault has to work with.
type scene struct {
	t       *testing.T
	c       *cluster.Cluster
	writers *writers
	random  *rand.Rand
	// before is how far each group was when the run began: those that have moved
	// on since are the ones that conversations are in.
	before map[int]uint64
}

// faults are what goes wrong while clients follow. When one returns, all
// processes run and are ready. The first comes first in the first round, when
// leaders are where the cluster has put them.
var faults = []struct {
	name   string
	inject func(*scene)
}{
	{"move leaders", (*scene).moveLeaders},
	{"restart a router", (*scene).restartRouter},
	{"kill a router", (*scene).killRouter},
	{"kill the data node that leads most", (*scene).killLeader},
	{"depose a leader that still hears its routers", (*scene).deposeLeader},
	{"hold what a router hears of a leader", (*scene).holdRouter},
	{"restart a data node", (*scene).restartData},
	{"kill all routers", (*scene).killRouters},
}

func (s *scene) ready(nodes ...*cluster.Node) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), process.ReadyTimeout)
	defer cancel()
	for _, n := range nodes {
		require.NoError(s.t, n.WaitReady(ctx))
	}
}

func (s *scene) anyRouter() *cluster.Node { return s.c.Routers[s.random.IntN(len(s.c.Routers))] }

// terminate has a process stop as an operator does; it must exit with 0.
func (s *scene) terminate(n *cluster.Node) {
	s.t.Helper()
	require.NoError(s.t, n.Terminate())
	ctx, cancel := context.WithTimeout(s.t.Context(), process.ReadyTimeout)
	defer cancel()
	code, err := n.Server().Wait(ctx)
	require.NoError(s.t, err, n.Name)
	require.Zero(s.t, code, "%s:\n%s", n.Name, n.Output())
}

func (s *scene) restartRouter() {
	n := s.anyRouter()
	s.terminate(n)
	require.NoError(s.t, n.Start())
	s.ready(n)
}

func (s *scene) killRouter() {
	n := s.anyRouter()
	require.NoError(s.t, n.Restart())
	s.ready(n)
}

func (s *scene) killRouters() {
	for _, n := range s.c.Routers {
		n.Kill()
	}
	for _, n := range s.c.Routers {
		require.NoError(s.t, n.Start())
	}
	s.ready(s.c.Routers...)
}

func (s *scene) killLeader() {
	n := s.leadsMost()
	n.Kill()
	s.writers.await(1)
	require.NoError(s.t, n.Start())
	s.ready(n)
}

func (s *scene) restartData() {
	n := s.c.Data[s.random.IntN(len(s.c.Data))]
	s.terminate(n)
	require.NoError(s.t, n.Start())
	s.ready(n)
}

// deposeLeader takes a leader from its peers. The routers still reach it, and
// have their subscriptions there.
func (s *scene) deposeLeader() {
	leader := s.leadsMost()
	for _, n := range s.c.Data {
		if n != leader {
			s.c.Network.Between(leader.Name, n.Name, cluster.Rule{Hold: true})
		}
	}
	s.writers.await(3)
	s.c.Network.Heal()
	s.ready(leader)
}

// holdRouter has a router hear nothing more of a leader, whose connections stay.
// Writers get on through the other one.
func (s *scene) holdRouter() {
	router, leader := s.anyRouter(), s.leadsMost()
	s.c.Network.Between(router.Name, leader.Name, cluster.Rule{Hold: true})
	s.writers.await(5)
	s.c.Network.Heal()
}

// moveLeaders gives each group with a conversation to another node. It waits for
// the first to follow: a node hands over one group after the other, and after
// other faults it may have many to give back.
func (s *scene) moveLeaders() {
	want := map[int]string{}
	for _, g := range s.busy() {
		others := slices.DeleteFunc(slices.Clone(s.c.Data), func(n *cluster.Node) bool { return n.Name == g.Leader })
		want[g.Group] = others[s.random.IntN(len(others))].Name
	}
	for group, to := range want {
		within(s.t, func() error {
			_, err := s.operate("transfer-leader", strconv.Itoa(group), "--to", to)
			return err
		})
	}
	within(s.t, func() error {
		for _, g := range s.groups() {
			if to := want[g.Group]; to != "" && g.Leader == to {
				return nil
			}
		}
		return fmt.Errorf("no group of %v has followed", want)
	})
}

// group is what an operator is told of one.
type group struct {
	Group   int    `json:"group"`
	Leader  string `json:"leader"`
	Applied uint64 `json:"applied"`
}

// operate runs a verb of `fastpaca cluster`.
func (s *scene) operate(args ...string) (output string, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), process.ReadyTimeout)
	defer cancel()
	args = append([]string{"cluster"}, append(args, "--control", s.c.ControlAddresses())...)
	code, output, err := s.c.Run(ctx, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%q: exit code %d: %s", args, code, output)
	}
	return output, err
}

func (s *scene) groups() []group {
	s.t.Helper()
	var list struct {
		Groups []group `json:"groups"`
	}
	within(s.t, func() error {
		output, err := s.operate("groups", "-o", "json")
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(output), &list)
	})
	return list.Groups
}

// mark remembers how far all groups are.
func (s *scene) mark() {
	s.before = map[int]uint64{}
	for _, g := range s.groups() {
		s.before[g.Group] = g.Applied
	}
}

// elections bounds the entries of a group that are not of clients.
const elections = 20

// busy returns the groups that conversations are in, once the control plane has
// heard of all that was acknowledged until now and each has a leader.
func (s *scene) busy() (busy []group) {
	s.t.Helper()
	var acked uint64
	for _, one := range s.writers.conversations {
		acked += one.acks.Load()
	}
	within(s.t, func() error {
		busy = nil
		var applied uint64
		for _, g := range s.groups() {
			moved := g.Applied - s.before[g.Group]
			if g.Applied < s.before[g.Group] || moved < elections {
				continue
			}
			applied += moved
			busy = append(busy, g)
			if g.Leader == "" {
				return fmt.Errorf("group %d has no leader", g.Group)
			}
		}
		if len(busy) == 0 || applied < acked {
			return errors.New("the control plane has not heard of all appends")
		}
		return nil
	})
	return busy
}

// leadsMost returns the data node that leads most conversations.
func (s *scene) leadsMost() *cluster.Node {
	count := map[string]int{}
	most := ""
	for _, g := range s.busy() {
		if count[g.Leader]++; count[g.Leader] > count[most] {
			most = g.Leader
		}
	}
	for _, n := range s.c.Data {
		if n.Name == most {
			return n
		}
	}
	s.t.Fatalf("no data node is called %q", most)
	return nil
}
