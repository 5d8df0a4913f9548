package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// link is one lane to one peer: up to two connections, one dialed by each
// side. Both sides prefer the one that the smaller node id dialed, so they
// settle on the same without a word, and the other one is closed when idle.
//
// Goroutines: dialLoop, only while someone waits for a connection.
type link struct {
	mux  *Mux
	peer *peer
	lane Lane

	cur atomic.Pointer[conn] // the connection to send on; nil when there is none

	mu       sync.Mutex // guards the fields below
	dialed   *conn
	accepted *conn
	changed  chan struct{} // closed and replaced when cur or closed changes
	waiters  int
	dialing  bool
	failures int       // attempts since the last connection
	retryAt  time.Time // no attempt before it
	lastErr  error     // of the last attempt
	closed   error

	kick chan struct{} // capacity 1: the peer may be back, do not sit out the pause
}

func newLink(p *peer, lane Lane) *link {
	return &link{mux: p.mux, peer: p, lane: lane, changed: make(chan struct{}), kick: make(chan struct{}, 1)}
}

func (l *link) current() *conn { return l.cur.Load() }

// wait returns a connection as soon as there is one, and makes dialLoop look
// for it. It fails when the view closes or the timeout ends.
func (l *link) wait(v *View, timeout time.Duration) (*conn, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		l.mu.Lock()
		c, closed, changed := l.cur.Load(), l.closed, l.changed
		if c == nil && closed == nil {
			closed = l.dialable()
		}
		if c != nil || closed != nil {
			l.mu.Unlock()
			return c, closed
		}
		l.waiters++
		if !l.dialing {
			l.dialing = l.mux.spawn("dial", l.lane, l.dialLoop)
		}
		l.mu.Unlock()

		var err error
		select {
		case <-changed:
		case <-v.ctx.Done():
			err = ErrClosed
		case <-timer.C:
			err = ErrUnreachable
		}
		l.mu.Lock()
		l.waiters--
		if err == ErrUnreachable && l.lastErr != nil {
			err = fmt.Errorf("%w: %w", err, l.lastErr)
		}
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

func (l *link) dialable() error {
	if l.mux.conf.Dial == nil {
		return fmt.Errorf("%w: this node does not dial", ErrUnreachable)
	}
	if l.peer.address() == "" {
		return ErrUnknownPeer
	}
	return nil
}

// dialLoop dials until there is a connection or nobody waits for one.
func (l *link) dialLoop() {
	for {
		l.mu.Lock()
		if l.closed != nil || l.cur.Load() != nil || l.waiters == 0 {
			l.dialing = false
			l.mu.Unlock()
			return
		}
		pause := time.Until(l.retryAt)
		l.mu.Unlock()
		if pause > 0 && !l.pause(pause) {
			continue
		}
		if c, err := l.dial(); err != nil {
			l.failed(err)
		} else {
			l.mux.spawn("read", l.lane, func() { _ = c.run() })
		}
	}
}

// pause waits out the backoff; false means to look at the state again.
func (l *link) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.kick:
	case <-l.mux.ctx.Done():
	}
	return false
}

// dial makes one attempt and attaches the connection.
func (l *link) dial() (*conn, error) {
	ctx, cancel := context.WithTimeout(l.mux.ctx, l.mux.conf.Timeouts.Dial)
	defer cancel()
	l.mux.stats.dials.Add(1)
	nc, err := l.mux.conf.Dial(ctx, l.peer.id, l.peer.address(), l.lane)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	frames, err := l.mux.greet(ctx, nc, l.peer.id, l.lane)
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := newConn(l, nc, frames, true)
	if err := l.attach(c); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return c, nil
}

// failed notes a failed attempt and sets the time of the next.
func (l *link) failed(err error) {
	t := &l.mux.conf.Timeouts
	l.mux.stats.dialFailures.Add(1)
	l.mu.Lock()
	l.lastErr = err
	pause := t.BackoffMax
	if l.failures < 16 {
		pause = min(pause, t.Backoff<<l.failures)
	}
	pause = pause/2 + rand.N(pause/2+1)
	l.failures++
	first := l.failures == 1
	l.retryAt = time.Now().Add(pause)
	closed := l.closed != nil
	l.mu.Unlock()
	if first && !closed && !errors.Is(err, context.Canceled) {
		l.mux.log.Warn("node is unreachable", "peer", l.peer.id, "lane", l.lane, "address", l.peer.address(), "error", err)
	}
}

// attach makes a new connection available. It replaces one from the same side:
// a peer that dials again has lost the old one.
func (l *link) attach(c *conn) error {
	if err := l.mux.track(c); err != nil {
		return err
	}
	l.mu.Lock()
	if err := l.closed; err != nil {
		l.mu.Unlock()
		l.mux.untrack(c)
		return err
	}
	slot := &l.accepted
	if c.dialed {
		slot = &l.dialed
	}
	old := *slot
	*slot = c
	back := l.failures > 0
	l.failures, l.retryAt, l.lastErr = 0, time.Time{}, nil
	l.choose()
	l.mu.Unlock()
	if old != nil {
		old.close(errReplaced)
	}
	if back {
		l.mux.log.Info("node is reachable again", "peer", l.peer.id, "lane", l.lane)
	}
	return nil
}

var errReplaced = errors.New("replaced by a newer connection")

// detach removes a connection that is closing.
func (l *link) detach(c *conn, reason error) {
	l.mux.untrack(c)
	l.mu.Lock()
	if l.dialed == c {
		l.dialed = nil
	}
	if l.accepted == c {
		l.accepted = nil
	}
	l.choose()
	l.mu.Unlock()
	l.mux.logEnd(c, reason)
}

// choose sets cur and wakes waiters when it changes. It needs mu.
func (l *link) choose() {
	first, second := l.dialed, l.accepted
	if l.mux.conf.NodeID > l.peer.id {
		first, second = second, first
	}
	if first == nil {
		first = second
	}
	if first != l.cur.Load() {
		l.cur.Store(first)
		l.announce()
	}
}

// announce wakes all waiters. It needs mu.
func (l *link) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// retry ends a pause between attempts: there is a sign that the peer is back.
func (l *link) retry() {
	l.mu.Lock()
	l.retryAt = time.Time{}
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// close ends both connections and fails all waiters with reason, now and later.
func (l *link) close(reason error) {
	l.mu.Lock()
	if l.closed == nil {
		l.closed = reason
		l.announce()
	}
	dialed, accepted := l.dialed, l.accepted
	l.mu.Unlock()
	l.retry()
	for _, c := range []*conn{dialed, accepted} {
		if c != nil {
			c.close(reason)
		}
	}
}

// hangUp closes the connection this node dialed, so that the next one goes to
// the peer's present address.
func (l *link) hangUp() {
	l.mu.Lock()
	c := l.dialed
	l.mu.Unlock()
	if c != nil {
		c.close(errMoved)
	}
	l.retry()
}

var errMoved = errors.New("node has a new address")
