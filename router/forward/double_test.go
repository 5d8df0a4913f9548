package forward

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a data node whose every method runs answer.
type node struct {
	mu     sync.Mutex // guards the rest
	calls  int
	groups []rpc.Group // of the last List
	closed bool
	answer func(call int) error
	list   func(req *rpc.ListRequest) (*rpc.ListReply, error)
}

func (n *node) run() error {
	n.mu.Lock()
	n.calls++
	call, answer := n.calls, n.answer
	n.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(call)
}

func (n *node) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls
}

func (n *node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return nil
}

func (n *node) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}

func (n *node) Put(context.Context, *rpc.PutRequest) (*rpc.PutReply, error) {
	return &rpc.PutReply{}, n.run()
}

func (n *node) Append(context.Context, *rpc.AppendRequest) (*rpc.AppendReply, error) {
	return &rpc.AppendReply{Seq: 1}, n.run()
}

func (n *node) Tombstone(context.Context, rpc.Key) error { return n.run() }

func (n *node) Conversation(_ context.Context, key rpc.Key, _ rpc.ReadOptions) (*rpc.Conversation, error) {
	return &rpc.Conversation{Key: key}, n.run()
}

func (n *node) Messages(context.Context, *rpc.MessagesRequest) (*rpc.Page, error) {
	return &rpc.Page{}, n.run()
}

func (n *node) Tail(context.Context, *rpc.TailRequest) (*rpc.Page, error) {
	return &rpc.Page{}, n.run()
}

func (n *node) List(_ context.Context, req *rpc.ListRequest) (*rpc.ListReply, error) {
	n.mu.Lock()
	n.groups = slices.Clone(req.Groups)
	list := n.list
	n.mu.Unlock()
	if err := n.run(); err != nil {
		return nil, err
	}
	return list(req)
}

// still is a control plane whose table is published by the test.
type still struct {
	mu      sync.Mutex // guards the rest
	table   *control.Table
	changed chan struct{}
}

func (s *still) publish(t *control.Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table = t
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *still) Table(ctx context.Context, after uint64) (*control.Table, error) {
	for {
		s.mu.Lock()
		table, changed := s.table, s.changed
		s.mu.Unlock()
		if table.Version > after {
			return table, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return table, nil
		}
	}
}

func (s *still) Session(context.Context, *control.Report) (*control.Assignment, error) {
	return nil, errors.New("not used by routers")
}

// cluster is three nodes a, b and c that hold every group.
type cluster struct {
	control  *still
	table    *table.Table
	nodes    map[control.NodeID]*node
	mu       sync.Mutex // guards dials
	dials    map[string]int
	dialFail map[string]bool
	silent   *stuck // stands in for node a when set
}

func placed(version uint64, leader func(g int) control.NodeID) *control.Table {
	t := &control.Table{ClusterID: "x", Version: version, Groups: make([]control.Placement, rpc.Groups), Nodes: map[control.NodeID]control.NodeInfo{}}
	for _, id := range []control.NodeID{"a", "b", "c"} {
		t.Nodes[id] = control.NodeInfo{ID: id, Address: string(id) + ":1"}
	}
	for g := range t.Groups {
		t.Groups[g].Replicas = []control.Replica{{Node: "a", Voter: true}, {Node: "b", Voter: true}, {Node: "c", Voter: true}}
		t.Groups[g].Leader = leader(g)
	}
	return t
}

func led(by control.NodeID) func(int) control.NodeID {
	return func(int) control.NodeID { return by }
}

func spread(g int) control.NodeID { return []control.NodeID{"a", "b", "c"}[g%3] }

func newCluster(t testing.TB, first *control.Table) *cluster {
	t.Helper()
	c := &cluster{
		control:  &still{table: first, changed: make(chan struct{})},
		nodes:    map[control.NodeID]*node{"a": {}, "b": {}, "c": {}},
		dials:    map[string]int{},
		dialFail: map[string]bool{},
	}
	tab, err := table.Open(table.Config{Control: c.control, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	require.NoError(t, err)
	t.Cleanup(tab.Close)
	select {
	case <-tab.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the table did not become ready")
	}
	c.table = tab
	return c
}

func (c *cluster) connect(id control.NodeID, address string) (rpc.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dials[address]++
	if c.dialFail[address] {
		return nil, errors.New("connection refused")
	}
	if id == "a" && c.silent != nil {
		return c.silent, nil
	}
	return c.nodes[id], nil
}

func (c *cluster) forwarder(t *testing.T, change func(*Config)) *Forwarder {
	t.Helper()
	cfg := Config{Table: c.table, Connect: c.connect, RetryBudget: time.Minute, BackoffMin: time.Microsecond, BackoffMax: 10 * time.Microsecond}
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// fails answers the first calls with the errors and then succeeds.
func fails(errs ...error) func(int) error {
	return func(call int) error {
		if call <= len(errs) {
			return errs[call-1]
		}
		return nil
	}
}

func always(err error) func(int) error { return func(int) error { return err } }
