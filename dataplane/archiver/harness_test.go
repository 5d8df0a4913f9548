package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

func TestMain(m *testing.M) {
	code := m.Run()
	archivetest.StopShared()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func logger(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
}

// cluster is some groups with their real state machines, which outlive
// archivers, and a control plane that grants what the test says.
type cluster struct {
	tb     testing.TB
	groups map[rpc.Group]*replica

	mu     sync.Mutex // guards the rest
	epochs map[rpc.Group]uint64
	owners map[rpc.Group]controlrpc.NodeID
	ttl    time.Duration
	down   error
}

func newCluster(tb testing.TB, groups ...rpc.Group) *cluster {
	tb.Helper()
	engine, err := storage.Open(storage.Options{Dir: tb.TempDir(), NodeID: "n1", Logger: logger(tb)})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, engine.Close()) })
	c := &cluster{tb: tb, groups: map[rpc.Group]*replica{}, epochs: map[rpc.Group]uint64{},
		owners: map[rpc.Group]controlrpc.NodeID{}, ttl: 2 * time.Second}
	for _, id := range groups {
		r := &replica{}
		r.leading.Store(true)
		r.machine, err = state.Open(engine.DB(), uint16(id), state.Options{
			OnCommit: func(list []state.Committed) {
				for _, a := range r.watchers() {
					a.Committed(id, list)
				}
			},
		})
		require.NoError(tb, err)
		tb.Cleanup(func() { require.NoError(tb, r.machine.Close()) })
		c.groups[id] = r
	}
	return c
}

// grant gives all groups to a node under a new epoch.
func (c *cluster) grant(node controlrpc.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.groups {
		c.epochs[id]++
		c.owners[id] = node
	}
}

func (c *cluster) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = err
}

// leases is the control plane as one node sees it.
type leases struct {
	*cluster
	calls, released atomic.Int64
	frozen          atomic.Bool // the node does not get answers: it is paused, or cut off
}

func (l *leases) Lease(ctx context.Context, req *controlrpc.LeaseRequest) (*controlrpc.LeaseReply, error) {
	l.calls.Add(1)
	for l.frozen.Load() {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return nil, l.down
	}
	reply := &controlrpc.LeaseReply{TTL: l.ttl}
	if req.Release {
		l.released.Add(1)
		return reply, nil
	}
	for id := range rpc.Group(rpc.Groups) {
		if l.owners[id] == req.Node {
			reply.Leases = append(reply.Leases, controlrpc.Lease{Group: uint16(id), Epoch: l.epochs[id]})
		}
	}
	return reply, nil
}

// replica is a group of one.
type replica struct {
	machine *state.Machine
	leading atomic.Bool

	apply sync.Mutex // guards index
	index uint64

	mu       sync.Mutex // guards the rest
	watching []*Archiver
	// beforeAck, when not nil, is asked before an acknowledgement is applied.
	beforeAck func(ctx context.Context) error
	acks      []state.ArchiveAck
}

func (r *replica) watchers() []*Archiver {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watching
}

func (r *replica) Leading() bool { return r.leading.Load() }

func (r *replica) Conversation(_ context.Context, key rpc.Key, _ rpc.ReadOptions) (*rpc.Conversation, error) {
	c, err := r.machine.Conversation(key)
	return &c, err
}

func (r *replica) Messages(_ context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
	p, err := r.machine.Messages(req.Key, req.From, req.Limit, rpc.MaxPageBytes)
	return &p, err
}

func (r *replica) List(_ context.Context, prefix, after string, limit int, _ rpc.Consistency) ([]rpc.Conversation, error) {
	return r.machine.List(prefix, after, limit)
}

func (r *replica) ArchiveAck(ctx context.Context, ack *state.ArchiveAck) error {
	r.mu.Lock()
	before := r.beforeAck
	r.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	if !r.leading.Load() {
		return &rpc.NotLeaderError{}
	}
	out, err := r.propose(state.ArchiveAckOp(ack))
	if err == nil {
		err = out.Err
	}
	if err == nil {
		r.mu.Lock()
		r.acks = append(r.acks, *ack)
		r.mu.Unlock()
	}
	return err
}

func (r *replica) acknowledged() []state.ArchiveAck {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.acks)
}

