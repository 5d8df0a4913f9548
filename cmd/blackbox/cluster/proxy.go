package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// proxyBuffer is how much a proxy reads at once.
	proxyBuffer = 64 << 10
	// proxyDialTimeout bounds the connection to the process behind a proxy.
	proxyDialTimeout = 5 * time.Second
)

// proxy stands in front of one process and obeys the rules of the network.
// Goroutines: run, one per connection, and two more that copy for it.
type proxy struct {
	target   string // name of the process behind it
	backend  string
	network  *Network
	owner    owner
	listener net.Listener
	ctx      context.Context // ends with close
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// owner names the process that has the socket which is connected from local to
// remote.
type owner func(ctx context.Context, local, remote net.Addr) string

// startProxy listens on a loopback address of its own.
func startProxy(target, listen, backend string, network *Network, owner owner) (*proxy, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("proxy of %s: %w", target, err)
	}
	p := &proxy{target: target, backend: backend, network: network, owner: owner, listener: l}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.run)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// close ends all connections and waits for them.
func (p *proxy) close() {
	p.cancel()
	_ = p.listener.Close()
	p.running.Wait()
}

func (p *proxy) run() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(conn) })
	}
}

// serve carries one connection until an end closes it or a rule cuts it.
func (p *proxy) serve(dialed net.Conn) {
	defer reset(dialed)
	from := p.owner(p.ctx, dialed.RemoteAddr(), dialed.LocalAddr())
	there, back := direction{from, p.target}, direction{p.target, from}
	if p.cut(there, back) {
		return
	}
	dialer := net.Dialer{Timeout: proxyDialTimeout}
	backend, err := dialer.DialContext(p.ctx, "tcp", p.backend)
	if err != nil {
		return
	}
	defer reset(backend)

	ctx, cancel := context.WithCancel(p.ctx)
	var copying, watching sync.WaitGroup
	for _, way := range []struct {
		direction
		src, dst net.Conn
	}{{there, dialed, backend}, {back, backend, dialed}} {
		copying.Go(func() {
			if p.carry(ctx, way.direction, way.src, way.dst) != nil {
				cancel()
			}
		})
	}
	watching.Go(func() {
		p.awaitCut(ctx, there, back)
		cancel()
		// Unblocks those who copy.
		_ = dialed.SetDeadline(time.Unix(1, 0))
		_ = backend.SetDeadline(time.Unix(1, 0))
	})
	copying.Wait()
	cancel()
	watching.Wait()
}

// reset closes a connection as the death of its owner would.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func (p *proxy) cut(ways ...direction) bool {
	for _, way := range ways {
		if r, _ := p.network.rule(way); r.Cut {
			return true
		}
	}
	return false
}

// awaitCut returns when a rule cuts one of the ways, or ctx ends.
func (p *proxy) awaitCut(ctx context.Context, ways ...direction) {
	for {
		_, changed := p.network.rule(ways[0])
		if p.cut(ways...) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// carry copies one direction until it ends. It returns nil when the source has
// closed its side and the destination was told so.
func (p *proxy) carry(ctx context.Context, way direction, src, dst net.Conn) error {
	buffer := make([]byte, proxyBuffer)
	for {
		n, readErr := src.Read(buffer)
		if err := p.admit(ctx, way); err != nil {
			return err
		}
		if n > 0 {
			if _, err := dst.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if readErr == nil {
			continue
		}
		if half, ok := dst.(*net.TCPConn); ok && errors.Is(readErr, io.EOF) {
			return half.CloseWrite()
		}
		return readErr
	}
}

// admit waits until the rules let bytes pass.
func (p *proxy) admit(ctx context.Context, way direction) error {
	for {
		r, changed := p.network.rule(way)
		if !r.Hold {
			return pause(ctx, r.Delay)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
