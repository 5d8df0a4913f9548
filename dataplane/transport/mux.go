package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Mux is one node's end of the Raft traffic of all its groups.
//
// Goroutines: runClock (owner of the deadlines), those of connections, links
// and views. Close stops all of them. Methods may be called from any goroutine.
type Mux struct {
	conf  Config
	log   *slog.Logger
	self  []byte // the node id; never modified
	stats counters

	began time.Time
	clock atomic.Int64 // nanoseconds since began, as of the last tick

	views []atomic.Pointer[View]           // by group
	peers atomic.Pointer[map[string]*peer] // by node id; replaced whole, under mu

	inbound  chan struct{} // one element per snapshot being received
	outbound chan struct{} // one element per snapshot being sent

	ctx    context.Context // ends when Close begins
	cancel context.CancelFunc
	work   sync.WaitGroup // every goroutine and every Serve

	mu     sync.Mutex // guards the fields below and the writing of peers and views
	conns  map[*conn]struct{}
	closed bool
}

// New returns a running Mux. It opens no connection before a view needs one.
func New(conf Config) (*Mux, error) {
	conf.withDefaults()
	if err := conf.validate(); err != nil {
		return nil, fmt.Errorf("raft transport: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Mux{
		conf: conf, log: conf.Logger.With("component", "transport"), self: sharedID(conf.NodeID),
		began:    time.Now(),
		views:    make([]atomic.Pointer[View], conf.Groups),
		inbound:  make(chan struct{}, conf.Limits.InboundSnapshots),
		outbound: make(chan struct{}, conf.Limits.OutboundSnapshots),
		ctx:      ctx, cancel: cancel,
		conns: make(map[*conn]struct{}),
	}
	m.peers.Store(&map[string]*peer{})
	m.spawn("clock", LaneElection, m.runClock)
	return m, nil
}

// sharedID returns a node id as bytes that many messages share: they cannot be
// appended to in place, and nobody modifies them.
func sharedID(id string) []byte { return slices.Clip([]byte(id)) }

// Group returns a new view of a group. A view of the group that is still open
// is closed first. When the Mux is closed, or the number is not below
// Config.Groups, the view is closed too and its calls fail with ErrClosed.
func (m *Mux) Group(id uint16) *View {
	v := newView(m, id)
	if int(id) < len(m.views) && v.start() {
		if old := m.views[id].Swap(v); old != nil {
			_ = old.Close()
		}
		if m.ctx.Err() != nil {
			_ = v.Close() // Mux.Close may have looked before the view was there
		}
		return v
	}
	v.closed.Store(true)
	v.cancel()
	close(v.answered)
	return v
}

// view returns the open view of a group, or nil.
func (m *Mux) view(group uint16) *View {
	if int(group) >= len(m.views) {
		return nil
	}
	return m.views[group].Load()
}

// forget makes room for the next view of a group.
func (m *Mux) forget(v *View) { m.views[v.group].CompareAndSwap(v, nil) }

// Serve runs a connection that another node opened for a lane, until it ends.
// The caller has verified that the other end is the node named peer, and gives
// up the connection. Serve logs what goes wrong.
func (m *Mux) Serve(nc net.Conn, lane Lane, peer string) {
	if !m.begin() {
		_ = nc.Close()
		return
	}
	defer m.work.Done()
	if err := m.serve(nc, lane, peer); err != nil && m.ctx.Err() == nil {
		m.log.Warn("connection refused", "peer", peer, "lane", lane, "remote", nc.RemoteAddr(), "error", err)
	}
}

func (m *Mux) serve(nc net.Conn, lane Lane, peer string) error {
	stop := context.AfterFunc(m.ctx, func() { _ = nc.Close() })
	defer stop()
	frames, err := m.welcome(nc, peer, lane)
	if err != nil {
		_ = nc.Close()
		return err
	}
	if lane == LaneSnapshot {
		defer nc.Close()
		return m.receiveSnapshot(nc, frames, peer)
	}
	l, err := m.acceptLink(peer, lane)
	if err != nil {
		_ = nc.Close()
		return err
	}
	c := newConn(l, nc, frames, false)
	if err := l.attach(c); err != nil {
		_ = nc.Close()
		return err
	}
	// The peer is up: do not sit out pauses of the other lanes.
	for _, other := range l.peer.links {
		other.retry()
	}
	_ = c.run() // logged by logEnd
	return nil
}

// acceptLink returns the link that an accepted connection belongs to.
func (m *Mux) acceptLink(nodeID string, lane Lane) (*link, error) {
	if int(lane) >= streamLanes {
		return nil, fmt.Errorf("%w: %v", ErrProtocol, lane)
	}
	if nodeID == m.conf.NodeID {
		return nil, fmt.Errorf("%w: a node with this node's id", ErrProtocol)
	}
	p, err := m.peer(nodeID, true)
	if err != nil {
		return nil, err
	}
	return p.links[lane], nil
}

// Close fails every call, ends every connection, closes every view, and waits
// until nothing that the Mux started is left. It always returns nil.
func (m *Mux) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	for i := range m.views {
		if v := m.views[i].Load(); v != nil {
			_ = v.Close()
		}
	}
	for _, p := range *m.peers.Load() {
		for _, l := range p.links {
			l.close(ErrClosed)
		}
	}
	m.work.Wait()
	return nil
}

