package member

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/consensus"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Goal: one node's whole way from an empty directory over a restart of the
// control plane to a wipe of the node.
func TestSingleNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, singleConfig(dir))
	empty := mustTable(t, s, 0)
	require.NotEmpty(t, empty.ClusterID)
	require.Empty(t, empty.Groups)

	node := newDataNode("d1")
	node.mustBePlaced(t, s)
	require.Equal(t, catalog.Groups, node.bootstraps())
	require.Equal(t, empty.ClusterID, node.assignment.ClusterID)
	require.Equal(t, map[rpc.NodeID]string{"d1": "d1.example:7501"}, node.assignment.Addresses)
	placed := mustTableWhere(t, s, func(table *rpc.Table) bool { return len(table.Groups) == catalog.Groups })
	require.Greater(t, placed.Version, empty.Version)
	require.Zero(t, led(placed))
	require.Equal(t, rpc.Placement{Replicas: []rpc.Replica{{Node: "d1", Voter: true}}, Preferred: "d1"}, placed.Groups[17])

	node.form(1)
	for node.bootstraps() > 0 {
		node.mustCall(t, s)
	}
	table := mustTableWhere(t, s, allLed)
	require.Equal(t, node.info, table.Nodes["d1"])
	status := s.Status()
	require.Equal(t, GroupCounts{Placed: 256, Formed: 256, Short: 256, Led: 256}, status.Groups)
	require.NoError(t, s.Ready())
	require.Equal(t, table.Version, status.TableVersion)
	assigned := node.assignment.Version
	require.NoError(t, s.Close())

	s = mustOpen(t, singleConfig(dir))
	again := mustTable(t, s, 0)
	require.Greater(t, again.Version, table.Version, "versions rise across restarts")
	require.Equal(t, table.ClusterID, again.ClusterID)
	require.Zero(t, led(again), "who leads is not stored")
	node.mustCall(t, s)
	require.Equal(t, assigned, node.assignment.Version, "nothing changed")
	require.Equal(t, 256, led(mustTableWhere(t, s, allLed)))
	require.NoError(t, s.Close())

	cfg := singleConfig(dir)
	cfg.SessionTTL = 50 * time.Millisecond
	s = mustOpen(t, cfg)
	wiped := newDataNode("d1")
	wiped.info.Incarnation = "d1-second"
	wiped.mustBeAdmitted(t, s)
	require.Empty(t, wiped.assignment.Groups, "an empty replica must not vote for the one that was lost")
	require.Greater(t, wiped.assignment.Version, assigned)
	require.Equal(t, 256, s.Status().Groups.Lost)
	require.ErrorIs(t, node.call(testContext(t), s), rpc.ErrNodeConflict)
}

// mustBeAdmitted calls until the control plane knows that the node before it is
// gone.
func (n *dataNode) mustBeAdmitted(t *testing.T, s *Server) {
	t.Helper()
	require.Eventually(t, func() bool {
		err := n.call(testContext(t), s)
		if err != nil {
			require.ErrorIs(t, err, rpc.ErrUnavailable)
		}
		return err == nil
	}, patience, time.Millisecond)
}

// A node that is wiped after it was told to form groups, before it reported
// that it did, is not told again.
func TestNodeWipedBeforeItsGroupsWereSeen(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.SessionTTL = 50 * time.Millisecond
	s := mustOpen(t, cfg)
	node := newDataNode("d1")
	node.mustBePlaced(t, s)
	require.Equal(t, catalog.Groups, node.bootstraps())
	node = newDataNode("d1")
	node.info.Incarnation = "another"
	require.Eventually(t, func() bool { return node.call(testContext(t), s) == nil }, patience, time.Millisecond)
	require.Empty(t, node.assignment.Groups)
}

