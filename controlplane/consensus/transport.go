package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/raftslog"
)

const (
	// transportTimeout bounds one call to another member; a snapshot gets as
	// many times more as it is larger than 256 KiB.
	transportTimeout = 2 * time.Second
	// transportPool is how many idle connections to a member are kept.
	transportPool = 3
	// maxInbound bounds the connections from other members. A member holds at
	// most two long ones to each other, and one per snapshot.
	maxInbound = 64
)

// Stream carries Raft's bytes between the members. Accept, Close and Addr are
// those of a net.Listener that sees only connections meant for Raft; who may
// connect is the implementation's business. The member that it is handed to
// owns it and closes it.
type Stream interface {
	net.Listener
	// Dial connects to a member. It gives up when ctx ends.
	Dial(ctx context.Context, id, address string) (net.Conn, error)
}

// transport is raft's network transport with three changes. Members know each
// other by id, and ids are resolved when dialling, so that an address can
// change without a change of the configuration. Heartbeats take the same way
// as all else: raft's fast path for them handles them on a second goroutine,
// which can corrupt the log (hashicorp/raft issue 695). And it outlives an
// instance of raft: only the member closes it, which ends all connections and
// waits for their goroutines.
type transport struct {
	network // an interface, so that raft does not see a Close
	id      raft.ServerAddress
}

// network is what raft needs of a transport, PreVote included.
type network interface {
	raft.Transport
	raft.WithPreVote
}

// newTransport returns the member's transport and what closes it.
func newTransport(cfg *Config, logger *raftslog.Logger) (*transport, io.Closer) {
	id := raft.ServerAddress(cfg.ID)
	if cfg.Stream == nil {
		_, memory := raft.NewInmemTransport(id)
		return &transport{network: memory, id: id}, memory
	}
	layer := newStreamLayer(cfg.Stream, cfg.Peers)
	remote := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:          layer,
		MaxPool:         transportPool,
		MaxRPCsInFlight: 1, // no pipeline: the control log is written rarely
		Timeout:         transportTimeout,
		Logger:          logger,
	})
	return &transport{network: remote, id: id}, remote
}

// LocalAddr implements raft.Transport.
func (t *transport) LocalAddr() raft.ServerAddress { return t.id }

// EncodePeer implements raft.Transport.
func (t *transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// SetHeartbeatHandler implements raft.Transport by not having a fast path.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// streamLayer is a Stream as raft wants it. It bounds and tracks connections:
// raft's transport neither closes pooled nor accepted ones when it is closed.
type streamLayer struct {
	stream Stream
	peers  map[string]string

	// ctx ends with the layer, and with it what is being dialled.
	ctx    context.Context
	cancel context.CancelFunc

	// serving counts accepted connections until raft's goroutine for each is
	// done with it.
	serving sync.WaitGroup

	mu      sync.Mutex // guards what follows
	conns   map[*trackedConn]struct{}
	inbound int
	closed  bool
}

var _ raft.StreamLayer = (*streamLayer)(nil)

func newStreamLayer(stream Stream, peers map[string]string) *streamLayer {
	ctx, cancel := context.WithCancel(context.Background())
	return &streamLayer{stream: stream, peers: peers, ctx: ctx, cancel: cancel, conns: make(map[*trackedConn]struct{})}
}

// trackedConn is a connection that its layer can close.
type trackedConn struct {
	net.Conn
	layer   *streamLayer
	inbound bool
	once    sync.Once
}

// Accept implements net.Listener.
func (l *streamLayer) Accept() (net.Conn, error) {
	for {
		conn, err := l.stream.Accept()
		if err != nil {
			return nil, err
		}
		if tracked := l.track(conn, true); tracked != nil {
			return tracked, nil
		}
		_ = conn.Close()
	}
}

// Dial implements raft.StreamLayer. The address is a member's id.
func (l *streamLayer) Dial(id raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	address, known := l.peers[string(id)]
	if !known {
		return nil, fmt.Errorf("dial control member: %q is not a member", id)
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	conn, err := l.stream.Dial(ctx, string(id), address)
	if err != nil {
		return nil, fmt.Errorf("dial control member %s: %w", id, err)
	}
	if tracked := l.track(conn, false); tracked != nil {
		return tracked, nil
	}
	return nil, errors.Join(fmt.Errorf("dial control member %s: %w", id, ErrClosed), conn.Close())
}

// track returns nil when the layer is closed or has enough connections.
func (l *streamLayer) track(conn net.Conn, inbound bool) *trackedConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || inbound && l.inbound >= maxInbound {
		return nil
	}
	tracked := &trackedConn{Conn: conn, layer: l, inbound: inbound}
	l.conns[tracked] = struct{}{}
	if inbound {
		l.inbound++
		l.serving.Add(1)
	}
	return tracked
}

// Close implements net.Conn for raft, which calls it from the goroutine that
// served the connection, as its last act.
func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.layer.mu.Lock()
		delete(c.layer.conns, c)
		if c.inbound {
			c.layer.inbound--
		}
		c.layer.mu.Unlock()
		if c.inbound {
			c.layer.serving.Done()
		}
	})
	return err
}

// Close implements net.Listener: it ends all connections and waits until raft
// has let go of those it served.
func (l *streamLayer) Close() error {
	l.cancel()
	err := l.stream.Close()
	l.mu.Lock()
	l.closed = true
	conns := make([]*trackedConn, 0, len(l.conns))
	for conn := range l.conns {
		conns = append(conns, conn)
	}
	l.mu.Unlock()
	for _, conn := range conns {
		if conn.inbound {
			_ = conn.Conn.Close()
		} else {
			_ = conn.Close()
		}
	}
	l.serving.Wait()
	return err
}

// Addr implements net.Listener.
func (l *streamLayer) Addr() net.Addr { return l.stream.Addr() }
