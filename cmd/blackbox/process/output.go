package process

import "sync"

// maxOutputBytes bounds what is kept of a server's output.
const maxOutputBytes = 256 << 10

// tailBuffer keeps the newest bytes written to it. Safe for concurrent use.
type tailBuffer struct {
	limit int

	mu    sync.Mutex // guards the below
	bytes []byte
	cut   bool
}

// Write never fails and never blocks on anything but other writers.
func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes = append(b.bytes, p...)
	if over := len(b.bytes) - b.limit; over > 0 {
		b.bytes = append(b.bytes[:0], b.bytes[over:]...)
		b.cut = true
	}
	return len(p), nil
}

// String returns what is kept, and says so when older output was dropped.
func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut {
		return "[older output dropped]\n" + string(b.bytes)
	}
	return string(b.bytes)
}
