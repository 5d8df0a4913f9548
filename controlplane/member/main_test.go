package member

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of the tests.
const patience = 30 * time.Second

func singleConfig(dir string) Config {
	return Config{ID: "c1", DataDir: dir, Logger: slog.New(slog.DiscardHandler), HeartbeatTimeout: 200 * time.Millisecond}
}

func mustOpen(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// dataNode plays a data node: what it remembers of its assignment, and which
// groups it runs and leads.
type dataNode struct {
	info       rpc.NodeInfo
	assignment rpc.Assignment
	running    map[uint16]bool
	leading    map[uint16]uint64 // term by group
}

func newDataNode(id string) *dataNode {
	return &dataNode{
		info:    rpc.NodeInfo{ID: rpc.NodeID(id), Address: id + ".example:7501", Incarnation: id + "-first", Version: "test"},
		running: map[uint16]bool{}, leading: map[uint16]uint64{},
	}
}

func (n *dataNode) report() *rpc.Report {
	report := &rpc.Report{Node: n.info, HaveAssignment: n.assignment.Version}
	for _, group := range n.assignment.Groups {
		entry := rpc.GroupReport{Group: group.Group, Replicas: group.Replicas}
		if n.running[group.Group] {
			entry.LastIndex, entry.Applied = 5, 3
		}
		if term := n.leading[group.Group]; term > 0 {
			entry.Leading, entry.Term = true, term
		}
		report.Groups = append(report.Groups, entry)
	}
	return report
}

// call makes one session call and takes the assignment over.
func (n *dataNode) call(ctx context.Context, control rpc.ControlPlane) error {
	assignment, err := control.Session(ctx, n.report())
	if err == nil {
		n.assignment = *assignment
	}
	return err
}

func (n *dataNode) mustCall(t testing.TB, control rpc.ControlPlane) {
	t.Helper()
	require.NoError(t, n.call(testContext(t), control))
}

// mustBePlaced calls until the node has groups.
func (n *dataNode) mustBePlaced(t testing.TB, control rpc.ControlPlane) {
	t.Helper()
	for ctx := testContext(t); len(n.assignment.Groups) == 0; {
		require.NoError(t, n.call(ctx, control))
	}
}

// form runs and leads the groups it is told to form.
func (n *dataNode) form(term uint64) {
	for _, group := range n.assignment.Groups {
		n.running[group.Group] = true
		if group.Bootstrap {
			n.leading[group.Group] = term
		}
	}
}

func (n *dataNode) bootstraps() int {
	count := 0
	for _, group := range n.assignment.Groups {
		if group.Bootstrap {
			count++
		}
	}
	return count
}

// serve keeps calling until the context ends, as a data node does, at whichever
// of the members answers.
func (n *dataNode) serve(ctx context.Context, controls func() []rpc.ControlPlane) {
	for ctx.Err() == nil {
		for _, control := range controls() {
			for n.call(ctx, control) == nil {
				n.form(1)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func mustTable(t testing.TB, control rpc.ControlPlane, after uint64) *rpc.Table {
	t.Helper()
	table, err := control.Table(testContext(t), after)
	require.NoError(t, err)
	return table
}

// mustTableWhere polls for a table that satisfies a condition.
func mustTableWhere(t testing.TB, control rpc.ControlPlane, condition func(*rpc.Table) bool) *rpc.Table {
	t.Helper()
	ctx := testContext(t)
	for after := uint64(0); ; {
		table, err := control.Table(ctx, after)
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "no such table")
		require.True(t, after == 0 || table.Version > after, "version must rise")
		if condition(table) {
			return table
		}
		after = table.Version
	}
}

func led(table *rpc.Table) int {
	count := 0
	for _, group := range table.Groups {
		if group.Leader != "" {
			count++
		}
	}
	return count
}

func allLed(table *rpc.Table) bool { return led(table) == catalog.Groups }

// tcpStream is a Stream over loopback TCP that a test can cut for good.
type tcpStream struct {
	net.Listener
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (s *tcpStream) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	s.conns = append(s.conns, conn)
	return conn, nil
}

func (s *tcpStream) cutOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = true
	_ = s.Listener.Close()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
}