func (r *replica) onAck(f func(ctx context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beforeAck = f
}

func (r *replica) propose(op state.Op) (state.Outcome, error) {
	r.apply.Lock()
	defer r.apply.Unlock()
	r.index++
	out, err := r.machine.Apply([]state.Entry{{Index: r.index, Term: 1, Data: state.EncodeCommand(nil, time.Now(), op)}})
	if err != nil {
		return state.Outcome{}, err
	}
	return out[0][0], nil
}

func (c *cluster) of(key rpc.Key) *replica {
	r := c.groups[key.Group()]
	require.NotNil(c.tb, r, "group of %q", key)
	return r
}

func (c *cluster) must(key rpc.Key, op state.Op) {
	c.tb.Helper()
	out, err := c.of(key).propose(op)
	require.NoError(c.tb, err)
	require.NoError(c.tb, out.Err)
}

func (c *cluster) put(key rpc.Key, metadata string) {
	c.tb.Helper()
	c.must(key, state.PutOp(&rpc.PutRequest{Key: key, Metadata: []byte(metadata)}))
}

func (c *cluster) append(key rpc.Key, n int) {
	c.tb.Helper()
	for n > 0 {
		req := &rpc.AppendRequest{Key: key}
		for range min(n, 500) {
			req.Messages = append(req.Messages, rpc.NewMessage{
				Content: []byte(`"role":"user","parts":[{"type":"text","text":"hello"}],"metadata":{},"token_count":1`), TokenCount: 1})
		}
		c.must(key, state.AppendOp(req))
		n -= len(req.Messages)
	}
}

// node is a data node's archiver.
type node struct {
	*Archiver
	leases *leases
	store  *hooked
}

// hooked is the real archive with a seam in front of it.
type hooked struct {
	*archive.Store
	mu          sync.Mutex // guards the rest
	beforeWrite func() error
	afterWrite  func() error
}

func (h *hooked) Write(ctx context.Context, runs []archive.Run) ([][32]byte, error) {
	h.mu.Lock()
	before, after := h.beforeWrite, h.afterWrite
	h.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return nil, err
		}
	}
	heads, err := h.Store.Write(ctx, runs)
	if err == nil && after != nil {
		err = after()
	}
	return heads, err
}

func (h *hooked) around(before, after func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beforeWrite, h.afterWrite = before, after
}

func (c *cluster) start(name controlrpc.NodeID, url string, change ...func(*Options)) *node {
	c.tb.Helper()
	store, err := archive.Open(archive.Config{URL: url, Migrate: true, Logger: logger(c.tb)})
	require.NoError(c.tb, err)
	c.tb.Cleanup(store.Close)
	n := &node{leases: &leases{cluster: c}, store: &hooked{Store: store}}
	opts := Options{
		Node: name, Incarnation: "i", Cluster: func() string { return "c1" }, Leases: n.leases, Store: n.store,
		Group: func(id rpc.Group) Group {
			if r := c.groups[id]; r != nil {
				return r
			}
			return nil
		},
		Interval: 20 * time.Millisecond, BatchRows: 1000, TailKeep: 2, Logger: logger(c.tb),
	}
	for _, f := range change {
		f(&opts)
	}
	n.Archiver, err = New(opts)
	require.NoError(c.tb, err)
	for _, r := range c.groups {
		r.mu.Lock()
		r.watching = append(r.watching, n.Archiver)
		r.mu.Unlock()
	}
	n.Start()
	c.tb.Cleanup(n.Close)
	return n
}

const patience = 30 * time.Second

// eventually waits for something that other goroutines bring about.
func eventually(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	require.Eventually(tb, f, patience, 2*time.Millisecond, what)
}

func (c *cluster) archivedSeq(key rpc.Key) uint64 {
	conv, err := c.of(key).machine.Conversation(key)
	require.NoError(c.tb, err)
	return conv.ArchivedSeq
}

// settled waits until everything of the conversations is archived and checks
// that Postgres holds exactly what the group has, nothing lost, nothing twice.
func (c *cluster) settled(url string, keys ...rpc.Key) {
	c.tb.Helper()
	for _, key := range keys {
		eventually(c.tb, "archived: "+string(key), func() bool {
			conv, err := c.of(key).machine.Conversation(key)
			return err == nil && conv.ArchivedSeq == conv.LastSeq
		})
		c.check(url, key)
	}
}

// check compares what Postgres holds with the conversation's head, and what was
// trimmed with what Postgres holds.
func (c *cluster) check(url string, key rpc.Key) {
	c.tb.Helper()
	conv, err := c.of(key).machine.Conversation(key)
	require.NoError(c.tb, err)
	store, err := archive.Open(archive.Config{URL: url, Logger: logger(c.tb)})
	require.NoError(c.tb, err)
	defer store.Close()
	rows, err := store.Rows(context.Background(), key, 1, conv.LastSeq)
	require.NoError(c.tb, err)
	require.GreaterOrEqual(c.tb, uint64(len(rows)), conv.ArchivedSeq)
	require.LessOrEqual(c.tb, conv.FirstSeq, conv.ArchivedSeq+1)
	var head [32]byte
	for i, row := range rows {
		require.Equal(c.tb, uint64(i+1), row.Seq)
		head = state.Chain(head, row.Seq, row.JSON)
		require.Equal(c.tb, head, row.Hash)
	}
	if uint64(len(rows)) == conv.LastSeq {
		require.Equal(c.tb, conv.Head, head)
	}
}

var errInjected = errors.New("injected")
