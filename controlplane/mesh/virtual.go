package mesh

import (
	"fmt"
	"net"
	"sync"
)

// virtualListener hands out the connections of one kind.
type virtualListener struct {
	kind   Kind
	parent *Listener
	// places bounds connections that are in queue or on their way into it, so
	// that putting one into queue never blocks.
	places chan struct{}
	queue  chan established // same capacity as places
	done   chan struct{}

	mu     sync.Mutex // guards the fields below
	closed bool
	cause  error // what Accept returns, nil for net.ErrClosed
}

func newVirtualListener(parent *Listener, kind Kind, backlog int) *virtualListener {
	return &virtualListener{
		kind: kind, parent: parent,
		places: make(chan struct{}, backlog), queue: make(chan established, backlog), done: make(chan struct{}),
	}
}

// Accept returns the next connection, a Conn.
func (v *virtualListener) Accept() (net.Conn, error) {
	select {
	case conn := <-v.queue:
		<-v.places
		return conn, nil
	case <-v.done:
	}
	v.mu.Lock()
	cause := v.cause
	v.mu.Unlock()
	if cause == nil {
		cause = net.ErrClosed
	}
	return nil, fmt.Errorf("mesh: accept %v: %w", v.kind, cause)
}

// Addr returns the address of the Listener.
func (v *virtualListener) Addr() net.Addr { return v.parent.Addr() }

// Close gives the kind up and closes the connections that nobody accepted.
// Those that were accepted stay open.
func (v *virtualListener) Close() error {
	v.parent.unclaim(v)
	v.shut(nil)
	return nil
}

func (v *virtualListener) shut(cause error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.closed, v.cause = true, cause
	close(v.done)
	for {
		select {
		case conn := <-v.queue:
			<-v.places
			conn.abandon()
		default:
			return
		}
	}
}

// reserve takes a place in the backlog, which deliver or release gives back.
func (v *virtualListener) reserve() bool {
	select {
	case v.places <- struct{}{}:
		return true
	default:
		return false
	}
}

func (v *virtualListener) release() { <-v.places }

// deliver puts a connection with a reserved place into the queue.
func (v *virtualListener) deliver(conn established) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		<-v.places
		conn.abandon()
		return
	}
	v.queue <- conn
}
