// Package feedtest holds a subscriber that keeps to the contract of rpc.Feed and
// notices when the other side does not. It is for tests.
package feedtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Source is where a Receiver subscribes and reads.
type Source interface {
	rpc.Feed
	Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error)
}

// retryPause is between two tries of a Receiver that found nobody.
const retryPause = 2 * time.Millisecond

// Receiver follows a conversation: it takes news that continue at its cursor and
// reads everything else, and subscribes again when a subscription ends.
type Receiver struct {
	Key rpc.Key
	// Find returns whom to ask now.
	Find func() Source
	// Ignore, when not nil, decides whether the messages of a delivery are
	// thrown away, as a slow receiver must do.
	Ignore func() bool

	mu       sync.Mutex // guards what follows
	messages [][]byte   // of seq 1 and up: the cursor is their number
	newest   uint64     // of the conversation, as told
	live     int        // messages taken from news
	ends     []error
	broken   []string
	wake     chan struct{}
}

// subscription checks the order of one subscription.
type subscription struct {
	r     *Receiver
	last  uint64 // LastSeq of the newest news; guarded by Receiver.mu, as are the others
	first uint64 // sequence that the first news began at
	told  bool   // there was news
	ended chan struct{}
	over  bool
}

// Run follows until ctx ends.
func (r *Receiver) Run(ctx context.Context) {
	r.mu.Lock()
	r.wake = make(chan struct{}, 1)
	r.mu.Unlock()
	for ctx.Err() == nil {
		r.follow(ctx)
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
}

func (r *Receiver) follow(ctx context.Context) {
	source := r.Find()
	if source == nil {
		return
	}
	s := &subscription{r: r, ended: make(chan struct{})}
	reply, stop, err := source.Subscribe(ctx, r.Key, s)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if s.over {
			r.complain("End was called although Subscribe failed: %v", err)
		}
		return
	}
	defer stop()
	r.mu.Lock()
	r.newest = max(r.newest, reply.LastSeq)
	if s.told && s.first > reply.LastSeq+1 {
		r.complain("news begin at %d after a reply of %d", s.first, reply.LastSeq)
	}
	if !s.told {
		s.first = reply.LastSeq + 1 // what a first news must not pass
	}
	r.mu.Unlock()
	for ctx.Err() == nil {
		if !r.catchUp(ctx, source) {
			return
		}
		select {
		case <-r.wake:
		case <-s.ended:
			return
		case <-ctx.Done():
		}
	}
}

// catchUp reads what the news did not bring. It returns false when it cannot.
func (r *Receiver) catchUp(ctx context.Context, source Source) bool {
	for {
		r.mu.Lock()
		cursor, newest := uint64(len(r.messages)), r.newest
		r.mu.Unlock()
		if cursor >= newest {
			return true
		}
		page, err := source.Messages(ctx, &rpc.MessagesRequest{Key: r.Key, From: cursor + 1, Limit: 100})
		if err != nil {
			return false
		}
		r.mu.Lock()
		for _, m := range page.Messages {
			r.take(m)
		}
		r.mu.Unlock()
	}
}

// take appends the message if it is the next, with mu held.
func (r *Receiver) take(m rpc.Message) bool {
	if m.Seq != uint64(len(r.messages))+1 {
		return false
	}
	r.messages = append(r.messages, append([]byte(nil), m.JSON...))
	return true
}

// Deliver implements rpc.Subscriber.
func (s *subscription) Deliver(n rpc.News) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	s.check(n)
	s.last, s.told = n.LastSeq, true
	r.newest = max(r.newest, n.LastSeq)
	if r.Ignore == nil || !r.Ignore() {
		for _, m := range n.Messages {
			if r.take(m) {
				r.live++
			}
		}
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) check(n rpc.News) {
	r := s.r
	if s.over {
		r.complain("news after the end")
	}
	if s.told && n.LastSeq < s.last {
		r.complain("last sequence went back from %d to %d", s.last, n.LastSeq)
	}
	for i, m := range n.Messages {
		if want := n.LastSeq - uint64(len(n.Messages)-1-i); m.Seq != want {
			r.complain("message %d where %d belongs", m.Seq, want)
		}
	}
	if len(n.Messages) == 0 {
		if !s.told && s.first == 0 {
			s.first = 1
		}
		return
	}
	first := n.Messages[0].Seq
	switch {
	case s.told && first != s.last+1:
		r.complain("news begin at %d after %d", first, s.last)
	case !s.told && s.first != 0 && first > s.first:
		r.complain("first news begin at %d, after %d was told", first, s.first-1)
	case !s.told:
		s.first = first
	}
}

// End implements rpc.Subscriber.
func (s *subscription) End(err error) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.over {
		s.r.complain("ended twice")
		return
	}
	s.over = true
	s.r.ends = append(s.r.ends, err)
	close(s.ended)
}

func (r *Receiver) complain(format string, args ...any) {
	r.broken = append(r.broken, fmt.Sprintf(format, args...))
}

// Cursor returns the newest sequence received.
func (r *Receiver) Cursor() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return uint64(len(r.messages))
}

// Received returns the JSON of every message, how many of them came as news, the
// errors that subscriptions ended with, and every breach of the contract.
func (r *Receiver) Received() (messages [][]byte, live int, ends []error, broken []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([][]byte(nil), r.messages...), r.live, append([]error(nil), r.ends...), append([]string(nil), r.broken...)
}
