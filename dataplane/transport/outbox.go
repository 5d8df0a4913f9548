package transport

import (
	"sync"
	"time"
)

// keepBufferBytes is the largest write buffer a connection keeps for reuse.
const keepBufferBytes = 256 << 10

// outbox gathers the frames that wait to be written to one connection. Any
// goroutine may push; one writer takes everything that waits at once, so
// frames coalesce while a write is under way and none waits for a timer.
type outbox struct {
	limit      int // bytes that may wait
	frameLimit int // bytes of one body
	wake       chan struct{}

	mu     sync.Mutex // guards the fields below
	enc    encoder
	frames int
	asleep bool // the writer waits on wake
	gather bool // it does so although frames wait: for more, or an urgent one
	urgent bool // a frame waits that must not be held back
	closed error
}

func newOutbox(own []byte, limit, frameLimit int) *outbox {
	return &outbox{limit: limit, frameLimit: frameLimit, wake: make(chan struct{}, 1), enc: encoder{own: own}}
}

// push encodes a frame behind those that wait. It never blocks. It fails with
// ErrOverloaded when too much waits, with ErrTooLarge when the frame can never
// be sent, or with what the outbox was closed with.
func (o *outbox) push(k kind, group uint16, id uint64, m any) error {
	o.mu.Lock()
	if o.closed != nil {
		defer o.mu.Unlock()
		return o.closed
	}
	start := len(o.enc.buf)
	err := o.enc.frame(k, group, id, m, o.frameLimit)
	if err == nil && start > 0 && len(o.enc.buf) > o.limit {
		o.enc.buf = o.enc.buf[:start]
		err = ErrOverloaded
	}
	if err != nil {
		o.mu.Unlock()
		return err
	}
	o.frames++
	o.urgent = o.urgent || k != kindAppend && k != kindAppend.reply()
	wake := o.asleep && (o.urgent || !o.gather)
	if wake {
		o.asleep = false
	}
	o.mu.Unlock()
	if wake {
		o.wake <- struct{}{} // has room: only the one who ends the sleep sends
	}
	return nil
}

// await waits for frames, and then up to gather for more unless one is urgent.
// Only the writer calls it.
func (o *outbox) await(gather time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.frames == 0 && o.closed == nil {
		o.asleep = true
		o.mu.Unlock()
		<-o.wake
		o.mu.Lock()
	}
	if gather <= 0 || o.urgent || o.closed != nil {
		return
	}
	o.asleep, o.gather = true, true
	o.mu.Unlock()
	timer := time.NewTimer(gather)
	defer timer.Stop()
	select {
	case <-o.wake:
		o.mu.Lock()
	case <-timer.C:
		o.mu.Lock()
		if !o.asleep {
			<-o.wake // somebody ended the sleep at the same moment
		}
	}
	o.asleep, o.gather = false, false
}

// take returns all frames that wait; their memory belongs to the caller until
// it hands it back as spare. ok is false once the outbox is closed. Only the
// writer calls it, after await.
func (o *outbox) take(spare []byte) (batch []byte, frames int, ok bool) {
	if cap(spare) > keepBufferBytes {
		spare = nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed != nil {
		return nil, 0, false
	}
	batch, frames = o.enc.buf, o.frames
	o.enc.buf, o.frames, o.urgent = spare[:0], 0, false
	return batch, frames, true
}

// close makes push and take fail. Only the first reason counts.
func (o *outbox) close(reason error) {
	o.mu.Lock()
	if o.closed == nil {
		o.closed = reason
	}
	wake := o.asleep
	o.asleep = false
	o.mu.Unlock()
	if wake {
		o.wake <- struct{}{}
	}
}