func TestNodeConflict(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.SessionTTL = time.Hour
	s := mustOpen(t, cfg)
	node := newDataNode("d1")
	node.mustBePlaced(t, s)

	other := newDataNode("d1")
	other.info.Incarnation = "other"
	require.ErrorIs(t, other.call(testContext(t), s), rpc.ErrNodeConflict)
	moved := newDataNode("d1")
	moved.info.Address = "copied:1"
	require.ErrorIs(t, moved.call(testContext(t), s), rpc.ErrUnavailable)
	registered := s.catalog.State().Nodes["d1"]
	require.Equal(t, node.info, registered.Info())
	require.NoError(t, s.Close())

	// A new leader cannot know yet whether the node lives.
	s = mustOpen(t, cfg)
	require.ErrorIs(t, other.call(testContext(t), s), rpc.ErrUnavailable)
	// The same directory at another address has moved, though.
	moved.assignment = node.assignment
	moved.mustCall(t, s)
	require.Equal(t, "copied:1", s.catalog.State().Nodes["d1"].Address)
	require.ErrorIs(t, node.call(testContext(t), s), rpc.ErrUnavailable)
}

func TestWaitsForBootstrapExpect(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.BootstrapExpect = 3
	s := mustOpen(t, cfg)
	nodes := []*dataNode{newDataNode("d1"), newDataNode("d2"), newDataNode("d3")}
	nodes[0].mustCall(t, s)
	nodes[1].mustCall(t, s)
	require.Zero(t, nodes[0].assignment.Version)
	require.Empty(t, nodes[0].assignment.Groups)
	require.NotEmpty(t, nodes[0].assignment.ClusterID)
	nodes[2].mustBePlaced(t, s)
	bootstraps := 0
	for _, node := range nodes {
		node.mustBePlaced(t, s)
		require.Len(t, node.assignment.Groups, catalog.Groups)
		require.Len(t, node.assignment.Addresses, 3)
		require.InDelta(t, 85, node.bootstraps(), 1, "leaders are spread evenly")
		bootstraps += node.bootstraps()
	}
	require.Equal(t, catalog.Groups, bootstraps, "one node forms each group")
}

// A group counts as formed once any replica has run it, leader or not.
func TestFormedBySeeingAReplicaRun(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, singleConfig(t.TempDir()))
	node := newDataNode("d1")
	node.mustBePlaced(t, s)
	node.running[7] = true
	before := node.assignment.Version
	node.mustCall(t, s)
	require.Greater(t, node.assignment.Version, before)
	require.False(t, node.assignment.Groups[7].Bootstrap)
	require.True(t, node.assignment.Groups[8].Bootstrap)
	require.Zero(t, led(mustTable(t, s, 0)))
}

func TestWrongCluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := singleConfig(dir)
	cfg.ClusterID = "mine"
	s := mustOpen(t, cfg)
	require.Equal(t, "mine", mustTable(t, s, 0).ClusterID)

	stranger := newDataNode("d9")
	stranger.assignment.Version = 7
	require.ErrorIs(t, stranger.call(testContext(t), s), rpc.ErrWrongCluster)
	require.Empty(t, s.catalog.State().Nodes, "nothing changed")

	node := newDataNode("d1")
	node.mustBePlaced(t, s)
	node.assignment.Version += 1000
	require.ErrorIs(t, node.call(testContext(t), s), rpc.ErrWrongCluster, "an assignment from the future")
	require.NoError(t, s.Close())

	cfg.ClusterID = "another"
	s = mustOpen(t, cfg)
	require.Eventually(t, func() bool { return s.Status().State == "leader" && s.catalog.State().ClusterID != "" }, patience, time.Millisecond)
	_, err := s.Table(testContext(t), 0)
	require.ErrorIs(t, err, rpc.ErrWrongCluster)
	require.ErrorIs(t, newDataNode("d2").call(testContext(t), s), rpc.ErrWrongCluster)
	require.ErrorIs(t, s.Ready(), rpc.ErrWrongCluster)
	require.Len(t, s.catalog.State().Nodes, 1)
}

