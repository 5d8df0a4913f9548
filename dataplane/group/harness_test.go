package group

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/raftslog"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
	"github.com/fastpaca/fastpaca/dataplane/storage"
	"github.com/fastpaca/fastpaca/dataplane/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is one data node's share of one group: real storage, real sockets.
type replica struct {
	id       string
	dir      string
	engine   *storage.Engine
	mux      atomic.Pointer[transport.Mux]
	listener net.Listener
	group    *Group
	healthy  atomic.Pointer[error]
	cut      *partition
	served   sync.WaitGroup

	// What a test may set before the start.
	fs      vfs.FS
	state   state.Options
	measure Measure
	pause   *pause // of what is written to others
	timing  Timing // testTiming if zero
}

// partition cuts a node off from all others: new connections fail, standing
// ones are closed.
type partition struct {
	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]struct{}
}

func (p *partition) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isCut {
		_ = c.Close()
		return false
	}
	if p.conns == nil {
		p.conns = make(map[net.Conn]struct{})
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *partition) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = cut
	if cut {
		for c := range p.conns {
			_ = c.Close()
		}
		p.conns = nil
	}
}

// cluster is a group's replicas on several nodes.
type cluster struct {
	t        *testing.T
	replicas []*replica
}

const testGroup = rpc.Group(7)

func testTiming() Timing {
	return Timing{Heartbeat: 600 * time.Millisecond, Election: 600 * time.Millisecond, Commit: 50 * time.Millisecond}
}

// newCluster starts n nodes and forms the group from the first with the given
// number of voters.
func newCluster(t *testing.T, n, voters int) *cluster {
	t.Helper()
	return newClusterOf(t, n, voters, func(*replica) {})
}

// newClusterOf prepares each node before its start.
func newClusterOf(t *testing.T, n, voters int, prepare func(*replica)) *cluster {
	t.Helper()
	c := &cluster{t: t}
	for i := range n {
		r := &replica{id: fmt.Sprintf("n%d", i+1), dir: t.TempDir(), cut: &partition{}}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		r.listener = l
		prepare(r)
		c.replicas = append(c.replicas, r)
	}
	t.Cleanup(func() {
		for _, r := range c.replicas {
			c.stop(r)
			_ = r.listener.Close()
		}
	})
	for _, r := range c.replicas {
		c.start(r)
		r.served.Go(func() { c.serve(r) })
	}
	var ids []string
	for _, r := range c.replicas[:voters] {
		ids = append(ids, r.id)
	}
	require.NoError(t, c.replicas[0].group.Bootstrap(ids))
	if voters == 1 {
		c.replicas[0].group.Campaign()
	}
	return c
}

// serve hands accepted connections to the replica's running transport.
func (c *cluster) serve(r *replica) {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			var lane int
			var peer string
			// Fscanf reads byte by byte: what follows is the transport's.
			if _, err := fmt.Fscanf(conn, "%d %s\n", &lane, &peer); err != nil {
				_ = conn.Close()
				return
			}
			from := c.byID(peer)
			if from == nil || !r.cut.track(conn) || !from.cut.track(conn) {
				_ = conn.Close()
				return
			}
			r.mux.Load().Serve(conn, transport.Lane(lane), peer)
		}()
	}
}

func (c *cluster) byID(id string) *replica {
	for _, r := range c.replicas {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (c *cluster) dial(from *replica) transport.DialFunc {
	return func(ctx context.Context, _, address string, lane transport.Lane) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		if !from.cut.track(conn) {
			return nil, net.ErrClosed
		}
		_, err = fmt.Fprintf(conn, "%d %s\n", lane, from.id)
		return pausingConn{conn, from.pause}, err
	}
}

// start opens the node's storage, transport and group.
func (c *cluster) start(r *replica) {
	c.t.Helper()
	t := c.t
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", r.id)
	engine, err := storage.Open(storage.Options{Dir: r.dir, NodeID: r.id, Logger: slog.New(slog.DiscardHandler), FS: r.fs})
	require.NoError(t, err)
	r.engine = engine
	mux, err := transport.New(transport.Config{NodeID: r.id, Logger: log, Dial: c.dial(r)})
	require.NoError(t, err)
	r.mux.Store(mux)
	for _, peer := range c.replicas {
		if peer != r {
			mux.SetAddress(peer.id, peer.listener.Addr().String())
		}
	}
	r.group, err = Open(Options{
		Group: testGroup, NodeID: r.id, DB: engine.DB(), State: r.state, Measure: r.measure,
		NewTransport: func() Transport { return mux.Group(uint16(testGroup)) },
		Healthy: func() error {
			if p := r.healthy.Load(); p != nil {
				return *p
			}
			return nil
		},
		Budget: NewBudget(64 << 20), Timing: cmp.Or(r.timing, testTiming()), Logger: log, RaftLogger: raftslog.New(log),
	})
	require.NoError(t, err)
}

// stop closes the node in order; it may be started again on its directory.
func (c *cluster) stop(r *replica) {
	c.t.Helper()
	if r.group == nil {
		return
	}
	require.NoError(c.t, r.group.Close())
	require.NoError(c.t, r.mux.Load().Close())
	require.NoError(c.t, r.engine.Close())
	r.group = nil
}

// leader waits until one running replica may serve reads.
func (c *cluster) leader() *replica {
	c.t.Helper()
	var found *replica
	c.eventually(func() bool {
		for _, r := range c.replicas {
			if r.group != nil && r.group.Leading() {
				found = r
				return true
			}
		}
		return false
	}, "no replica leads")
	return found
}

// eventually polls a condition that other goroutines bring about.
func (c *cluster) eventually(cond func() bool, msg string) {
	c.t.Helper()
	require.Eventually(c.t, cond, 30*time.Second, 5*time.Millisecond, msg)
}

func message(id, text string) rpc.NewMessage {
	m := rpc.NewMessage{ID: id, TokenCount: 1}
	if id != "" {
		m.Content = fmt.Appendf(nil, `"id":%q,`, id)
	}
	m.Content = fmt.Appendf(m.Content, `"role":"user","parts":[{"type":"text","text":%q}],"metadata":{},"token_count":1`, text)
	copy(m.Digest[:], text)
	return m
}

func (c *cluster) put(r *replica, key rpc.Key) {
	c.t.Helper()
	_, err := r.group.Put(c.t.Context(), &rpc.PutRequest{Key: key})
	require.NoError(c.t, err)
}

func (c *cluster) append(r *replica, key rpc.Key, text string) (*rpc.AppendReply, error) {
	return r.group.Append(c.t.Context(), &rpc.AppendRequest{Key: key, Messages: []rpc.NewMessage{message("", text)}})
}

func (c *cluster) mustAppend(r *replica, key rpc.Key, text string) uint64 {
	c.t.Helper()
	reply, err := c.append(r, key, text)
	require.NoError(c.t, err)
	return reply.Seq
}
