package stream

import (
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Session is one client: its cursors, and which of them are ready to be served.
//
// Its work runs on a goroutine that exists only while there is something to do,
// one at a time. That goroutine owns the session's cursors: Join, Leave and Next
// are for work, and after Close for whoever called it.
type Session struct {
	hub  *Hub
	work func()

	mu      sync.Mutex // guards the rest
	ready   *Cursor    // served next; linked through Cursor.next
	last    *Cursor
	poked   bool
	running bool
	closed  bool
	idle    chan struct{} // made by Close while work runs
}

// NewSession returns a session that calls work whenever a cursor is ready or
// Poke was called. Work should call Next until that returns nil.
func (h *Hub) NewSession(work func()) *Session { return &Session{hub: h, work: work} }

// Poke has work called, also when no cursor is ready. Any goroutine may call it.
func (s *Session) Poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poked = true
	s.schedule()
}

// push makes a cursor ready.
func (s *Session) push(c *Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || c.queued {
		return
	}
	c.queued = true
	if s.last == nil {
		s.ready = c
	} else {
		s.last.next = c
	}
	s.last = c
	s.schedule()
}

func (s *Session) schedule() {
	if !s.running && !s.closed {
		s.running = true
		go s.run()
	}
}

func (s *Session) run() {
	for {
		s.mu.Lock()
		if s.closed || s.ready == nil && !s.poked {
			s.running = false
			if s.idle != nil {
				close(s.idle)
			}
			s.mu.Unlock()
			return
		}
		s.poked = false
		s.mu.Unlock()
		s.work()
	}
}

// Stop has work not called again. Unlike Close it may be called from work.
func (s *Session) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

func (s *Session) stop() {
	s.closed = true
	s.ready, s.last = nil, nil
}

// Close returns once work has returned for the last time. It must not be called
// from work.
func (s *Session) Close() {
	s.mu.Lock()
	s.stop()
	if !s.running {
		s.mu.Unlock()
		return
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	<-idle
}

func (s *Session) pop() *Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.ready
	if c == nil {
		return nil
	}
	s.ready = c.next
	if s.ready == nil {
		s.last = nil
	}
	c.next, c.queued = nil, false
	return c
}

// Join follows a conversation from a sequence on, or from now on when that is
// 0. It need not exist. What comes of it is told by steps, first Joined or
// Failed. It returns rpc.ErrOverloaded when too many conversations are followed,
// and rpc.ErrClosed.
func (s *Session) Join(key rpc.Key, from uint64) (*Cursor, error) {
	t, err := s.hub.follow(key)
	if err != nil {
		return nil, err
	}
	s.hub.cursors.Add(1)
	c := &Cursor{topic: t, session: s, pos: from, since: time.Now()}
	s.push(c)
	return c, nil
}

// Next serves the ready cursors in turn: it fills the step with what the next
// of them has for the client and returns that cursor, or nil when none has
// anything. The step is valid until it is passed again.
func (s *Session) Next(step *Step) *Cursor {
	for {
		c := s.pop()
		if c == nil {
			return nil
		}
		step.reset()
		c.pull(step)
		if step.more {
			s.push(c)
		}
		if step.any() {
			return c
		}
	}
}
