package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// lane is one long-lived Write stream with its queue: callers put encoded
// requests into the outbox, run sends them while a stream is up, and each call
// is answered by what comes first: its reply, the loss of the stream, or its
// context.
//
// Goroutines: run (owner of the stream, sends), and for each stream receive.
type lane struct {
	opts *Options
	log  *slog.Logger

	mu    sync.Mutex // guards what follows
	out   outbox
	calls map[uint64]*call // queued or sent, not yet answered or given up
	// queued counts the requests in out, without the withdrawn.
	queued int
	// inFlight counts the requests sent and not answered, also those whose
	// caller is gone, for the server still works on them.
	inFlight int
	// window is the server's bound on inFlight; 0 while nothing can be sent.
	window int
	lastID uint64
	// refusal is why new calls are refused, or nil.
	refusal error
	// idle: the sender waits for wake.
	idle bool
	// These only count.
	sentFrames, sentRequests, withdrawn uint64

	wake chan struct{} // capacity 1
}

// call is one write that its caller waits for. While it is in lane.calls the
// lane's mutex guards it; who takes it out answers it or gives it up.
type call struct {
	frame *frame // that its request is in
	at    int    // offset of the request in the frame
	reply reply
	done  chan struct{} // capacity 1
}

var callPool = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func newLane(opts *Options, log *slog.Logger) *lane {
	return &lane{
		opts:  opts,
		log:   log,
		calls: make(map[uint64]*call),
		wake:  make(chan struct{}, 1),
	}
}

// do sends w and waits for the reply.
func (l *lane) do(ctx context.Context, w *write, size int) (reply, error) {
	if ctx.Err() != nil {
		return reply{}, fmt.Errorf("not sent: %w", rpc.ErrUnavailable)
	}
	c := callPool.Get().(*call)
	id, err := l.enqueue(ctx, c, w, size)
	if err != nil {
		callPool.Put(c)
		return reply{}, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if err := l.giveUp(id, c); err != nil {
			callPool.Put(c)
			return reply{}, err
		}
		// Somebody has taken the call out already and is answering it.
		<-c.done
	}
	r := c.reply
	c.frame, c.reply = nil, reply{}
	callPool.Put(c)
	return r, nil
}

// enqueue encodes the request into the outbox. The caller's memory is not
// looked at again.
func (l *lane) enqueue(ctx context.Context, c *call, w *write, size int) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refusal != nil {
		return 0, l.refusal
	}
	if l.queued >= l.opts.MaxQueued || l.queued > 0 && l.out.bytes+size > l.opts.MaxQueuedBytes {
		return 0, fmt.Errorf("not sent: %d writes of %d bytes wait for the data node: %w", l.queued, l.out.bytes, rpc.ErrOverloaded)
	}
	f := l.out.frame(size, appendWaited)
	timeout := uint64(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = uint64(max(deadline.Sub(f.opened).Microseconds(), 1))
	}
	l.lastID++
	c.frame, c.at = f, len(*f.buf)
	*f.buf = appendRequest(*f.buf, l.lastID, timeout, w, size)
	l.out.bytes += len(*f.buf) - c.at
	f.entries++
	l.queued++
	l.calls[l.lastID] = c
	l.wakeSender()
	return l.lastID, nil
}

// giveUp is called when the caller's context ends. It returns nil when the call
// is being answered at this moment.
func (l *lane) giveUp(id uint64, c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls[id] != c {
		return nil
	}
	delete(l.calls, id)
	if c.frame.sent {
		return fmt.Errorf("no answer in time: %w", rpc.ErrOutcomeUnknown)
	}
	(*c.frame.buf)[c.at] = tagWithdraw
	c.frame.entries--
	l.queued--
	l.withdrawn++
	return fmt.Errorf("not sent in time: %w", rpc.ErrUnavailable)
}

