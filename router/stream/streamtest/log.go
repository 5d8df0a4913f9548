// Package streamtest is a data plane in memory for tests of streams: a log of
// conversations that keeps the promises of rpc.Feed and no others, and breaks
// off, forgets and stalls when told to.
package streamtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Log is the data plane. Its methods may be called from any goroutine. It calls
// subscribers while it holds its mutex.
type Log struct {
	mu            sync.Mutex // guards the rest
	conversations map[rpc.Key]*conversation
	subscriptions map[*subscription]struct{}
	subscribed    int // calls of Subscribe that succeeded
	reads         int // calls of Messages
	failures      int // calls yet to fail
	behind        int // reads yet to be answered by a node that is behind
	repeated      int // messages that a new subscription is told again
	withheld      bool
	stalled       chan struct{} // closed when calls go on
	pageLimit     int
}

type conversation struct {
	messages   []rpc.Message
	earliest   uint64
	tombstoned bool
}

type subscription struct {
	log *Log
	key rpc.Key
	to  rpc.Subscriber
}

// New returns an empty log.
func New() *Log {
	return &Log{conversations: make(map[rpc.Key]*conversation), subscriptions: make(map[*subscription]struct{}), pageLimit: rpc.MaxPageMessages}
}

var _ rpc.Feed = (*Log)(nil)

// Create makes a conversation, without telling anybody.
func (l *Log) Create(key rpc.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.make(key)
}

func (l *Log) make(key rpc.Key) *conversation {
	c := l.conversations[key]
	if c == nil {
		c = &conversation{earliest: 1}
		l.conversations[key] = c
	}
	return c
}

// JSON is the stored message with the sequence, padded to about size bytes.
func JSON(seq uint64, size int) []byte {
	text := make([]byte, max(size-60, 1))
	for i := range text {
		text[i] = 'a' + byte((seq+uint64(i))%26)
	}
	return fmt.Appendf(nil, `{"seq":%d,"role":"user","parts":[{"type":"text","text":"%s"}]}`, seq, text)
}

// Append appends n messages of about size bytes as one append, and makes the
// conversation if it does not exist.
func (l *Log) Append(key rpc.Key, n, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	messages := make([][]byte, n)
	for i := range messages {
		messages[i] = JSON(uint64(len(l.make(key).messages)+i+1), size)
	}
	l.append(key, messages)
}

// AppendRaw appends messages with the given JSON.
func (l *Log) AppendRaw(key rpc.Key, messages ...[]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.append(key, messages)
}

func (l *Log) append(key rpc.Key, messages [][]byte) {
	c := l.make(key)
	if c.tombstoned {
		return
	}
	first := len(c.messages)
	version := uint64(1)
	if first > 0 {
		version = c.messages[first-1].Version + 1
	}
	for i, json := range messages {
		c.messages = append(c.messages, rpc.Message{Seq: uint64(first + i + 1), Version: version, JSON: json})
	}
	news := rpc.News{LastSeq: uint64(len(c.messages))}
	if !l.withheld {
		news.Messages = slices.Clone(c.messages[first:])
	}
	l.tell(key, news)
}

// Tombstone closes a conversation.
func (l *Log) Tombstone(key rpc.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.make(key)
	c.tombstoned = true
	l.tell(key, rpc.News{LastSeq: uint64(len(c.messages)), Tombstoned: true})
}

func (l *Log) tell(key rpc.Key, news rpc.News) {
	for s := range l.subscriptions {
		if s.key == key {
			s.to.Deliver(news)
		}
	}
}

// Trim forgets messages below the sequence.
func (l *Log) Trim(key rpc.Key, earliest uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.make(key).earliest = earliest
}

// Withhold makes news come without messages from now on, or with them again.
func (l *Log) Withhold(withheld bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.withheld = withheld
}

// Break ends all subscriptions.
func (l *Log) Break(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.subscriptions {
		s.to.End(err)
	}
	clear(l.subscriptions)
}

// Fail makes the next n calls fail as if the leader were down.
func (l *Log) Fail(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = n
}

// ChangeLeader ends all subscriptions as a leader that is deposed does. The next
// failures calls find no leader; then the next behind reads are answered by a
// node that does not hold the newer half of a conversation yet. From now on a
// subscription is told the newest repeated messages before its reply comes, as
// those are that the node has committed meanwhile.
func (l *Log) ChangeLeader(failures, behind, repeated int) {
	l.Break(&rpc.NotLeaderError{Leader: "other"})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures, l.behind, l.repeated = failures, behind, repeated
}

// Stall makes calls wait until the function it returns is called.
func (l *Log) Stall() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stalled := make(chan struct{})
	l.stalled = stalled
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stalled = nil
		close(stalled)
	})
}

// LimitPages bounds the messages of a page.
func (l *Log) LimitPages(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pageLimit = n
}

// Counts tells how many subscriptions there are, how many there have been, and
// how many pages were asked for.
func (l *Log) Counts() (open, subscribed, reads int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.subscriptions), l.subscribed, l.reads
}

// enter begins a call and leaves the mutex locked unless it returns an error.
func (l *Log) enter(ctx context.Context) error {
	for {
		l.mu.Lock()
		stalled := l.stalled
		if stalled == nil {
			break
		}
		l.mu.Unlock()
		select {
		case <-stalled:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", rpc.ErrUnavailable, ctx.Err())
		}
	}
	if l.failures > 0 {
		l.failures--
		l.mu.Unlock()
		return &rpc.NotLeaderError{}
	}
	return nil
}

// Subscribe implements rpc.Feed.
func (l *Log) Subscribe(ctx context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	if err := l.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer l.mu.Unlock()
	s := &subscription{l, key, to}
	l.subscriptions[s] = struct{}{}
	l.subscribed++
	stop := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subscriptions, s)
	}
	reply := &rpc.SubscribeReply{}
	if c := l.conversations[key]; c != nil {
		*reply = rpc.SubscribeReply{Exists: true, LastSeq: uint64(len(c.messages)), Tombstoned: c.tombstoned}
		if n := len(c.messages); n > 0 {
			reply.Version = c.messages[n-1].Version
		}
		l.repeat(c, to)
	}
	return reply, stop, nil
}

// repeat tells the newest messages as they were committed, one after the other.
func (l *Log) repeat(c *conversation, to rpc.Subscriber) {
	for _, m := range c.messages[max(len(c.messages)-l.repeated, 0):] {
		to.Deliver(rpc.News{Messages: []rpc.Message{m}, LastSeq: m.Seq})
	}
}

// Conversation reads what streams want to know of a conversation.
func (l *Log) Conversation(ctx context.Context, key rpc.Key, _ rpc.ReadOptions) (*rpc.Conversation, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	c := l.conversations[key]
	if c == nil {
		return nil, rpc.ErrNotFound
	}
	return &rpc.Conversation{Key: key, LastSeq: uint64(len(c.messages)), Tombstoned: c.tombstoned}, nil
}

// Messages reads a page.
func (l *Log) Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	l.reads++
	c := l.conversations[req.Key]
	if c == nil {
		return nil, rpc.ErrNotFound
	}
	if req.From < c.earliest {
		return nil, &rpc.CursorExpiredError{Earliest: c.earliest}
	}
	last := uint64(len(c.messages))
	if l.behind > 0 {
		l.behind--
		last /= 2
	}
	first := min(req.From-1, last)
	end := min(first+uint64(min(req.Limit, l.pageLimit)), last)
	return &rpc.Page{Messages: slices.Clone(c.messages[first:end]), LastSeq: last, Earliest: c.earliest}, nil
}