func TestInvalidReports(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, singleConfig(t.TempDir()))
	good := newDataNode("d1").info
	with := func(change func(*rpc.NodeInfo)) *rpc.Report {
		info := good
		change(&info)
		return &rpc.Report{Node: info}
	}
	for name, report := range map[string]*rpc.Report{
		"nil":             nil,
		"no id":           with(func(n *rpc.NodeInfo) { n.ID = "" }),
		"long id":         with(func(n *rpc.NodeInfo) { n.ID = rpc.NodeID(strings.Repeat("x", 1000)) }),
		"space in id":     with(func(n *rpc.NodeInfo) { n.ID = "a b" }),
		"no address":      with(func(n *rpc.NodeInfo) { n.Address = "" }),
		"no incarnation":  with(func(n *rpc.NodeInfo) { n.Incarnation = "" }),
		"long zone":       with(func(n *rpc.NodeInfo) { n.Zone = strings.Repeat("z", 1000) }),
		"group 256":       {Node: good, Groups: []rpc.GroupReport{{Group: catalog.Groups}}},
		"too many groups": {Node: good, Groups: make([]rpc.GroupReport, catalog.Groups+1)},
		"many replicas":   {Node: good, Groups: []rpc.GroupReport{{Replicas: make([]rpc.Replica, 50)}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Session(testContext(t), report)
			require.ErrorIs(t, err, rpc.ErrInvalid)
		})
	}
	require.Empty(t, s.catalog.State().Nodes)
	// Reports about groups that a node does not hold are of no consequence.
	node := newDataNode("d1")
	report := node.report()
	report.Groups = []rpc.GroupReport{{Group: 3, Leading: true, Term: 9, LastIndex: 9}}
	_, err := s.Session(testContext(t), report)
	require.NoError(t, err)
	require.Zero(t, led(mustTable(t, s, 0)))
}

func TestTableLongPoll(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, singleConfig(t.TempDir()))
	first := mustTable(t, s, 0)
	require.Same(t, first, mustTable(t, s, 0))

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	same, err := s.Table(ended, first.Version)
	require.NoError(t, err, "a poll that found nothing new is no error")
	require.Same(t, first, same)

	waiting := make(chan *rpc.Table, 1)
	go func() {
		table, _ := s.Table(context.Background(), first.Version)
		waiting <- table
	}()
	newDataNode("d1").mustBePlaced(t, s)
	require.Greater(t, (<-waiting).Version, first.Version)

	failed := make(chan error, 2)
	go func() {
		_, err := s.Table(context.Background(), 1<<62)
		failed <- err
	}()
	go func() {
		node := newDataNode("d1")
		for {
			if err := node.call(context.Background(), s); err != nil {
				failed <- err
				return
			}
		}
	}()
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-failed, rpc.ErrClosed)
	require.ErrorIs(t, <-failed, rpc.ErrClosed)
	_, err = s.Table(testContext(t), 0)
	require.ErrorIs(t, err, rpc.ErrClosed)
	require.ErrorIs(t, s.Ready(), rpc.ErrClosed)
}

// Leaders follow the highest term, whoever reports it and in whatever order.
func TestLeadersFollowTerms(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.BootstrapExpect = 2
	s := mustOpen(t, cfg)
	one, two := newDataNode("d1"), newDataNode("d2")
	one.mustCall(t, s)
	two.mustBePlaced(t, s)
	one.mustBePlaced(t, s)
	leader := func(want rpc.NodeID) func(*rpc.Table) bool {
		return func(table *rpc.Table) bool { return table.Groups[5].Leader == want }
	}
	one.leading[5] = 3
	one.mustCall(t, s)
	mustTableWhere(t, s, leader("d1"))
	two.leading[5] = 4
	two.mustCall(t, s)
	table := mustTableWhere(t, s, leader("d2"))
	one.mustCall(t, s)
	require.Same(t, table, mustTable(t, s, 0), "the deposed leader changes nothing")
}

func TestSilentNodesAreSeen(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.SessionTTL = 20 * time.Millisecond
	s := mustOpen(t, cfg)
	node := newDataNode("d1")
	node.mustBePlaced(t, s)
	liveness := func() string { return s.Status().Nodes[0].Liveness }
	require.Eventually(t, func() bool { return liveness() == "silent" }, patience, time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.call(ctx, s) }()
	require.Eventually(t, func() bool { return liveness() == "alive" }, patience, time.Millisecond)
	cancel()
	<-done
}

// A member that meets a command of a later version does nothing rather than
// something wrong.
func TestUnsupportedCommandStopsTheMember(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, singleConfig(t.TempDir()))
	mustTable(t, s, 0)
	_, err := s.consensus.Propose(testContext(t), []byte("a command of the future"))
	require.NoError(t, err)
	_, err = s.Session(testContext(t), newDataNode("d1").report())
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.ErrorIs(t, err, catalog.ErrCorrupt)
	require.ErrorIs(t, s.Ready(), catalog.ErrCorrupt)
	require.Error(t, s.consensus.Snapshot())
}

