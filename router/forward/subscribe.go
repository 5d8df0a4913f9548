package forward

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

var _ rpc.Feed = (*Forwarder)(nil)

// Subscribe subscribes at the leader of the conversation's group, tried for as long
// as any request. When leadership moves the subscription ends, with the hint of
// where to: subscribing again finds the new leader.
func (f *Forwarder) Subscribe(ctx context.Context, key rpc.Key, to rpc.Subscriber) (reply *rpc.SubscribeReply, stop func(), err error) {
	s := &subscription{to: to}
	err = f.lead(ctx, key.Group(), true, func(ctx context.Context, n rpc.Node) (err error) {
		feed, ok := n.(rpc.Feed)
		if !ok {
			return fmt.Errorf("the node takes no subscriptions: %w", rpc.ErrUnavailable)
		}
		reply, stop, err = feed.Subscribe(ctx, key, s.try())
		return err
	})
	if err != nil {
		s.try() // silences the last one
		return nil, nil, err
	}
	return reply, stop, nil
}

// subscription lets only the last of several tries speak to the subscriber: one
// that failed may still have a delivery under way.
type subscription struct {
	to   rpc.Subscriber
	last atomic.Pointer[try]
	mu   sync.Mutex // held while the subscriber is called
}

// try is the subscriber that one node sees.
type try struct{ of *subscription }

func (s *subscription) try() *try {
	t := &try{of: s}
	s.last.Store(t)
	return t
}

// Deliver implements rpc.Subscriber.
func (t *try) Deliver(news rpc.News) {
	s := t.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.Load() == t {
		s.to.Deliver(news)
	}
}

// End implements rpc.Subscriber.
func (t *try) End(err error) {
	s := t.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.Load() == t {
		s.to.End(err)
	}
}
