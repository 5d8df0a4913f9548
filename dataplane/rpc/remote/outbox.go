package remote

import (
	"time"
)

const (
	// maxFrameBytes bounds a frame of several requests or replies; a bigger one
	// travels alone.
	maxFrameBytes = 1 << 20
	// maxFrameEntries bounds the requests or replies of one frame.
	maxFrameEntries = 512
)

// frame gathers what will be one gRPC message.
type frame struct {
	buf *[]byte
	// opened is when its first entry came.
	opened time.Time
	// entries is how many requests or replies it holds, without the withdrawn.
	entries int
	// held is what its replies keep of the in-flight bytes (server only).
	held int64
	// sent: it has left the outbox, and its buffer with it.
	sent bool
}

// outbox is what waits to be sent on a stream: a queue of frames of which the
// last still gathers. While the stream is busy with one frame the next fills,
// so batches grow with the load and nothing waits for company. It is guarded by
// the mutex of its owner.
type outbox struct {
	frames []*frame
	bytes  int // of all frames
}

// frame returns the frame to append an entry of size bytes to. head is called
// for a new one, to begin its buffer.
func (o *outbox) frame(size int, head func([]byte) []byte) *frame {
	if n := len(o.frames); n > 0 {
		last := o.frames[n-1]
		if len(*last.buf)+size <= maxFrameBytes && last.entries < maxFrameEntries {
			return last
		}
	}
	f := &frame{buf: frames.empty(size + waitedLen), opened: time.Now()}
	if head != nil {
		*f.buf = head(*f.buf)
		o.bytes += len(*f.buf)
	}
	o.frames = append(o.frames, f)
	return f
}

// first returns the frame to be sent next, or nil.
func (o *outbox) first() *frame {
	if len(o.frames) == 0 {
		return nil
	}
	return o.frames[0]
}

// pop takes the first frame out; the caller owns its buffer.
func (o *outbox) pop() *frame {
	f := o.frames[0]
	n := copy(o.frames, o.frames[1:])
	o.frames[n] = nil
	o.frames = o.frames[:n]
	o.bytes -= len(*f.buf)
	f.sent = true
	return f
}

// clear drops everything.
func (o *outbox) clear() {
	for len(o.frames) > 0 {
		frames.Put(o.pop().buf)
	}
}