func TestConfigValidateJoinsAllProblems(t *testing.T) {
	t.Parallel()
	cfg := Config{BootstrapExpect: -1, ReplicationFactor: 2, SessionTTL: -1, ClusterID: strings.Repeat("x", 1000)}
	err := cfg.Validate()
	for _, want := range []string{"id is empty", "data directory", "logger", "bootstrap-expect", "replication factor", "session TTL", "cluster id"} {
		require.ErrorContains(t, err, want)
	}
	_, err = Open(cfg)
	require.Error(t, err)
	good := singleConfig("somewhere")
	require.NoError(t, good.Validate())
}

func TestOpenReportsTheDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustOpen(t, singleConfig(dir))
	_, err := Open(singleConfig(dir))
	require.ErrorIs(t, err, consensus.ErrLocked)
	require.NoError(t, s.Close())
	cfg := singleConfig(dir)
	cfg.ID = "c2"
	_, err = Open(cfg)
	require.ErrorIs(t, err, consensus.ErrWrongDirectory)
}

const crashDirEnv = "MEMBER_CRASH_DIR"

// crashChild registers nodes until it is killed and prints each that was
// acknowledged.
func crashChild(dir string) {
	cfg := singleConfig(dir)
	cfg.BootstrapExpect = 1000 // nothing is placed
	s, err := Open(cfg)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		node := newDataNode(fmt.Sprint("d", i))
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			defer cancel()
			for s.catalog.State().Nodes[node.info.ID].ID == "" {
				_, changed := s.catalog.Watch()
				<-changed
			}
			fmt.Println("acked", i)
		}()
		_ = node.call(ctx, s)
	}
}

// Goal: nodes whose registration was acknowledged are there after kill -9.
func TestRegistrationsSurviveKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), crashDirEnv+"="+dir)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	acked := -1
	lines := bufio.NewScanner(out)
	for want := 30; lines.Scan(); want-- {
		number, ok := strings.CutPrefix(lines.Text(), "acked ")
		require.True(t, ok, lines.Text())
		acked, err = strconv.Atoi(number)
		require.NoError(t, err)
		if want == 0 {
			require.NoError(t, child.Process.Kill())
		}
	}
	_ = child.Wait()
	s := mustOpen(t, singleConfig(dir))
	mustTable(t, s, 0)
	nodes := s.catalog.State().Nodes
	for i := range acked + 1 {
		require.Contains(t, nodes, rpc.NodeID(fmt.Sprint("d", i)))
	}
}

func BenchmarkTable(b *testing.B) {
	s := mustOpen(b, singleConfig(b.TempDir()))
	newDataNode("d1").mustBePlaced(b, s)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.Table(ctx, 0)
	}
}

func BenchmarkSessionReport(b *testing.B) {
	s := mustOpen(b, singleConfig(b.TempDir()))
	node := newDataNode("d1")
	node.mustBePlaced(b, s)
	node.form(1)
	for node.bootstraps() > 0 {
		node.mustCall(b, s)
	}
	report := node.report()
	report.HaveAssignment-- // answered at once
	b.ReportAllocs()
	for b.Loop() {
		_, err := s.Session(b.Context(), report)
		require.NoError(b, err)
	}
}

// BenchmarkStart measures an empty directory to the first assignment.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s, err := Open(singleConfig(b.TempDir()))
		require.NoError(b, err)
		newDataNode("d1").mustBePlaced(b, s)
		require.NoError(b, s.Close())
	}
}

func TestClusterIDIsWaitedFor(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.ClusterID = "mine"
	s := mustOpen(t, cfg)
	id, err := s.ClusterID(testContext(t))
	require.NoError(t, err)
	require.Equal(t, "mine", id)
	require.Eventually(t, func() bool { return s.LeaderAddress("own") == "own" }, time.Minute, time.Millisecond,
		"a member that is alone leads and has no other address than the one it is given")

	fresh := &Server{catalog: catalog.New(), ctx: context.Background()}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = fresh.ClusterID(ended)
	require.ErrorIs(t, err, context.Canceled)
	fresh.ctx = ended
	_, err = fresh.ClusterID(context.Background())
	require.ErrorIs(t, err, rpc.ErrClosed)
}
