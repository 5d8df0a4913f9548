package forward

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/table"
)

// connections holds one connection per node of the placement table. Reading is
// free of locks; the map is replaced, never changed.
type connections struct {
	connect func(control.NodeID, string) (rpc.Node, error)
	known   func(control.NodeID) bool
	open    atomic.Pointer[map[control.NodeID]connection]

	mu     sync.Mutex // held to replace open; guards closed
	closed bool
}

type connection struct {
	address string
	node    rpc.Node
}

func newConnections(connect func(control.NodeID, string) (rpc.Node, error), known func(control.NodeID) bool) *connections {
	c := &connections{connect: connect, known: known}
	c.open.Store(&map[control.NodeID]connection{})
	return c
}

// get returns the connection to the node, making it if need be. Its errors are
// rpc.ErrUnavailable: nothing was proposed.
func (c *connections) get(to *table.Node) (rpc.Node, error) {
	if have, ok := (*c.open.Load())[to.ID]; ok && have.address == to.Address {
		return have.node, nil
	}
	return c.make(to)
}

func (c *connections) make(to *table.Node) (rpc.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("forwarder is closed: %w", rpc.ErrUnavailable)
	}
	if have, ok := (*c.open.Load())[to.ID]; ok && have.address == to.Address {
		return have.node, nil
	}
	node, err := c.connect(to.ID, to.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to node %s at %s: %w", to.ID, to.Address, errors.Join(rpc.ErrUnavailable, err))
	}
	next := maps.Clone(*c.open.Load())
	var dropped []connection
	for id, have := range next {
		if id == to.ID || !c.known(id) {
			dropped = append(dropped, have)
			delete(next, id)
		}
	}
	next[to.ID] = connection{address: to.Address, node: node}
	c.open.Store(&next)
	// The processes behind the dropped connections are gone or have moved, so
	// nothing is lost by an error on closing.
	_ = closeAll(dropped)
	return node, nil
}

func (c *connections) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var all []connection
	for _, have := range *c.open.Load() {
		all = append(all, have)
	}
	c.open.Store(&map[control.NodeID]connection{})
	return closeAll(all)
}

func closeAll(all []connection) error {
	var errs []error
	for _, c := range all {
		if closer, ok := c.node.(io.Closer); ok {
			errs = append(errs, closer.Close())
		}
	}
	return errors.Join(errs...)
}
