package feed

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Feed holds the subscriptions of one group on one node. It starts no goroutine:
// Committed and Reset deliver on the goroutine that applies, End and Close on
// their caller's.
//
// Two locks keep its promises. delivering makes the calls to subscribers one at
// a time; mu guards who they are and is never held while one is called, so that
// stop can be called with a lock held that a delivery wants.
type Feed struct {
	quota *Quota
	// count is the number of subscriptions. The goroutine that applies looks at
	// nothing else while it is 0.
	count atomic.Int64

	delivering sync.Mutex      // taken before mu
	called     []*subscription // those of one conversation; guarded by delivering

	mu     sync.Mutex // guards what follows
	subs   map[rpc.Key][]*subscription
	closed bool
}

// subscription is one subscriber of one conversation.
type subscription struct {
	feed *Feed
	key  rpc.Key
	to   rpc.Subscriber
	// over: nothing more is delivered. Set once, by who takes it out of the feed.
	over atomic.Bool

	// Guarded by Feed.mu.
	at    int   // its place in the list of its conversation; -1 when taken out
	begun bool  // Subscribe has succeeded, so its end is told to the subscriber
	cause error // why it ended before it had begun
}

// Reader reads a conversation as it is now; rpc.ErrNotFound if there is none.
type Reader func(rpc.Key) (rpc.Conversation, error)

// New returns the feed of a group. quota is shared by all of a node.
func New(quota *Quota) *Feed {
	return &Feed{quota: quota, subs: make(map[rpc.Key][]*subscription)}
}

// Subscribe registers the subscriber and then calls begin, which reads the
// conversation: so whatever begin does not see is delivered. It returns begin's
// errors, rpc.ErrOverloaded when the node takes no more subscriptions, and
// rpc.ErrClosed.
//
// After an error the subscriber's End is not called, and no delivery begins. After
// success End may have been called before Subscribe returns.
func (f *Feed) Subscribe(key rpc.Key, to rpc.Subscriber, begin func() (*rpc.SubscribeReply, error)) (*rpc.SubscribeReply, func(), error) {
	s := &subscription{feed: f, key: key, to: to}
	if err := f.register(s); err != nil {
		return nil, nil, err
	}
	reply, err := begin()
	if err == nil {
		err = f.begin(s)
	}
	if err != nil {
		s.stop()
		return nil, nil, err
	}
	return reply, s.stop, nil
}

func (f *Feed) register(s *subscription) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("subscribe: %w", rpc.ErrClosed)
	}
	if !f.quota.take() {
		return fmt.Errorf("subscribe: %d subscriptions: %w", f.quota.limit, rpc.ErrOverloaded)
	}
	list := f.subs[s.key]
	s.at = len(list)
	f.subs[s.key] = append(list, s)
	f.count.Add(1)
	return nil
}

// begin makes the subscription one that is told of its end, unless it has ended.
func (f *Feed) begin(s *subscription) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.begun = true
	return s.cause
}

// stop takes the subscription out of the feed. It waits for no delivery.
func (s *subscription) stop() {
	if s.over.Swap(true) {
		return
	}
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.at < 0 {
		return // End or Close has taken it out
	}
	list := f.subs[s.key]
	last := len(list) - 1
	list[s.at] = list[last]
	list[s.at].at = s.at
	list[last] = nil
	if last == 0 {
		delete(f.subs, s.key)
	} else {
		f.subs[s.key] = list[:last]
	}
	f.count.Add(-1)
	f.quota.give(1)
}

// Committed tells the subscribers what an Apply did. read is asked how a
// conversation stands that was only tombstoned. It is called by the goroutine that
// applies, after readers can see what happened; messages are copied once for
// all subscribers of a conversation, and not at all for none.
func (f *Feed) Committed(list []state.Committed, read Reader) {
	if f.count.Load() == 0 {
		return
	}
	f.delivering.Lock()
	defer f.delivering.Unlock()
	for i := range list {
		c := &list[i]
		if f.collect(c.Key); len(f.called) == 0 {
			continue
		}
		if len(c.Messages) == 0 {
			f.tell(c.Key, read)
			continue
		}
		f.deliver(rpc.News{
			Messages: copyMessages(c.Messages), LastSeq: c.Messages[len(c.Messages)-1].Seq, Tombstoned: c.Tombstoned,
		})
	}
}

