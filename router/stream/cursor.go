package stream

import "time"

// Bounds of one step, so that the conversations of one client take turns.
const (
	maxStepFrames = 128
	maxStepBytes  = 32 << 10
)

// Cursor is a client's position in one conversation.
type Cursor struct {
	// Tag is for the owner of the session.
	Tag any

	topic   *topic
	session *Session
	since   time.Time // of the join

	// Owned by the session's work.
	pos       uint64 // next sequence; 0 until joined from now on
	goal      uint64 // last sequence when it joined
	joined    bool
	caughtUp  bool
	tombstone bool // was told

	// Guarded by the topic's mutex.
	earlier, later *Cursor
	parked         bool // in topic.waiting
	overdue        bool // waited too long for the topic to be known
	left           bool

	// Guarded by the pager's mutex.
	fetch    *fetch // waited for
	page     *page  // pinned until read once
	earliest uint64 // what is below is gone

	// Guarded by the session's mutex.
	next   *Cursor
	queued bool
}

// Step is what one turn of a cursor has for the client, in the order of its
// fields.
type Step struct {
	// Failed: the conversation could not be found in time. It comes alone, and
	// the cursor is to leave.
	Failed bool
	// Joined is told once, before everything else, with the conversation as it
	// stands.
	Joined bool
	State  State
	// Gap: the messages from Expected up to, not including, Actual are held
	// neither by the log nor by the archive.
	Gap              bool
	Expected, Actual uint64
	// Frames are the next messages.
	Frames []*Frame
	// News is when the first of them arrived; zero when they were not news to this
	// client, which is catching up.
	News time.Time
	// CaughtUp is told once: all messages up to Seq, the last when the cursor
	// joined, have been told. Resume is the sequence to follow from after this
	// step.
	CaughtUp bool
	Seq      uint64
	Resume   uint64
	// Tombstone is told once, after the last message there will ever be.
	Tombstone bool

	more bool
}

func (s *Step) reset() {
	clear(s.Frames)
	*s = Step{Frames: s.Frames[:0]}
}

func (s *Step) any() bool {
	return s.Failed || s.Joined || s.Gap || len(s.Frames) > 0 || s.CaughtUp || s.Tombstone
}

// Leave ends the cursor. It has no more steps.
func (c *Cursor) Leave() {
	t := c.topic
	t.mu.Lock()
	if c.left {
		t.mu.Unlock()
		return
	}
	c.left = true
	if c.parked {
		c.parked = false
		t.waiting.remove(c)
	}
	t.mu.Unlock()
	t.hub.pages.leave(c)
	t.hub.cursors.Add(-1)
	t.release()
}

// pull fills the step. Unless there is more, the cursor is where news or a page
// will find it: in its topic's list, or with the pager.
func (c *Cursor) pull(step *Step) {
	t := c.topic
	t.mu.Lock()
	if c.left {
		t.mu.Unlock()
		return
	}
	if !t.known {
		defer t.mu.Unlock()
		if step.Failed = c.overdue; !c.overdue {
			t.park(c)
		}
		return
	}
	if !c.joined {
		defer t.mu.Unlock()
		c.join(step)
		return
	}
	if c.pos > t.state.LastSeq {
		defer t.mu.Unlock()
		c.settle(step)
		return
	}
	most := c.most()
	if step.Frames = t.ring.from(c.pos, step.Frames, most, maxStepBytes); len(step.Frames) > 0 {
		defer t.mu.Unlock()
		if c.caughtUp {
			step.News = step.Frames[0].Arrived
		}
		c.advance(step)
		return
	}
	mean := t.meanBytes
	t.mu.Unlock()
	if !t.hub.pages.take(c, most, mean, step) {
		return // the pager wakes it
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c.advance(step)
}

func (c *Cursor) join(step *Step) {
	state := c.topic.state
	c.joined, c.goal = true, state.LastSeq
	if c.pos == 0 {
		c.pos = state.LastSeq + 1
	}
	step.Joined, step.State = true, state
	c.settle(step)
}

// most is how many frames fit into a step: caught_up comes right behind the
// message that it is about.
func (c *Cursor) most() int {
	if !c.caughtUp && c.goal-c.pos < maxStepFrames {
		return int(c.goal-c.pos) + 1
	}
	return maxStepFrames
}

func (c *Cursor) advance(step *Step) {
	if step.Gap {
		c.pos = step.Actual
		c.topic.hub.metrics.gaps.Inc()
	}
	if n := len(step.Frames); n > 0 {
		c.pos = step.Frames[n-1].Seq + 1
	}
	c.settle(step)
}

// settle adds what follows from the position, and parks the cursor at the end.
func (c *Cursor) settle(step *Step) {
	t := c.topic
	if !c.caughtUp && c.pos > c.goal {
		c.caughtUp = true
		step.CaughtUp, step.Seq = true, c.goal
	}
	step.Resume = c.pos
	if c.pos <= t.state.LastSeq {
		step.more = true
		return
	}
	if t.state.Tombstoned && !c.tombstone {
		c.tombstone = true
		step.Tombstone = true
	}
	t.park(c)
}
