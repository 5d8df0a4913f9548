package transport

import (
	"sync"
	"time"
)

// call is one request that waits for its answer. It is completed exactly once,
// by whoever takes it out of its table; until then resp belongs to the table.
type call struct {
	done     chan error // capacity 1
	resp     any
	view     *View
	deadline time.Duration // on the Mux's clock
}

var callPool = sync.Pool{New: func() any { return &call{done: make(chan error, 1)} }}

func newCall(v *View, resp any, deadline time.Duration) *call {
	c := callPool.Get().(*call)
	c.view, c.resp, c.deadline = v, resp, deadline
	return c
}

// release returns a call that is in no table and whose result was received.
func (c *call) release() {
	c.view, c.resp = nil, nil
	callPool.Put(c)
}

// callTable holds the calls under way on one connection. A request id names a
// slot and the generation of its use, so the late answer to a call that was
// given up finds nothing.
type callTable struct {
	limit int

	mu     sync.Mutex // guards the fields below
	slots  []callSlot
	free   []uint32
	closed error
}

type callSlot struct {
	call       *call // nil while free
	generation uint32
}

func requestID(slot, generation uint32) uint64 { return uint64(generation)<<32 | uint64(slot) }

// add enters a call and returns its request id.
func (t *callTable) add(c *call) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil {
		return 0, t.closed
	}
	var slot uint32
	if n := len(t.free); n > 0 {
		slot = t.free[n-1]
		t.free = t.free[:n-1]
	} else if slot = uint32(len(t.slots)); int(slot) < t.limit {
		t.slots = append(t.slots, callSlot{})
	} else {
		return 0, ErrOverloaded
	}
	t.slots[slot].call = c
	return requestID(slot, t.slots[slot].generation), nil
}

// take removes and returns the call with the id, or nil when it is no more.
func (t *callTable) take(id uint64) *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot, generation := uint32(id), uint32(id>>32)
	if int64(slot) >= int64(len(t.slots)) || t.slots[slot].generation != generation {
		return nil
	}
	return t.takeSlot(slot)
}

// takeSlot needs mu.
func (t *callTable) takeSlot(slot uint32) *call {
	s := &t.slots[slot]
	c := s.call
	if c != nil {
		s.call = nil
		s.generation++
		t.free = append(t.free, slot)
	}
	return c
}

// live returns how many calls wait.
func (t *callTable) live() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.slots) - len(t.free)
}

// fail completes with err every call that match selects and returns how many.
func (t *callTable) fail(err error, match func(*call) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	if len(t.free) == len(t.slots) {
		return 0
	}
	for slot := range t.slots {
		if c := t.slots[slot].call; c != nil && match(c) {
			t.takeSlot(uint32(slot))
			c.done <- err
			n++
		}
	}
	return n
}

// close completes every call with err and refuses further ones.
func (t *callTable) close(err error) {
	t.mu.Lock()
	t.closed = err
	t.mu.Unlock()
	t.fail(err, func(*call) bool { return true })
}