// Reset tells every subscriber how its conversation stands, after a snapshot has
// replaced the state. It is called where Committed is.
func (f *Feed) Reset(read Reader) {
	if f.count.Load() == 0 {
		return
	}
	f.delivering.Lock()
	defer f.delivering.Unlock()
	f.mu.Lock()
	keys := make([]rpc.Key, 0, len(f.subs))
	for key := range f.subs {
		keys = append(keys, key)
	}
	f.mu.Unlock()
	for _, key := range keys {
		f.collect(key)
		f.tell(key, read)
	}
}

// collect makes called the subscriptions of a conversation. Delivering is held,
// as in all below.
func (f *Feed) collect(key rpc.Key) {
	clear(f.called)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.called = append(f.called[:0], f.subs[key]...)
}

func (f *Feed) deliver(news rpc.News) {
	for _, s := range f.called {
		if !s.over.Load() {
			s.to.Deliver(news)
		}
	}
	f.dropCalled()
}

// tell delivers how a conversation stands, without messages. Subscribers of one
// that cannot be read have to come again.
func (f *Feed) tell(key rpc.Key, read Reader) {
	conv, err := read(key)
	if err == nil || errors.Is(err, rpc.ErrNotFound) {
		f.deliver(rpc.News{LastSeq: conv.LastSeq, Tombstoned: conv.Tombstoned})
		return
	}
	err = fmt.Errorf("read a conversation for its subscribers: %w: %w", rpc.ErrUnavailable, err)
	f.mu.Lock()
	ended := f.take(key, err)
	f.mu.Unlock()
	tellEnd(ended, err)
	f.dropCalled()
}

// maxCalled bounds what is kept of a long list for the next delivery.
const maxCalled = 1024

func (f *Feed) dropCalled() {
	clear(f.called)
	if cap(f.called) > maxCalled {
		f.called = nil
	}
	f.called = f.called[:0]
}

// take takes all subscriptions of a conversation out, with mu held, and returns
// those that have begun.
func (f *Feed) take(key rpc.Key, err error) []*subscription {
	list := f.subs[key]
	delete(f.subs, key)
	f.count.Add(-int64(len(list)))
	f.quota.give(len(list))
	begun := list[:0]
	for _, s := range list {
		s.at = -1
		if s.begun {
			begun = append(begun, s)
		} else {
			s.cause = err
		}
	}
	return begun
}

// End ends all subscriptions; new ones are taken. A delivery that is under way
// comes first. The caller must not be a subscriber's delivery.
func (f *Feed) End(err error) { f.end(err, false) }

// Close ends all subscriptions with err and takes no more.
func (f *Feed) Close(err error) { f.end(err, true) }

func (f *Feed) end(err error, closing bool) {
	f.delivering.Lock()
	defer f.delivering.Unlock()
	f.mu.Lock()
	f.closed = f.closed || closing
	var ended []*subscription
	for key := range f.subs {
		ended = append(ended, f.take(key, err)...)
	}
	f.mu.Unlock()
	tellEnd(ended, err)
}

func tellEnd(ended []*subscription, err error) {
	for _, s := range ended {
		if !s.over.Swap(true) {
			s.to.End(err)
		}
	}
}

// copyMessages copies messages that are only valid for the moment, all JSON into
// one piece of memory.
func copyMessages(from []rpc.Message) []rpc.Message {
	size := 0
	for i := range from {
		size += len(from[i].JSON)
	}
	to, json := make([]rpc.Message, len(from)), make([]byte, 0, size)
	for i := range from {
		m := &from[i]
		start := len(json)
		json = append(json, m.JSON...)
		to[i] = rpc.Message{Seq: m.Seq, Version: m.Version, JSON: json[start:len(json):len(json)]}
	}
	return to
}
