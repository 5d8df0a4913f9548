package transport

import (
	"context"
	"fmt"
	"net"
	"time"
)

// A connection begins with a hello from its dialer and one in return. It makes
// sure that both ends speak this protocol and mean each other: an answer of
// the wrong node would count as the vote or the copy of another. It also shows
// that the peer's process runs, not just its kernel.

const (
	helloMagic = "fastpaca raft"
	// helloVersion is the version of everything behind the hello.
	helloVersion = 1
	helloLimit   = 1 << 10
)

type hello struct {
	version byte
	lane    Lane
	from    []byte // node id of the sender
	to      []byte // node id that the sender means to talk to
}

func (e *encoder) hello(h *hello) {
	e.buf = append(e.buf, helloMagic...)
	e.byte(h.version)
	e.byte(byte(h.lane))
	e.bytes(h.from, maxNodeID)
	e.bytes(h.to, maxNodeID)
}

func (d *decoder) hello() (hello, error) {
	if len(d.rest) < len(helloMagic) || string(d.rest[:len(helloMagic)]) != helloMagic {
		d.fail("not a hello of this protocol")
		return hello{}, d.err
	}
	d.rest = d.rest[len(helloMagic):]
	h := hello{version: d.byte(), lane: Lane(d.byte()), from: d.bytes(maxNodeID), to: d.bytes(maxNodeID)}
	return h, d.finish()
}

// check compares a received hello with what it must say.
func (h *hello) check(lane Lane, from, to string) error {
	switch {
	case h.version != helloVersion:
		return fmt.Errorf("%w: peer speaks version %d, this node %d", ErrProtocol, h.version, helloVersion)
	case h.lane != lane:
		return fmt.Errorf("%w: peer opened lane %v, not %v", ErrProtocol, h.lane, lane)
	case string(h.from) != from:
		return fmt.Errorf("%w: peer says it is node %q, not %q", ErrProtocol, h.from, from)
	case string(h.to) != to:
		return fmt.Errorf("%w: peer wants node %q, this is %q", ErrProtocol, h.to, to)
	}
	return nil
}

// greet performs the dialer's part of the hello on a new connection.
func (m *Mux) greet(ctx context.Context, nc net.Conn, peer string, lane Lane) (*frameReader, error) {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := m.sendHello(nc, peer, lane); err != nil {
		return nil, err
	}
	r, err := m.readHello(nc, peer, lane)
	if err != nil {
		return nil, err
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return r, nil
}

// welcome performs the listener's part.
func (m *Mux) welcome(nc net.Conn, peer string, lane Lane) (*frameReader, error) {
	if err := nc.SetDeadline(time.Now().Add(m.conf.Timeouts.Dial)); err != nil {
		return nil, err
	}
	r, err := m.readHello(nc, peer, lane)
	if err != nil {
		return nil, err
	}
	if err := m.sendHello(nc, peer, lane); err != nil {
		return nil, err
	}
	return r, nc.SetDeadline(time.Time{})
}

func (m *Mux) sendHello(nc net.Conn, peer string, lane Lane) error {
	e := encoder{}
	h := hello{version: helloVersion, lane: lane, from: m.self, to: []byte(peer)}
	if err := e.frame(kindHello, 0, 0, &h, helloLimit); err != nil {
		return err
	}
	_, err := nc.Write(e.buf)
	return err
}

// readHello returns the reader that goes on after the hello, with the lane's
// limit on frames in force.
func (m *Mux) readHello(nc net.Conn, peer string, lane Lane) (*frameReader, error) {
	r := newFrameReader(nc, helloLimit)
	f, err := r.next()
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	if f.kind != kindHello {
		return nil, fmt.Errorf("%w: %v before the hello", ErrProtocol, f.kind)
	}
	d := decoder{rest: f.body}
	h, err := d.hello()
	if err != nil {
		return nil, err
	}
	if err := h.check(lane, peer, m.conf.NodeID); err != nil {
		return nil, err
	}
	r.limit = min(m.conf.Limits.FrameBytes, lane.frameLimit())
	return r, nil
}
