package mesh

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is what is known of the process at the other end of a connection. Its
// fields were covered by the handshake: with a token they are the claims of a
// process that knows it.
type Peer struct {
	Role      Role
	ID        string // empty for some routers
	ClusterID string // empty when the peer did not know it yet
	Kind      Kind
	Lane      Lane
	// Token and TLS tell how the peer proved itself.
	Token bool
	TLS   bool
}

// Conn is a connection that the mesh established. Its concrete type embeds the
// *net.TCPConn or *tls.Conn below, so that everything those can do (vectored
// writes of net.Buffers, ReadFrom, WriteTo, SyscallConn, CloseWrite) costs what
// it costs there.
type Conn interface {
	net.Conn
	// Peer returns who is at the other end.
	Peer() Peer
	// NetConn returns the connection below: *net.TCPConn, *tls.Conn, or what a
	// foreign listener accepted. It is for options of the socket; close the Conn
	// itself.
	NetConn() net.Conn
}

// PeerOf returns who is at the other end of a connection that came from this
// package, also through wrappers that have a NetConn method.
func PeerOf(conn net.Conn) (Peer, bool) {
	for range maxWrappers {
		if c, ok := conn.(Conn); ok {
			return c.Peer(), true
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = wrapper.NetConn()
	}
	return Peer{}, false
}

// maxWrappers bounds the search through wrappers, which might form a ring.
const maxWrappers = 8

// established is a Conn that is in its set.
type established interface {
	Conn
	// abandon closes the connection without the goodbye of TLS, which can block.
	abandon()
}

// wrap makes a Conn out of a connection whose handshake is over, and puts it
// into the set. raw is inner itself or what lies below its TLS.
func wrap(inner, raw net.Conn, peer Peer, set *connSet) (established, error) {
	l := &link{peer: peer, raw: raw, set: set}
	if err := set.add(l); err != nil {
		return nil, err
	}
	switch c := inner.(type) {
	case *net.TCPConn:
		return &tcpConn{c, l}, nil
	case *tls.Conn:
		return &tlsConn{c, l}, nil
	default:
		return &otherConn{c, l}, nil
	}
}

// tcpConn promotes even the unexported method by which package net recognises
// connections that can write vectors; that is why it embeds the concrete type.
type tcpConn struct {
	*net.TCPConn
	*link
}

func (c *tcpConn) NetConn() net.Conn { return c.TCPConn }
func (c *tcpConn) Close() error      { c.leave(); return c.TCPConn.Close() }

type tlsConn struct {
	*tls.Conn
	*link
}

func (c *tlsConn) NetConn() net.Conn { return c.Conn }
func (c *tlsConn) Close() error      { c.leave(); return c.Conn.Close() }

// otherConn is for listeners that accept neither.
type otherConn struct {
	net.Conn
	*link
}

func (c *otherConn) NetConn() net.Conn { return c.Conn }
func (c *otherConn) Close() error      { c.leave(); return c.Conn.Close() }

// link is the membership of a connection in its set.
type link struct {
	peer Peer
	raw  net.Conn
	set  *connSet
	left atomic.Bool
}

// Peer implements Conn.
func (l *link) Peer() Peer { return l.peer }

func (l *link) leave() {
	if l.left.CompareAndSwap(false, true) {
		l.set.remove(l)
	}
}

// cut breaks the connection. Its owner still has to close it.
func (l *link) cut() { _ = l.raw.Close() }

func (l *link) abandon() {
	l.cut()
	l.leave()
}

// connSet holds the established connections of one end, and the cluster id
// they must agree with.
type connSet struct {
	limit int

	mu      sync.Mutex // guards the fields below
	cluster string
	links   map[*link]struct{}
	closed  bool
}

func newConnSet(limit int, cluster string) *connSet {
	return &connSet{limit: limit, cluster: cluster, links: make(map[*link]struct{})}
}

func (s *connSet) clusterID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cluster
}

// add fails with a *refusal.
func (s *connSet) add(l *link) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return refuse(codeBusy, "it is shutting down")
	case !sameCluster(s.cluster, l.peer.ClusterID):
		return refuse(codeWrongCluster, "")
	case len(s.links) >= s.limit:
		return refuse(codeBusy, "%d connections are open", s.limit)
	}
	s.links[l] = struct{}{}
	return nil
}

func (s *connSet) remove(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
}

func (s *connSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.links)
}

// setCluster makes the cluster id known and cuts the connections to peers that
// said they belong to another.
func (s *connSet) setCluster(id string) error {
	if err := checkName(id); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster != "" && s.cluster != id {
		return refuse(codeWrongCluster, "this process belongs to %q, not %q", s.cluster, id)
	}
	s.cluster = id
	for l := range s.links {
		if !sameCluster(id, l.peer.ClusterID) {
			l.cut()
		}
	}
	return nil
}

// close cuts all connections and refuses new ones.
func (s *connSet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.links {
		l.cut()
	}
}

func sameCluster(a, b string) bool { return a == "" || b == "" || a == b }

const (
	// A peer whose machine is gone is noticed by the kernel within about half a
	// minute, idle or with data on the way. Protocols above have shorter
	// deadlines of their own; this catches what they leave open.
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
	userTimeout       = 30 * time.Second
)

// tune sets the options of a new TCP connection. They are a backstop, so that
// a system that refuses them is no reason to refuse the connection.
func tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	})
	setUserTimeout(tcp, userTimeout)
}
