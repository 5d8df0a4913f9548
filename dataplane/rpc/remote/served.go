package remote

import (
	"context"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// maxSubscribeTime bounds one call of Subscribe at the node: those after it
// wait for it.
const maxSubscribeTime = 5 * time.Second

// served is one subscription of a Follow stream, as the node's feed sees it. Its
// stream's mutex guards its fields.
type served struct {
	st *followStream
	id uint64

	begun bool  // the client was told that it has begun
	over  bool  // nothing more is queued for it
	cause error // why it ended before it had begun
	stop  func()
	// behind: messages were dropped, and missed tells how the conversation stands.
	behind bool
	missed rpc.News
}

// subscribe does one wish of the client and queues the answer. An error is one of
// the protocol.
func (st *followStream) subscribe(op followOp) error {
	s := &served{st: st, id: op.id}
	err := validateKey(op.key)
	st.mu.Lock()
	known, n := st.subs[op.id] != nil, len(st.subs)
	refusal := st.refusal(n)
	if err == nil {
		err = refusal
	}
	if !known && err == nil {
		st.subs[op.id] = s
	}
	st.mu.Unlock()
	if known {
		return fmt.Errorf("%w: subscription %d is there already", errMalformed, op.id)
	}
	var reply *rpc.SubscribeReply
	var stop func()
	if err == nil {
		ctx, cancel := context.WithTimeout(st.stream.Context(), maxSubscribeTime)
		reply, stop, err = st.server.feed.Subscribe(ctx, op.key, s)
		cancel()
	}
	if !st.begin(s, reply, stop, err) && stop != nil {
		stop()
	}
	return nil
}

// refusal is why no subscription may begin beside n others, with mu held.
func (st *followStream) refusal(n int) error {
	switch {
	case st.draining || st.ended:
		return fmt.Errorf("data node: %w", rpc.ErrClosed)
	case n >= st.server.opts.MaxSubscriptions:
		return fmt.Errorf("data node: %d subscriptions: %w", n, rpc.ErrOverloaded)
	}
	return nil
}

// begin tells the client what became of a wish. It returns false when the
// subscription is not wanted any more.
func (st *followStream) begin(s *served, reply *rpc.SubscribeReply, stop func(), err error) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended || st.draining {
		return false
	}
	if err == nil {
		err = s.cause
	}
	if err != nil {
		s.over = true
		if st.subs[s.id] == s {
			delete(st.subs, s.id)
		}
		body := encodeError(err)
		st.add(len(body)+entryHead, func(b []byte) []byte { return appendRefused(b, s.id, body) })
		return false
	}
	s.begun, s.stop = true, stop
	st.add(2*entryHead, func(b []byte) []byte { return appendSubscribed(b, s.id, reply) })
	return true
}

// unsubscribe forgets a subscription; one that has ended is not known any more.
func (st *followStream) unsubscribe(id uint64) {
	st.mu.Lock()
	s := st.subs[id]
	if s == nil {
		st.mu.Unlock()
		return
	}
	s.over = true
	delete(st.subs, id)
	st.mu.Unlock()
	s.stop() // the reader is here, so its subscribe has returned
}

// takeAll takes all subscriptions out, with mu held. What it returns is called
// without it.
func (st *followStream) takeAll() []func() {
	stops := make([]func(), 0, len(st.subs))
	for _, s := range st.subs {
		s.over = true
		if s.stop != nil {
			stops = append(stops, s.stop)
		}
	}
	clear(st.subs)
	return stops
}

func stopAll(stops []func()) {
	for _, stop := range stops {
		stop()
	}
}

// Deliver implements rpc.Subscriber.
func (s *served) Deliver(news rpc.News) {
	st := s.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if s.over {
		return
	}
	if !s.behind {
		size := sizeNews(s.id, &news)
		small := size <= maxNewsBytes && len(news.Messages) <= maxNewsMessages
		if small && st.out.bytes+size <= st.server.opts.MaxQueuedNews {
			st.put(s.id, &news)
			return
		}
		s.behind = true
		st.behind = append(st.behind, s)
		st.server.collapsed.Add(1)
		st.wake()
	}
	s.missed = rpc.News{LastSeq: news.LastSeq, Tombstoned: news.Tombstoned}
}

// End implements rpc.Subscriber.
func (s *served) End(err error) {
	st := s.st
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case s.over:
	case !s.begun:
		s.cause = err
	default:
		s.over = true
		delete(st.subs, s.id)
		body := encodeError(err)
		st.add(len(body)+entryHead, func(b []byte) []byte { return appendEnded(b, s.id, body) })
	}
}
