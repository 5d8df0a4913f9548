package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// follower holds all subscriptions of a client, which share one Follow stream.
// There is no stream before the first one; when it breaks they all end, and the
// next to subscribe brings it back.
//
// Goroutines: run (owner of the stream), and for each stream send and receive,
// which alone calls subscribers while the stream is up; run does after it.
type follower struct {
	opts *Options
	log  *slog.Logger

	// heard: something came since the last look at it.
	heard atomic.Bool

	mu   sync.Mutex // guards what follows
	out  outbox
	subs map[uint64]*followed // begun or asked for
	// limit is the server's bound on subs; 0 while no stream is up.
	limit  int
	lastID uint64
	// wanted: somebody asked for a subscription since the last attempt began.
	wanted bool
	// refusal is why subscriptions are refused at once, or nil.
	refusal error
	// idle: send waits for wakeSend.
	idle bool

	wakeRun, wakeSend chan struct{} // capacity 1
}

// followed is one subscription at the client.
type followed struct {
	id uint64
	to rpc.Subscriber

	begun bool // guarded by follower.mu
	// reply or err is set before done is closed.
	reply *rpc.SubscribeReply
	err   error
	done  chan struct{}
}

// maxUnheard bounds the subscriptions of a client while it does not know the
// node's own bound.
const maxUnheard = 1 << 16

func newFollower(opts *Options) *follower {
	return &follower{
		opts: opts, log: opts.Logger, subs: make(map[uint64]*followed),
		wakeRun: make(chan struct{}, 1), wakeSend: make(chan struct{}, 1),
	}
}

// Subscribe implements rpc.Feed. Subscriptions end with rpc.ErrUnavailable when
// the node is silent or its stream breaks, and with rpc.ErrClosed when it stops or
// the client is closed. After an error the subscriber's End is not called.
func (c *Client) Subscribe(ctx context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	const op = "subscribe"
	err := validateKey(key)
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("not sent: %w: %w", rpc.ErrUnavailable, ctx.Err())
	}
	var s *followed
	if err == nil {
		s, err = c.follow.subscribe(ctx, key, to)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", op, err)
	}
	return s.reply, func() { c.follow.remove(s) }, nil
}

func (f *follower) subscribe(ctx context.Context, key rpc.Key, to rpc.Subscriber) (*followed, error) {
	s := &followed{to: to, done: make(chan struct{})}
	if err := f.enqueue(s, key); err != nil {
		return nil, err
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		if f.remove(s) {
			return nil, fmt.Errorf("no answer in time: %w: %w", rpc.ErrUnavailable, ctx.Err())
		}
		<-s.done // somebody has answered it already
	}
	return s, s.err
}

func (f *follower) enqueue(s *followed, key rpc.Key) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.limit == 0 {
		f.wanted = true
		signal(f.wakeRun)
	}
	limit := f.limit
	if limit == 0 {
		limit = maxUnheard
	}
	switch {
	case f.refusal != nil:
		return f.refusal
	case len(f.subs) >= limit:
		return fmt.Errorf("not sent: %d subscriptions: %w", len(f.subs), rpc.ErrOverloaded)
	case f.out.bytes > f.opts.MaxQueuedBytes:
		return fmt.Errorf("not sent: %d bytes wait for the data node: %w", f.out.bytes, rpc.ErrOverloaded)
	}
	f.lastID++
	s.id = f.lastID
	f.subs[s.id] = s
	f.add(len(key)+entryHead, func(b []byte) []byte { return appendSubscribe(b, s.id, key) })
	return nil
}

// add queues an entry of at most size bytes, with mu held.
func (f *follower) add(size int, encode func([]byte) []byte) {
	frame := f.out.frame(size, nil)
	before := len(*frame.buf)
	*frame.buf = encode(*frame.buf)
	f.out.bytes += len(*frame.buf) - before
	frame.entries++
	if f.idle {
		f.idle = false
		signal(f.wakeSend)
	}
}

// remove forgets a subscription, and reports whether it was there. It waits for
// nothing.
func (f *follower) remove(s *followed) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs[s.id] != s {
		return false
	}
	delete(f.subs, s.id)
	f.add(entryHead, func(b []byte) []byte { return appendUnsubscribe(b, s.id) })
	return true
}

// deliver hands the events of a frame to their subscribers.
func (f *follower) deliver(events []event) error {
	for i := range events {
		e := &events[i]
		switch e.kind {
		case newsSubscribed:
			if !f.answer(e) {
				return errUnasked
			}
		case newsNews:
			if s := f.find(e.id); s != nil {
				s.to.Deliver(e.news)
			}
		case newsEnded:
			s, ok := f.takeEnded(e.id)
			if !ok {
				return errUnasked
			}
			if s != nil {
				s.to.End(e.err)
			}
		}
	}
	return nil
}

func (f *follower) find(id uint64) *followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.subs[id]
}

// answer tells the caller of Subscribe, unless it has given up. It returns false
// for an answer that cannot be.
func (f *follower) answer(e *event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.subs[e.id]
	switch {
	case e.id > f.lastID || s != nil && s.begun:
		return false
	case s == nil:
		return true
	case e.err != nil:
		s.err = e.err
		delete(f.subs, e.id)
	default:
		s.begun, s.reply = true, e.reply
	}
	close(s.done)
	return true
}

// takeEnded takes out a subscription that the server has ended; nil when the
// client has stopped it meanwhile.
func (f *follower) takeEnded(id uint64) (s *followed, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s = f.subs[id]; s == nil {
		return nil, id <= f.lastID
	}
	delete(f.subs, id)
	if !s.begun {
		s.err = errUnasked
		f.subs[id] = s // it ends with the stream
		return nil, false
	}
	return s, true
}

// endAll ends every subscription with err. refusal, when not nil, is what comes
// next is refused with until a stream is up.
func (f *follower) endAll(err, refusal error) {
	f.mu.Lock()
	f.limit, f.refusal, f.idle = 0, refusal, false
	f.out.clear()
	var begun []*followed
	for _, s := range f.subs {
		if s.begun {
			begun = append(begun, s)
			continue
		}
		s.err = err
		close(s.done)
	}
	f.subs = make(map[uint64]*followed)
	f.mu.Unlock()
	for _, s := range begun {
		s.to.End(err)
	}
}

// up opens the follower for a stream that takes limit subscriptions.
func (f *follower) up(limit int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit, f.refusal, f.wanted = limit, nil, false
	f.heard.Store(true)
}

// next returns the next frame to send, or nil.
func (f *follower) next() *frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out.first() == nil {
		f.idle = true
		return nil
	}
	return f.out.pop()
}

// takeWanted reports whether a stream is wanted, and forgets it.
func (f *follower) takeWanted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	wanted := f.wanted
	f.wanted = false
	return wanted
}

func (f *follower) addStats(s *Stats) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Following = f.limit > 0
	s.Subscriptions = len(f.subs)
}

var (
	errSilent  = errors.New("the data node is silent")
	errStopped = fmt.Errorf("client of the data node: %w", rpc.ErrClosed)
)