// wakeSender is called with mu held, after anything next could wait for.
func (l *lane) wakeSender() {
	if l.idle {
		l.idle = false
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// next takes the next frame out of the outbox, and waits for one that the
// window has room for. It returns nil when the stream can take no more: over is
// closed, or the server drains.
func (l *lane) next(over <-chan struct{}) *frame {
	for {
		f, more := l.take()
		if f != nil || !more {
			return f
		}
		select {
		case <-l.wake:
		case <-over:
			return nil
		}
	}
}

func (l *lane) take() (f *frame, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.window == 0 {
		return nil, false
	}
	for {
		f := l.out.first()
		if f == nil || l.inFlight > 0 && l.inFlight+f.entries > l.window {
			l.idle = true
			return nil, true
		}
		l.out.pop()
		if f.entries == 0 {
			frames.Put(f.buf)
			continue
		}
		l.queued -= f.entries
		l.inFlight += f.entries
		l.sentFrames++
		l.sentRequests += uint64(f.entries)
		setWaited(*f.buf, uint32(min(time.Since(f.opened).Microseconds(), math.MaxUint32)))
		return f, true
	}
}

// up opens the lane for a stream whose server takes window requests at once.
func (l *lane) up(window int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.window = window
	l.refusal = nil
}

// drain stops sending on the stream. What is queued waits for the next one.
func (l *lane) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.window = 0
	l.wakeSender()
}

// down ends the stream: what was sent and not answered has an unknown outcome,
// what is queued waits for the next stream.
func (l *lane) down(cause error) {
	err := fmt.Errorf("stream to the data node lost: %w: %w", rpc.ErrOutcomeUnknown, cause)
	l.mu.Lock()
	l.window, l.inFlight = 0, 0
	lost := l.remove(func(c *call) bool { return c.frame.sent })
	l.mu.Unlock()
	answer(lost, err)
}

// refuse answers what is queued, and refuses what comes, with err, until the
// lane is up again.
func (l *lane) refuse(err error) {
	l.mu.Lock()
	l.refusal = err
	l.out.clear()
	l.queued = 0
	lost := l.remove(func(c *call) bool { return true })
	l.mu.Unlock()
	answer(lost, err)
}

// remove takes calls out of the lane, with mu held; the caller answers them.
func (l *lane) remove(which func(*call) bool) []*call {
	var removed []*call
	for id, c := range l.calls {
		if which(c) {
			delete(l.calls, id)
			removed = append(removed, c)
		}
	}
	return removed
}

func answer(calls []*call, err error) {
	for _, c := range calls {
		c.reply = reply{kind: resultError, err: err}
		c.done <- struct{}{}
	}
}

// errUnasked: the server answered a request that it was not sent.
var errUnasked = errors.New("reply to a request that was not sent")

// deliver hands the replies of a frame to their callers, in memory that
// scratch may bring. After an error nothing was handed over.
func (l *lane) deliver(replies []reply, scratch []*call) ([]*call, error) {
	calls, err := l.match(replies, scratch[:0])
	if err != nil {
		return calls, err
	}
	for i, c := range calls {
		if c != nil {
			c.reply = replies[i]
			c.done <- struct{}{}
		}
	}
	clear(calls)
	return calls, nil
}

// match takes the calls of the replies out, in order; nil where the caller has
// given up.
func (l *lane) match(replies []reply, calls []*call) ([]*call, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range replies {
		c := l.calls[replies[i].id]
		if c != nil && !c.frame.sent {
			return calls, errUnasked
		}
		calls = append(calls, c)
	}
	for i := range replies {
		delete(l.calls, replies[i].id)
	}
	l.inFlight = max(l.inFlight-len(replies), 0)
	if len(l.out.frames) > 0 {
		l.wakeSender()
	}
	return calls, nil
}

func (l *lane) addStats(s *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.window > 0 {
		s.Streams++
	}
	s.Queued += l.queued
	s.InFlight += l.inFlight
	s.Frames += l.sentFrames
	s.Requests += l.sentRequests
	s.Withdrawn += l.withdrawn
}
