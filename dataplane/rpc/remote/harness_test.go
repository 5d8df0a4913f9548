package remote

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test for something that must happen.
const patience = 20 * time.Second

// stubNode is a node whose methods are what a test makes them.
type stubNode struct {
	put          func(context.Context, *rpc.PutRequest) (*rpc.PutReply, error)
	append       func(context.Context, *rpc.AppendRequest) (*rpc.AppendReply, error)
	tombstone    func(context.Context, rpc.Key) error
	conversation func(context.Context, rpc.Key, rpc.ReadOptions) (*rpc.Conversation, error)
	messages     func(context.Context, *rpc.MessagesRequest) (*rpc.Page, error)
	tail         func(context.Context, *rpc.TailRequest) (*rpc.Page, error)
	list         func(context.Context, *rpc.ListRequest) (*rpc.ListReply, error)
}

var errNotStubbed = errors.New("the test did not expect this call")

func stub[Req, Reply any](f func(context.Context, Req) (Reply, error), ctx context.Context, req Req) (reply Reply, err error) {
	if f == nil {
		return reply, errNotStubbed
	}
	return f(ctx, req)
}

func (n *stubNode) Put(ctx context.Context, req *rpc.PutRequest) (*rpc.PutReply, error) {
	return stub(n.put, ctx, req)
}

func (n *stubNode) Append(ctx context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
	return stub(n.append, ctx, req)
}

func (n *stubNode) Tombstone(ctx context.Context, key rpc.Key) error {
	if n.tombstone == nil {
		return errNotStubbed
	}
	return n.tombstone(ctx, key)
}

func (n *stubNode) Conversation(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) (*rpc.Conversation, error) {
	if n.conversation == nil {
		return nil, errNotStubbed
	}
	return n.conversation(ctx, key, opts)
}

func (n *stubNode) Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
	return stub(n.messages, ctx, req)
}

func (n *stubNode) Tail(ctx context.Context, req *rpc.TailRequest) (*rpc.Page, error) {
	return stub(n.tail, ctx, req)
}

func (n *stubNode) List(ctx context.Context, req *rpc.ListRequest) (*rpc.ListReply, error) {
	return stub(n.list, ctx, req)
}

// running is a server on a loopback socket.
type running struct {
	*Server
	grpc    *grpc.Server
	address string
	wg      sync.WaitGroup
	once    sync.Once
}

// serve starts a server for node; address may be empty.
func serve(t testing.TB, address string, node rpc.Node, opts ServerOptions) *running {
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
	r := &running{Server: NewServer(node, opts), grpc: grpc.NewServer(serverOptions()...), address: listener.Addr().String()}
	r.Register(r.grpc)
	r.wg.Go(func() { _ = r.grpc.Serve(listener) })
	t.Cleanup(r.kill)
	return r
}

// kill cuts every connection first, as the end of the process would.
func (r *running) kill() {
	r.once.Do(func() {
		r.grpc.Stop()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
		r.wg.Wait()
	})
}

// serverOptions and dialOptions are as in the running program.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxRequestBytes),
		grpc.StaticStreamWindowSize(1 << 20),
		grpc.StaticConnWindowSize(8 << 20),
		grpc.ReadBufferSize(16 << 10),
		grpc.WriteBufferSize(32 << 10),
	}
}

func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(1 << 20),
		grpc.WithStaticConnWindowSize(8 << 20),
		grpc.WithReadBufferSize(16 << 10),
		grpc.WithWriteBufferSize(32 << 10),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
	}
}

func connect(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, dialOptions()...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func dial(t testing.TB, address string, opts Options) *Client {
	t.Helper()
	client, err := Dial(connect(t, address), opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// pair is a client of a served node.
func pair(t testing.TB, node rpc.Node) *Client {
	t.Helper()
	return dial(t, serve(t, "", node, ServerOptions{}).address, Options{})
}

func waitUp(t testing.TB, c *Client) {
	t.Helper()
	require.Eventually(t, func() bool { return c.Stats().Streams == c.opts.Streams }, patience, time.Millisecond)
}

func within10s(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func appendOf(key, content string) *rpc.AppendRequest {
	return &rpc.AppendRequest{Key: rpc.Key(key), Messages: []rpc.NewMessage{{Content: []byte(content)}}}
}

// proxy carries connections to a server, until it is told to swallow what comes:
// the peer's kernel still acknowledges, but nobody answers.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu         sync.Mutex // guards what follows
	swallowing bool
	conns      []net.Conn
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: listener, target: target}
	p.wg.Go(p.accept)
	t.Cleanup(p.stop)
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) swallow(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallowing = on
}

func (p *proxy) isSwallowing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.swallowing
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) stop() {
	_ = p.listener.Close()
	p.cut()
	p.wg.Wait()
}

func (p *proxy) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(in, out) })
		p.wg.Go(func() { p.copy(out, in) })
	}
}

func (p *proxy) copy(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.isSwallowing() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
