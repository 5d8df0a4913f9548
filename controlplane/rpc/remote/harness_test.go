package remote

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test for something that must happen.
const patience = 20 * time.Second

// fakePlane is a control plane whose leader a test chooses.
type fakePlane struct {
	mu        sync.Mutex // guards what follows
	leader    string     // address, empty for none
	table     *rpc.Table
	assign    *rpc.Assignment
	changed   chan struct{}
	sessions  map[string]int // by address of the member
	reports   []*rpc.Report
	refusal   error // of every session
	stubborn  bool  // sessions wait for their context
	anyServes bool  // followers answer Table too
	cold      bool  // the table is only for callers that have none
}

func newFakePlane() *fakePlane {
	return &fakePlane{
		table:    &rpc.Table{ClusterID: "cluster-1", Version: 1, Nodes: map[rpc.NodeID]rpc.NodeInfo{}},
		assign:   &rpc.Assignment{ClusterID: "cluster-1", Version: 1, Addresses: map[rpc.NodeID]string{}},
		changed:  make(chan struct{}),
		sessions: map[string]int{},
	}
}

func (p *fakePlane) isCold() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cold
}

// change changes the plane under its mutex and wakes who waits for it.
func (p *fakePlane) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// publish gives the table a next version.
func (p *fakePlane) publish() (version uint64) {
	p.change(func() {
		t := *p.table
		t.Version++
		p.table = &t
		version = t.Version
	})
	return version
}

func (p *fakePlane) lead(address string) { p.change(func() { p.leader = address }) }

// fakeMember is the member of a fakePlane at an address.
type fakeMember struct {
	plane   *fakePlane
	address string
}

func (m *fakeMember) LeaderHint() string {
	m.plane.mu.Lock()
	defer m.plane.mu.Unlock()
	return m.plane.leader
}

// notLeader is called with the mutex held.
func (m *fakeMember) notLeader() error {
	if m.plane.leader == "" {
		return fmt.Errorf("member %s: %w", m.address, rpc.ErrUnavailable)
	}
	return fmt.Errorf("member %s: %w", m.address, &rpc.NotLeaderError{Leader: "c", Address: m.plane.leader})
}

func (m *fakeMember) Table(ctx context.Context, after uint64) (*rpc.Table, error) {
	for {
		m.plane.mu.Lock()
		table, changed := m.plane.table, m.plane.changed
		var err error
		if m.plane.leader != m.address && !m.plane.anyServes {
			err = m.notLeader()
		}
		m.plane.mu.Unlock()
		if err != nil || table.Version > after && (after == 0 || !m.plane.isCold()) {
			return table, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return table, nil
		}
	}
}

func (m *fakeMember) Session(ctx context.Context, report *rpc.Report) (*rpc.Assignment, error) {
	m.plane.mu.Lock()
	m.plane.sessions[m.address]++
	m.plane.reports = append(m.plane.reports, report)
	stubborn, assign, refusal := m.plane.stubborn, m.plane.assign, m.plane.refusal
	if m.plane.leader != m.address {
		refusal = m.notLeader()
	}
	m.plane.mu.Unlock()
	if stubborn {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if refusal != nil {
		return nil, refusal
	}
	return assign, nil
}

// running is the server of a member on a loopback socket.
type running struct {
	server  *Server
	grpc    *grpc.Server
	address string
	wg      sync.WaitGroup
	once    sync.Once
}

func serve(t testing.TB, address string, backend func(address string) Backend, opts ServerOptions) *running {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	var listener net.Listener
	require.Eventually(t, func() bool {
		var err error
		listener, err = net.Listen("tcp", address)
		return err == nil
	}, patience, 10*time.Millisecond)
	address = listener.Addr().String()
	r := &running{server: NewServer(backend(address), opts), grpc: grpc.NewServer(), address: address}
	r.server.Register(r.grpc)
	r.wg.Go(func() { _ = r.grpc.Serve(listener) })
	t.Cleanup(r.kill)
	return r
}

// kill cuts every connection first, as the end of the process would.
func (r *running) kill() {
	r.once.Do(func() {
		r.grpc.Stop()
		_ = r.server.Close()
		r.wg.Wait()
	})
}

func (p *fakePlane) member(address string) Backend { return &fakeMember{plane: p, address: address} }

// start serves n members of the plane; the first one leads.
func (p *fakePlane) start(t testing.TB, n int, opts ServerOptions) []*running {
	t.Helper()
	members := make([]*running, n)
	for i := range members {
		members[i] = serve(t, "", p.member, opts)
	}
	p.lead(members[0].address)
	return members
}

func addresses(members []*running) []string {
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.address
	}
	return out
}

func dialMember(address string) (Conn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func newClient(t testing.TB, opts Options) *Client {
	t.Helper()
	if opts.Dial == nil {
		opts.Dial = dialMember
	}
	c, err := NewClient(opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func within10s(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func reportOf(node string) *rpc.Report {
	return &rpc.Report{Node: rpc.NodeInfo{ID: rpc.NodeID(node), Address: "a:1"}}
}

// sinkhole accepts connections and never says anything.
func sinkhole(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return listener.Addr().String()
}
