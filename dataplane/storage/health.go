package storage

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// health is what the engine tells callers before they propose. The file system
// wrapper, the monitor and Pebble's events write it; err is read on the hot
// path and costs one atomic load.
type health struct {
	current atomic.Pointer[error] // nil while all is well
	logger  *slog.Logger

	mu      sync.Mutex // guards all below
	blocked int        // operations waiting for room
	yielded bool       // a flush or compaction gave up for want of room
	low     bool       // free space is below the reserve
	cause   error      // the last error that said there is no room
	corrupt error      // first corruption seen, for ever
	final   error      // failed or closed, for ever
	full    bool       // what was last logged
}

func (h *health) err() error {
	if p := h.current.Load(); p != nil {
		return *p
	}
	return nil
}

// block counts an operation that waits for room; unblock counts it out again.
func (h *health) block(cause error) {
	h.update(func() { h.blocked++; h.cause = cause })
}

func (h *health) unblock() {
	h.update(func() {
		h.blocked--
		if h.blocked == 0 {
			h.yielded = false
		}
	})
}

// yield notes that a flush or compaction gave up for want of room, and resume
// that there is room again.
func (h *health) yield(cause error) {
	h.update(func() { h.yielded = true; h.cause = cause })
}

func (h *health) hasYielded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.yielded
}

func (h *health) resume() { h.update(func() { h.yielded = false }) }

// setLow notes whether free space is below the reserve.
func (h *health) setLow(low bool, cause error) {
	h.update(func() {
		h.low = low
		if low && h.blocked == 0 && !h.yielded {
			h.cause = cause
		}
	})
}

func (h *health) setCorrupt(err error) {
	h.update(func() {
		if h.corrupt == nil {
			h.corrupt = fmt.Errorf("%w: %w", rpc.ErrCorrupt, err)
			h.logger.Error("storage found corrupt data; the node takes no more writes", "error", err)
		}
	})
}

// setFinal notes that the engine has failed or was closed.
func (h *health) setFinal(err error) {
	h.update(func() {
		if h.final == nil {
			h.final = err
		}
	})
}

func (h *health) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	full := h.blocked > 0 || h.yielded || h.low
	if full != h.full {
		h.full = full
		if full {
			h.logger.Warn("storage is full; writes wait until there is room", "cause", h.cause)
		} else {
			h.logger.Info("storage has room again")
		}
	}
	switch {
	case h.final != nil:
		h.current.Store(&h.final)
	case h.corrupt != nil:
		h.current.Store(&h.corrupt)
	case full:
		err := fmt.Errorf("%w: %w", rpc.ErrStorageFull, h.cause)
		h.current.Store(&err)
	default:
		h.current.Store(nil)
	}
}