// begin counts something that Close must wait for, unless Close has begun.
func (m *Mux) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.work.Add(1)
	return true
}

// spawn runs f on a goroutine that Close waits for, labelled for profiles. It
// reports false, and does nothing, once Close has begun.
func (m *Mux) spawn(role string, lane Lane, f func()) bool {
	if !m.begin() {
		return false
	}
	go func() {
		defer m.work.Done()
		labels := pprof.Labels("component", "transport", "role", role, "lane", lane.String())
		pprof.Do(context.Background(), labels, func(context.Context) { f() })
	}()
	return true
}

// track enters a connection into the ones that deadlines are checked on.
func (m *Mux) track(c *conn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.conns[c] = struct{}{}
	return nil
}

func (m *Mux) untrack(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, c)
}

func (m *Mux) connections(into []*conn) []*conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.AppendSeq(into, maps.Keys(m.conns))
}

// failCalls ends the calls of a view that was closed.
func (m *Mux) failCalls(v *View) {
	for _, c := range m.connections(nil) {
		c.calls.fail(ErrClosed, func(cl *call) bool { return cl.view == v })
	}
}

// now returns the time on the Mux's clock, as of its last tick. Deadlines of
// calls are kept on it, so that a call costs no timer.
func (m *Mux) now() time.Duration { return time.Duration(m.clock.Load()) }

func (m *Mux) runClock() {
	ticker := time.NewTicker(m.conf.Timeouts.tick())
	defer ticker.Stop()
	var conns []*conn
	for {
		select {
		case <-ticker.C:
		case <-m.ctx.Done():
			return
		}
		now := time.Since(m.began)
		m.clock.Store(int64(now))
		conns = m.connections(conns[:0])
		for _, c := range conns {
			c.sweep(now)
		}
		clear(conns)
	}
}

// logEnd logs why a connection ended: an offence always, a loss as news, the
// rest for those who debug.
func (m *Mux) logEnd(c *conn, reason error) {
	level, text := slog.LevelInfo, "connection lost"
	switch {
	case reason == nil || m.ctx.Err() != nil || errors.Is(reason, errReplaced) || errors.Is(reason, errMoved) ||
		errors.Is(reason, ErrUnknownPeer):
		level, text = slog.LevelDebug, "connection closed"
	case errors.Is(reason, ErrProtocol):
		level, text = slog.LevelError, "connection closed: peer does not follow the protocol"
	case errors.Is(reason, io.EOF):
		reason = errors.New("closed by peer")
	}
	m.log.Log(context.Background(), level, text,
		"peer", c.peer, "lane", c.lane, "dialed", c.dialed, "remote", c.nc.RemoteAddr(), "error", reason)
}
