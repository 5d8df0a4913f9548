package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// writeChunkBytes is how much is written under one write deadline, so that a
// slow connection counts as alive while it makes progress.
const writeChunkBytes = 256 << 10

// conn is one connection of a stream lane. Both ends send requests on it and
// answer the other's, so one flush carries the requests of the groups led here
// and the answers to those led there.
//
// Goroutines: read (owner of frames and dec), write (takes from out). The
// Mux's clock goroutine owns pingAt and calls sweep. close may come from any.
type conn struct {
	mux    *Mux
	link   *link
	lane   Lane
	peer   string
	dialed bool // by this node
	nc     net.Conn

	frames *frameReader
	dec    decoder
	out    *outbox
	calls  callTable

	received atomic.Int64  // when something last arrived, on the Mux's clock
	pingAt   time.Duration // when a sign of life was asked for, 0 when none is due

	once sync.Once
	done chan struct{}
}

func newConn(l *link, nc net.Conn, frames *frameReader, dialed bool) *conn {
	m := l.mux
	c := &conn{
		mux: m, link: l, lane: l.lane, peer: l.peer.id, dialed: dialed, nc: nc,
		frames: frames,
		dec:    decoder{peer: sharedID(l.peer.id)},
		out:    newOutbox(m.self, m.conf.Limits.QueueBytes, frames.limit),
		calls:  callTable{limit: m.conf.Limits.Calls},
		done:   make(chan struct{}),
	}
	stats := &m.stats.lanes[l.lane]
	frames.received = func(n int) {
		c.received.Store(int64(m.now()))
		stats.reads.Add(1)
		stats.bytesIn.Add(uint64(n))
	}
	c.received.Store(int64(m.now()))
	return c
}

// roundTrip sends a request of a view and waits for the answer, which it
// stores in resp. It fails at the deadline, when the view closes and when the
// connection ends.
func (c *conn) roundTrip(v *View, k kind, req, resp any, deadline time.Duration) error {
	cl := newCall(v, resp, deadline)
	defer cl.release()
	id, err := c.calls.add(cl)
	if err != nil {
		return err
	}
	// A view that closes now either sees the call in the table or is seen here.
	if v.isClosed() {
		err = ErrClosed
	} else {
		err = c.out.push(k, v.group, id, req)
	}
	if err != nil && c.calls.take(id) != nil {
		return err
	}
	return <-cl.done
}

// run serves the connection until it ends, and returns why.
func (c *conn) run() error {
	c.mux.spawn("write", c.lane, c.write)
	err := c.read()
	c.close(err)
	return err
}

// close ends the connection; every call on it fails at once.
func (c *conn) close(reason error) {
	c.once.Do(func() {
		close(c.done)
		c.link.detach(c, reason)
		lost := ErrConnectionLost
		if c.mux.ctx.Err() != nil {
			lost = ErrClosed
		} else if reason != nil {
			lost = fmt.Errorf("%w: %w", ErrConnectionLost, reason)
		}
		c.out.close(lost)
		c.calls.close(lost)
		_ = c.nc.Close() // nothing is left that could be lost
	})
}

// write takes what waits and writes it, until the connection ends.
func (c *conn) write() {
	stats := &c.mux.stats.lanes[c.lane]
	flushed := c.mux.conf.Observer.Flush
	var gather time.Duration
	if c.lane == LaneElection {
		gather = c.mux.conf.Timeouts.Gather
	}
	var batch []byte
	var armed time.Duration // when the write deadline was last set
	for {
		c.out.await(gather)
		// Let the goroutines that are ready to run push first: on a busy machine
		// most of them are about to.
		runtime.Gosched()
		var frames int
		var ok bool
		if batch, frames, ok = c.out.take(batch); !ok {
			return
		}
		for rest := batch; len(rest) > 0; {
			n := min(len(rest), writeChunkBytes)
			if now := c.mux.now(); armed == 0 || now-armed > c.mux.conf.Timeouts.Write/4 {
				armed = now
				if err := c.nc.SetWriteDeadline(time.Now().Add(c.mux.conf.Timeouts.Write)); err != nil {
					c.close(err)
					return
				}
			}
			if _, err := c.nc.Write(rest[:n]); err != nil {
				c.close(fmt.Errorf("write: %w", err))
				return
			}
			rest = rest[n:]
		}
		stats.flushes.Add(1)
		stats.framesOut.Add(uint64(frames))
		stats.bytesOut.Add(uint64(len(batch)))
		if flushed != nil {
			flushed(c.peer, c.lane, frames, len(batch))
		}
	}
}

