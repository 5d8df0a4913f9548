package moves

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// Exit codes of `fastpaca cluster`.
const (
	exitFailed      = 1
	exitUnknown     = 3
	exitRefused     = 4
	exitUnreachable = 5
	exitInterrupted = 130
)

const (
	token      = "the token of this cluster"
	otherToken = "the token of another one"
)

// TestClusterIsReplacedUnderLoad is an operator's day: two nodes join, replicas
// are evened out, the first node is drained, removed and stopped. The control
// leader is killed while things move, and whoever waits for the end is
// interrupted and asks again.
func TestClusterIsReplacedUnderLoad(t *testing.T) {
	skipShort(t)
	s := start(t, cluster.Config{Control: 3})
	l := startLoad(t, s)
	s.add()
	s.add()
	plan := ask[rebalancedAnswer](s, "rebalance", "--dry-run")
	require.False(t, plan.Started)
	require.NotEmpty(t, plan.Plan)
	require.Zero(t, ask[clusterStatus](s, "status").Moves.Finished, "a dry run moves nothing")

	wait := s.begin("rebalance", "--yes", "--wait")
	s.eventually("moves finish", func() error {
		if ask[clusterStatus](s, "status").Moves.Finished < 10 {
			return errors.New("hardly any")
		}
		return nil
	})
	require.NoError(t, wait.Signal(syscall.SIGINT))
	require.Equal(t, exitInterrupted, s.code(wait))
	s.survives("rebalance", "--yes", "--wait")
	s.even(5)
	require.Empty(t, ask[rebalancedAnswer](s, "rebalance", "--dry-run").Plan)

	s.must("drain", "d1", "--yes")
	require.Equal(t, "draining", s.node("d1").State)
	s.survives("drain", "d1", "--yes", "--wait")
	require.Zero(t, s.node("d1").Replicas)
	s.must("remove", "d1", "--yes")
	require.NoError(t, s.Data[0].Terminate())
	require.Equal(t, "removed", s.node("d1").State)
	for _, g := range s.rest() {
		require.NotContains(t, nodesOf(g), "d1")
	}
	l.finish(t)
	s.equal()
}

// begin starts a verb of `fastpaca cluster` without waiting for it.
func (s *scene) begin(args ...string) *process.Server {
	s.t.Helper()
	command := append([]string{s.Binary, "cluster"}, args...)
	p, err := process.Start(process.Config{
		Command: append(command, "--control", s.ControlAddresses()), Env: []string{"FASTPACA_TOKEN=" + s.Token},
	})
	require.NoError(s.t, err)
	s.t.Cleanup(p.Kill)
	return p
}

func (s *scene) code(p *process.Server) int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), bound)
	defer cancel()
	code, err := p.Wait(ctx)
	require.NoError(s.t, err, p.Output())
	return code
}

// survives kills the control leader while a verb waits for the end of what it has
// ordered.
func (s *scene) survives(args ...string) {
	s.t.Helper()
	wait := s.begin(args...)
	s.killControlLeader()
	if code := s.code(wait); code == exitUnreachable { // it had not begun to wait
		s.must(args...)
	} else {
		require.Zero(s.t, code, wait.Output())
	}
}

// killControlLeader kills the leader of the control plane and starts it again.
func (s *scene) killControlLeader() {
	s.t.Helper()
	leader := ask[clusterStatus](s, "status").Control.Leader
	at := slices.IndexFunc(s.Control, func(n *cluster.Node) bool { return n.Name == leader })
	require.NoError(s.t, s.Control[at].Restart())
}

// even waits until the nodes that are up lead and hold the same, but for one.
func (s *scene) even(nodes int) {
	s.t.Helper()
	s.eventually("leaders are even", func() error {
		var leaders, replicas []int
		for _, n := range ask[nodeList](s, "nodes").Nodes {
			if n.State == "up" {
				leaders, replicas = append(leaders, n.Leaders), append(replicas, n.Replicas)
			}
		}
		if len(leaders) != nodes || slices.Max(leaders)-slices.Min(leaders) > 1 || slices.Max(replicas)-slices.Min(replicas) > 1 {
			return fmt.Errorf("leaders %v, replicas %v", leaders, replicas)
		}
		return nil
	})
}

// TestSilentNodeIsRepaired kills a node for good: after --replace-after others
// hold what it held. It is welcome when it returns, with nothing.
func TestSilentNodeIsRepaired(t *testing.T) {
	skipShort(t)
	s := start(t, cluster.Config{Data: 4, Env: []string{"FASTPACA_REPLACE_AFTER=5s"}})
	l := startLoad(t, s)
	s.Data[1].Kill()
	s.eventually("it is replaced", func() error {
		if n := s.node("d2"); n.State != "down" || n.Replicas > 0 {
			return fmt.Errorf("%s, %d replicas", n.State, n.Replicas)
		}
		return nil
	})
	s.rest()
	s.even(3)
	require.NoError(t, s.Data[1].Start())
	s.up(s.Data[1])
	require.Zero(t, s.node("d2").Replicas, "nothing moves back unasked")
	s.must("rebalance", "--yes", "--wait")
	s.rest()
	s.even(4)
	l.finish(t)
	s.equal()
}

// TestLeadersAreEvenAfterARestart restarts a node, which the others lead without
// for a while: it gets its part back.
func TestLeadersAreEvenAfterARestart(t *testing.T) {
	skipShort(t)
	s := start(t, cluster.Config{})
	l := startLoad(t, s)
	n := s.Data[1]
	n.Kill()
	s.down(n)
	require.NoError(t, n.Start())
	s.up(n)
	s.even(3)
	l.finish(t)
	s.equal()
}

