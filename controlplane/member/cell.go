package member

import "sync/atomic"

// cell holds a value that many read and some wait for. The zero cell must be
// set once before it is read. set is called by one goroutine at a time.
type cell[T any] struct {
	entry atomic.Pointer[cellEntry[T]]
}

type cellEntry[T any] struct {
	value T
	over  chan struct{}
}

// get returns the value and a channel that is closed once it is replaced.
func (c *cell[T]) get() (T, <-chan struct{}) {
	entry := c.entry.Load()
	return entry.value, entry.over
}

func (c *cell[T]) set(value T) {
	if old := c.entry.Swap(&cellEntry[T]{value: value, over: make(chan struct{})}); old != nil {
		close(old.over)
	}
}