// read handles frames until the connection ends or breaks the protocol. It
// never waits for a group.
func (c *conn) read() error {
	for {
		f, err := c.frames.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return io.EOF
			}
			return err
		}
		if err := c.handle(f); err != nil {
			return err
		}
	}
}

func (c *conn) handle(f frame) error {
	switch {
	case f.kind == kindError || f.kind.isReply():
		return c.answered(f)
	case c.lane.carries(f.kind):
		return c.requested(f)
	case f.kind == kindPing:
		_ = c.out.push(kindPong, 0, 0, nil) // when the queue is full, that is life enough
		return nil
	case f.kind == kindPong:
		return nil
	}
	return fmt.Errorf("%w: %v on lane %v", ErrProtocol, f.kind, c.lane)
}

// answered completes a call. An answer to a call that was given up is dropped.
func (c *conn) answered(f frame) error {
	cl := c.calls.take(f.id)
	if cl == nil {
		return nil
	}
	c.dec.rest, c.dec.err = f.body, nil
	var err error
	if f.kind == kindError {
		err = c.dec.failure()
	} else {
		err = c.dec.reply(f.kind, cl.resp)
	}
	cl.done <- err
	return c.dec.err
}

// requested hands a request to its group. A group that cannot take it refuses
// it; only bytes that are no request end the connection.
func (c *conn) requested(f frame) error {
	v := c.mux.view(f.group)
	if v == nil {
		c.refuse(f.group, f.id, refusedUnknownGroup)
		return nil
	}
	c.dec.rest, c.dec.err = f.body, nil
	req, err := c.dec.request(f.kind)
	if err != nil {
		return err
	}
	if takeOver := c.mux.conf.TakeOver; f.kind == kindTimeoutNow && takeOver != nil {
		if err := takeOver(); err != nil {
			c.respond(f.group, f.id, kindError, nil, err)
			return nil
		}
	}
	if reason, ok := v.inbox.deliver(c, f, req); !ok {
		c.refuse(f.group, f.id, reason)
	}
	return nil
}

// respond sends Raft's answer to a request.
func (c *conn) respond(group uint16, id uint64, k kind, resp any, err error) {
	if err == nil {
		if got, ok := replyKind(resp); !ok || got != k {
			err = fmt.Errorf("answer of type %T", resp)
		}
	}
	if err != nil {
		k, resp = kindError, &failure{reason: refusedByRaft, text: err.Error()}
	}
	c.reply(k, group, id, resp)
}

func (c *conn) refuse(group uint16, id uint64, reason refusal) {
	c.mux.stats.refused.Add(1)
	c.reply(kindError, group, id, &failure{reason: reason})
}

// reply sends an answer, or drops it when the peer does not read: the peer's
// call then ends at its deadline.
func (c *conn) reply(k kind, group uint16, id uint64, m any) {
	if err := c.out.push(k, group, id, m); err != nil {
		c.mux.stats.droppedReplies.Add(1)
	}
}

var errSilent = errors.New("peer is silent")

// sweep ends calls past their deadline and a connection whose peer gives no
// sign of life. The Mux's clock goroutine calls it at every tick.
func (c *conn) sweep(now time.Duration) {
	expired := c.calls.fail(ErrTimeout, func(cl *call) bool { return cl.deadline <= now })
	c.mux.stats.timeouts.Add(uint64(expired))

	patience := c.mux.conf.Timeouts.Silence / 2
	received := time.Duration(c.received.Load())
	switch {
	case c.pingAt != 0 && received >= c.pingAt:
		c.pingAt = 0
	case c.pingAt != 0 && now-c.pingAt > patience:
		c.close(errSilent)
	case c.pingAt == 0 && now-received > patience && c.calls.live() > 0:
		c.pingAt = now
		_ = c.out.push(kindPing, 0, 0, nil) // when the queue is full, silence decides
	case c.dialed && now-received > spareSilences*c.mux.conf.Timeouts.Silence && c.link.current() != c && c.calls.live() == 0:
		c.close(nil)
	}
}