// TestWeights gives a node half the weight of the others.
func TestWeights(t *testing.T) {
	skipShort(t)
	s := start(t, cluster.Config{Data: 4})
	s.must("weight", "d4", "50")
	s.must("rebalance", "--yes", "--wait")
	s.rest()
	d4 := s.node("d4")
	require.Equal(t, 50, d4.Weight)
	require.InDelta(t, 3*256*50/350., d4.Replicas, 1)
	s.eventually("it leads its part", func() error {
		if n := s.node("d4"); n.Leaders < 35 || n.Leaders > 38 {
			return fmt.Errorf("it leads %d", n.Leaders)
		}
		return nil
	})
}

// TestBadInput asks for everything that must be refused. Each is refused in words
// and with the code that tells a script why, and changes nothing.
func TestBadInput(t *testing.T) {
	s := start(t, cluster.Config{Control: 3, Token: token})
	groups := s.rest()
	holder, other := nodesOf(groups[3])[0], nodesOf(groups[3])[1]
	unchanged := s.unchanged()
	for _, c := range []struct {
		args []string
		code int
		word string
	}{
		{[]string{"drain", "d9", "--yes"}, exitUnknown, "no such node"},
		{[]string{"undrain", "d9"}, exitUnknown, "no such node"},
		{[]string{"remove", "d9", "--yes"}, exitUnknown, "no such node"},
		{[]string{"weight", "d9", "7"}, exitUnknown, "no such node"},
		{[]string{"move", "300", "--from", holder, "--to", other, "--yes"}, exitUnknown, "no such group"},
		{[]string{"move", "3", "--from", holder, "--to", "d9", "--yes"}, exitUnknown, "no such node"},
		{[]string{"move", "3", "--from", "d9", "--to", other, "--yes"}, exitUnknown, "no such node"},
		{[]string{"move", "3", "--from", holder, "--to", other, "--yes"}, exitRefused, "has a replica of the group already"},
		{[]string{"transfer-leader", "300", "--to", holder}, exitUnknown, "no such group"},
		{[]string{"transfer-leader", "3", "--to", "d9"}, exitUnknown, "no such node"},
		{[]string{"abort", "12", "--yes"}, exitUnknown, "no such move"},
		{[]string{"drain", "d1", "--yes"}, exitRefused, "too few nodes would remain"},
		{[]string{"drain", "d1", "--dry-run"}, exitRefused, "too few nodes would remain"},
		{[]string{"remove", "d1", "--yes"}, exitRefused, "Drain it first"},
		{[]string{"drain", "d1", "--yes", "--token", otherToken}, exitFailed, "FASTPACA_TOKEN"},
		{[]string{"drain", "d1", "--yes", "--token", ""}, exitFailed, "FASTPACA_TOKEN"},
	} {
		s.refused(c.code, c.word, c.args...)
	}
	unchanged()

	// Two drains at once; a fourth node makes the first one possible.
	s.add()
	s.must("drain", "d1", "--yes")
	s.refused(exitRefused, "another node is being drained", "drain", "d2", "--yes")
	require.Equal(t, "up", s.node("d2").State)
	s.must("undrain", "d1")
	s.rest()
	// With one of four down a drain would leave too few that are up.
	s.Data[3].Kill()
	s.down(s.Data[3])
	s.refused(exitRefused, "too few nodes would remain", "drain", "d1", "--yes")

	s.withoutControlQuorum()
}

// unchanged returns a check that nothing has changed since.
func (s *scene) unchanged() func() {
	s.t.Helper()
	type facts struct {
		moves  moveCounts
		states map[string]string
		last   uint64
	}
	now := func() (f facts) {
		f.moves, f.states = ask[clusterStatus](s, "status").Moves, map[string]string{}
		for _, n := range ask[nodeList](s, "nodes").Nodes {
			f.states[n.ID] = fmt.Sprint(n.State, n.Weight, n.Replicas)
		}
		events := ask[eventList](s, "events", "-n", "1").Events
		f.last = events[len(events)-1].ID
		return f
	}
	before := now()
	return func() {
		s.t.Helper()
		// A new control leader has to hear of the nodes first.
		s.eventually("everything is as before", func() error {
			if after := now(); !reflect.DeepEqual(before, after) {
				return fmt.Errorf("was %v, is %v", before, after)
			}
			return nil
		})
	}
}

// withoutControlQuorum takes two of three control members away: whatever is asked
// is refused, and clients notice nothing.
func (s *scene) withoutControlQuorum() {
	s.t.Helper()
	unchanged := s.unchanged()
	events := ask[eventList](s, "events", "-n", "1000").Events
	require.Equal(s.t, "cluster_created", events[0].Kind)
	for _, n := range s.Control[:2] {
		n.Kill()
	}
	l := startLoad(s.t, s)
	// Each looks for a leader for a while, so all ask at once.
	var asked []*process.Server
	for _, args := range [][]string{
		{"status"}, {"events"}, {"rebalance", "--yes"}, {"drain", "d1", "--yes"}, {"weight", "d1", "7"}, {"transfer-leader", "3", "--to", "d1"},
	} {
		asked = append(asked, s.begin(args...))
	}
	for _, p := range asked {
		require.Equal(s.t, exitUnreachable, s.code(p), p.Output())
		require.Contains(s.t, p.Output(), "control plane")
	}
	l.finish(s.t)
	for _, n := range s.Control[:2] {
		require.NoError(s.t, n.Start())
	}
	unchanged()
}
