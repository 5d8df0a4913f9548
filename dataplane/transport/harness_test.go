package transport

//lint:file-ignore SA1019 hashicorp/raft still sends its deprecated fields and falls back on them.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds how long a test waits for something that must happen.
const patience = 30 * time.Second

// network connects the nodes of a test over loopback TCP. Its dialer is where
// faults are injected.
type network struct {
	tb testing.TB

	mu     sync.Mutex
	addrs  map[string]string
	cut    map[[2]string]bool // pairs that cannot talk, smaller id first
	live   map[net.Conn][2]string
	dialed map[Lane]int
}

func newNetwork(tb testing.TB) *network {
	return &network{tb: tb, addrs: map[string]string{}, cut: map[[2]string]bool{},
		live: map[net.Conn][2]string{}, dialed: map[Lane]int{}}
}

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

var errCut = errors.New("network is partitioned")

// dial connects from one node and says who it is, as the shared listener of a
// node would ask.
func (n *network) dial(ctx context.Context, from, to, address string, lane Lane) (net.Conn, error) {
	n.mu.Lock()
	cut := n.cut[pair(from, to)]
	n.dialed[lane]++
	n.mu.Unlock()
	if cut {
		return nil, errCut
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	preamble := append([]byte{byte(lane), byte(len(from))}, from...)
	if _, err := nc.Write(preamble); err != nil {
		_ = nc.Close()
		return nil, err
	}
	c := &faultyConn{Conn: nc, net: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[pair(from, to)] {
		_ = nc.Close()
		return nil, errCut
	}
	n.live[c] = pair(from, to)
	return c, nil
}

// faultyConn is the dialer's end of a connection.
type faultyConn struct {
	net.Conn
	net *network
}

func (c *faultyConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.live, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

// partition cuts every connection between the nodes and keeps new ones away.
func (n *network) partition(a, b string) {
	n.mu.Lock()
	n.cut[pair(a, b)] = true
	var doomed []net.Conn
	for c, p := range n.live {
		if p == pair(a, b) {
			doomed = append(doomed, c)
		}
	}
	n.mu.Unlock()
	for _, c := range doomed {
		_ = c.Close()
	}
}

func (n *network) heal(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, pair(a, b))
}

func (n *network) dials(lane Lane) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dialed[lane]
}

// node is a Mux with a listener.
type node struct {
	*Mux
	id   string
	addr string
	ln   net.Listener
	work sync.WaitGroup
	once sync.Once
}

func testConfig(n *network, id string) Config {
	return Config{
		NodeID: id,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Dial: func(ctx context.Context, nodeID, address string, lane Lane) (net.Conn, error) {
			return n.dial(ctx, id, nodeID, address, lane)
		},
		Timeouts: Timeouts{Backoff: time.Millisecond, BackoffMax: 20 * time.Millisecond},
	}
}

// start runs a node that knows, and is known to, all others of the network.
func (n *network) start(id string, edit func(*Config)) *node {
	n.tb.Helper()
	conf := testConfig(n, id)
	if edit != nil {
		edit(&conf)
	}
	m, err := New(conf)
	require.NoError(n.tb, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(n.tb, err)
	nd := &node{Mux: m, id: id, addr: ln.Addr().String(), ln: ln}
	nd.work.Go(nd.accept)
	n.mu.Lock()
	n.addrs[id] = nd.addr
	for other, addr := range n.addrs {
		m.SetAddress(other, addr)
	}
	n.mu.Unlock()
	n.tb.Cleanup(nd.stop)
	return nd
}

// pairOf runs two nodes that know each other.
func pairOf(tb testing.TB, edit func(*Config)) (*network, *node, *node) {
	n := newNetwork(tb)
	a, b := n.start("a", edit), n.start("b", edit)
	a.SetAddress("b", b.addr)
	return n, a, b
}

func (nd *node) accept() {
	for {
		nc, err := nd.ln.Accept()
		if err != nil {
			return
		}
		nd.work.Go(func() {
			lane, peer, err := readPreamble(nc)
			if err != nil {
				_ = nc.Close()
				return
			}
			nd.Serve(nc, lane, peer)
		})
	}
}

func readPreamble(nc net.Conn) (Lane, string, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(nc, head); err != nil {
		return 0, "", err
	}
	id := make([]byte, head[1])
	if _, err := io.ReadFull(nc, id); err != nil {
		return 0, "", err
	}
	return Lane(head[0]), string(id), nil
}

func (nd *node) stop() {
	nd.once.Do(func() {
		_ = nd.ln.Close()
		_ = nd.Close()
		nd.work.Wait()
	})
}

// serve answers every append of a view as a follower would, until the view
// closes.
func serve(v *View) { echo(v.LocalAddr(), v.Consumer(), v.ctx.Done()) }

func echo(as raft.ServerAddress, requests <-chan raft.RPC, done <-chan struct{}) {
	id := []byte(as)
	for {
		select {
		case rpc := <-requests:
			req := rpc.Command.(*raft.AppendEntriesRequest)
			rpc.Respond(&raft.AppendEntriesResponse{
				RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: id, Addr: id},
				Term:      req.Term, LastLog: req.PrevLogEntry + uint64(len(req.Entries)), Success: true,
			}, nil)
		case <-done:
			return
		}
	}
}

// appendRequest returns an AppendEntries with entries of size bytes each.
func appendRequest(from string, entries, size int) *raft.AppendEntriesRequest {
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(from), Addr: []byte(from)},
		Leader:    []byte(from), Term: 7, PrevLogEntry: 1000, PrevLogTerm: 7, LeaderCommitIndex: 1000,
	}
	for i := range entries {
		req.Entries = append(req.Entries, &raft.Log{
			Index: 1001 + uint64(i), Term: 7, Data: make([]byte, size), AppendedAt: time.Unix(1700000000, 12345).UTC(),
		})
	}
	return req
}

// answer answers the next request of a view.
func answer(tb testing.TB, v *View, resp any, err error) {
	tb.Helper()
	rpc := receive(tb, v.Consumer(), "request")
	rpc.Respond(resp, err)
}

func receive[T any](tb testing.TB, ch <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(tb, fmt.Sprintf("no %s", what))
		panic("unreachable")
	}
}

func eventually(tb testing.TB, cond func() bool, what string) {
	tb.Helper()
	require.Eventually(tb, cond, patience, 2*time.Millisecond, what)
}
