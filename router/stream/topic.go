package stream

import (
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// topic is one followed conversation: what is known of it, its newest messages,
// and the cursors that wait for more.
type topic struct {
	hub   *Hub
	key   rpc.Key
	group rpc.Group     // of the key
	found chan struct{} // closed once state is known

	mu        sync.Mutex // guards the rest
	known     bool
	state     State
	ring      ring
	pushed    time.Time // last change of the ring
	meanBytes int       // of recent messages, 0 before the first
	waiting   cursors   // at the end
	followers int       // cursors and holds
	since     time.Time // when followers became 0
	up        *upstream // nil between subscriptions
	failures  int       // in a row, of subscriptions
	ended     bool
}

// release undoes one follow.
func (t *topic) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followers--
	if t.followers == 0 {
		t.since = time.Now()
	}
}

// inform takes over what was committed. The mutex is held.
func (t *topic) inform(n rpc.News) {
	s := &t.state
	messages := n.Messages
	for len(messages) > 0 && messages[0].Seq <= s.LastSeq {
		messages = messages[1:] // told before
	}
	if len(messages) > 0 {
		if messages[0].Seq != s.LastSeq+1 {
			t.clearRing()
		}
		t.push(messages)
		last := &messages[len(messages)-1]
		s.Exists, s.LastSeq, s.Version = true, last.Seq, max(s.Version, last.Version)
	}
	if n.LastSeq > s.LastSeq {
		t.clearRing()
		s.Exists, s.LastSeq = true, n.LastSeq
	}
	if n.Tombstoned {
		s.Exists, s.Tombstoned = true, true
	}
}

// push adds a run that follows the ring's end, or starts it.
func (t *topic) push(messages []rpc.Message) {
	cfg := &t.hub.cfg
	if len(messages) > cfg.RingMessages {
		t.clearRing()
		messages = messages[len(messages)-cfg.RingMessages:]
	}
	grown := 0
	t.pushed = time.Now()
	for i := range messages {
		f := &Frame{Seq: messages[i].Seq, Arrived: t.pushed, Payload: appendPayload(make([]byte, 0, len(messages[i].JSON)+maxPayloadFrame), &messages[i])}
		grown += t.ring.push(f, cfg.RingMessages, cfg.RingBytes)
		t.measure(len(f.Payload))
	}
	if t.hub.ringBytes.Add(int64(grown)) > cfg.RingBudget {
		t.clearRing()
	}
}

// measure follows the mean size of messages, by which pages are sized.
func (t *topic) measure(bytes int) {
	if t.meanBytes == 0 {
		t.meanBytes = bytes
		return
	}
	t.meanBytes = max((7*t.meanBytes+bytes)/8, 1)
}

func (t *topic) clearRing() {
	if len(t.ring.frames) > 0 {
		t.hub.ringBytes.Add(-int64(t.ring.clear()))
	}
}

// learn takes over how the conversation stood when a subscription began. The
// mutex is held.
func (t *topic) learn(r *rpc.SubscribeReply) {
	s := &t.state
	if r.LastSeq > s.LastSeq {
		t.clearRing()
		s.LastSeq = r.LastSeq
	}
	s.Exists = s.Exists || r.Exists
	s.Version = max(s.Version, r.Version)
	s.Tombstoned = s.Tombstoned || r.Tombstoned
	if !t.known {
		t.known = true
		close(t.found)
	}
}

// park has the cursor wait for news. The mutex is held.
func (t *topic) park(c *Cursor) {
	if !c.parked {
		c.parked = true
		t.waiting.add(c)
	}
}

// inlineWakes is how many cursors are woken by the goroutine that brings the
// news, which must return at once. More are left to a worker.
const inlineWakes = 32

// wake makes all waiting cursors ready. The mutex is held.
func (t *topic) wake() {
	if t.waiting.first == nil {
		return
	}
	var batch []*Cursor
	var inline [inlineWakes]*Cursor
	if t.waiting.len <= inlineWakes {
		batch = inline[:0]
	} else {
		batch = make([]*Cursor, 0, t.waiting.len)
	}
	for c := t.waiting.first; c != nil; c = t.waiting.first {
		t.waiting.remove(c)
		c.parked = false
		batch = append(batch, c)
	}
	if len(batch) <= inlineWakes {
		wakeAll(batch)
		return
	}
	t.hub.wakes.do(func() { wakeAll(batch) })
}

func wakeAll(batch []*Cursor) {
	for _, c := range batch {
		c.session.push(c)
	}
}

// sweep reports whether nobody has followed the topic for a while. It is then
// ended, and stop, if any, ends its subscription.
func (t *topic) sweep(now time.Time) (stop func(), gone bool) {
	t.mu.Lock()
	if t.followers == 0 && now.Sub(t.since) >= t.hub.cfg.Linger {
		t.mu.Unlock()
		return t.end(), true
	}
	defer t.mu.Unlock()
	if len(t.ring.frames) > 0 && now.Sub(t.pushed) >= t.hub.cfg.RingAge {
		t.clearRing()
	}
	if t.known {
		return nil, false
	}
	for c := t.waiting.first; c != nil; {
		next := c.later
		if now.Sub(c.since) >= t.hub.cfg.JoinTimeout {
			t.waiting.remove(c)
			c.parked, c.overdue = false, true
			c.session.push(c)
		}
		c = next
	}
	return nil, false
}

// end makes the topic inert and returns what stops its subscription, or nil.
func (t *topic) end() (stop func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.clearRing()
	if t.up != nil {
		stop = t.up.stop
		t.up = nil
	}
	return stop
}

// cursors is a list of cursors, linked through themselves.
type cursors struct {
	first, last *Cursor
	len         int
}

func (l *cursors) add(c *Cursor) {
	c.earlier, c.later = l.last, nil
	if l.last == nil {
		l.first = c
	} else {
		l.last.later = c
	}
	l.last = c
	l.len++
}

func (l *cursors) remove(c *Cursor) {
	if c.earlier == nil {
		l.first = c.later
	} else {
		c.earlier.later = c.later
	}
	if c.later == nil {
		l.last = c.earlier
	} else {
		c.later.earlier = c.earlier
	}
	c.earlier, c.later = nil, nil
	l.len--
}
