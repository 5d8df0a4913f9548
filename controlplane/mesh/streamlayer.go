package mesh

import (
	"context"
	"fmt"
	"net"
	"time"
)

// StreamLayer carries the Raft of the control plane's members over the mesh.
// With A the server address type of the Raft library it has the methods that
// the library's network transport asks of a stream layer; the mesh itself does
// not import the library.
type StreamLayer[A ~string] struct {
	net.Listener
	advertise net.Addr
	dialer    *Dialer
	resolve   func(A) (id, addr string, err error)
}

// NewStreamLayer claims KindControlRaft at l. resolve turns the address of a
// member into the id that must answer and the network address to dial; with
// nil, addresses are dialed as they are and any control member may answer.
// advertise is what Addr says, the listener's own address when empty.
func NewStreamLayer[A ~string](l *Listener, d *Dialer, advertise string,
	resolve func(A) (id, addr string, err error)) *StreamLayer[A] {
	if resolve == nil {
		resolve = func(a A) (string, string, error) { return "", string(a), nil }
	}
	s := &StreamLayer[A]{Listener: l.Accept(KindControlRaft), advertise: l.Addr(), dialer: d, resolve: resolve}
	if advertise != "" {
		s.advertise = advertised(advertise)
	}
	return s
}

// Addr returns the address at which other members reach this one.
func (s *StreamLayer[A]) Addr() net.Addr { return s.advertise }

// Dial connects to another member. A timeout of zero or less means the
// handshake's own limit.
func (s *StreamLayer[A]) Dial(address A, timeout time.Duration) (net.Conn, error) {
	id, addr, err := s.resolve(address)
	if err != nil {
		return nil, fmt.Errorf("mesh: resolve %s: %w", address, err)
	}
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return s.dialer.DialNode(ctx, KindControlRaft, 0, id, addr)
}

// advertised is an address as an operator wrote it, possibly with a host name.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }
