package state

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// waiters are the callers blocked in WaitSeq, by conversation.
type waiters struct {
	count atomic.Int64 // entries of byKey; lets Apply skip the lock

	mu     sync.Mutex // guards the rest
	byKey  map[rpc.Key][]*waiter
	closed bool
}

type waiter struct {
	seq  uint64
	wake chan struct{} // capacity 1: whoever wakes never waits
}

func (w *waiters) init() { w.byKey = make(map[rpc.Key][]*waiter) }

func (w *waiters) add(key rpc.Key, x *waiter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return rpc.ErrClosed
	}
	if w.count.Load() >= maxWaiters {
		return rpc.ErrOverloaded
	}
	w.byKey[key] = append(w.byKey[key], x)
	w.count.Add(1)
	return nil
}

func (w *waiters) remove(key rpc.Key, x *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.byKey[key]
	for i := range list {
		if list[i] == x {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			list = list[:len(list)-1]
			w.count.Add(-1)
			break
		}
	}
	if len(list) == 0 {
		delete(w.byKey, key)
	} else {
		w.byKey[key] = list
	}
}

// committed wakes those whose sequence the touched conversations have reached.
func (w *waiters) committed(touched []*dirty) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range touched {
		for _, x := range w.byKey[rpc.Key(d.key)] {
			if d.rec.last >= x.seq {
				x.signal()
			}
		}
	}
}

// all wakes everyone to look again.
func (w *waiters) all() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, list := range w.byKey {
		for _, x := range list {
			x.signal()
		}
	}
}

func (w *waiters) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.all()
}

func (w *waiters) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

func (x *waiter) signal() {
	select {
	case x.wake <- struct{}{}:
	default: // already awake
	}
}

// WaitSeq returns when the conversation's last_seq has reached seq on this
// replica; the conversation need not exist yet. It returns rpc.ErrMinSeqTimeout
// (and the context's error) when ctx ends first, rpc.ErrOverloaded when too many
// callers wait, and rpc.ErrClosed when the machine is closed.
func (m *Machine) WaitSeq(ctx context.Context, key rpc.Key, seq uint64) error {
	if reached, err := m.reached(key, seq); reached || err != nil {
		return err
	}
	x := &waiter{seq: seq, wake: make(chan struct{}, 1)}
	if err := m.waiters.add(key, x); err != nil {
		return fmt.Errorf("wait for sequence %d: %w", seq, err)
	}
	defer m.waiters.remove(key, x)
	for {
		// Looked at after joining, so that no commit falls between.
		if reached, err := m.reached(key, seq); reached || err != nil {
			return err
		}
		select {
		case <-x.wake:
			if m.waiters.isClosed() {
				return fmt.Errorf("wait for sequence %d: %w", seq, rpc.ErrClosed)
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for sequence %d: %w: %w", seq, rpc.ErrMinSeqTimeout, ctx.Err())
		}
	}
}

func (m *Machine) reached(key rpc.Key, seq uint64) (bool, error) {
	if seq == 0 {
		return true, nil
	}
	m.swap.RLock()
	defer m.swap.RUnlock()
	rec, found, err := m.read(string(key))
	return found && rec.last >= seq, err
}
