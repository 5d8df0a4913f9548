package streams

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// socketReader follows all conversations on one Phoenix connection, and leaves
// and joins topics while others go on.
type socketReader struct {
	*readers
	number int
	random *rand.Rand
	views  []*reader
	ref    int
}

// addSocket starts one. For those who wait, each of its topics is a reader.
func (r *readers) addSocket(all []*conversation, random *rand.Rand) {
	s := &socketReader{readers: r, random: random}
	r.mu.Lock()
	s.number = len(r.all)
	for _, of := range all {
		from, where := drawCursor(of, random)
		view := &reader{readers: r, of: of, place: *NewPosition(of.record, from)}
		view.name = fmt.Sprintf("socket %d, %s from %s", s.number, of.id, where)
		s.views = append(s.views, view)
		r.all = append(r.all, view)
	}
	r.mu.Unlock()
	r.running.Go(s.run)
}

func (s *socketReader) run() {
	for s.ctx.Err() == nil && !s.done() {
		if err := s.follow(s.routers[s.random.IntN(len(s.routers))]); err != nil && s.ctx.Err() == nil {
			s.t.Errorf("socket %d: %v", s.number, err)
			return
		}
		_ = pause(s.ctx, time.Duration(s.random.Int64N(int64(100*time.Millisecond))))
	}
}

func (s *socketReader) done() bool {
	for _, v := range s.views {
		if !v.place.Done {
			return false
		}
	}
	return true
}

// topicState is what one topic of a connection waits for.
type topicState struct {
	*reader
	topic    string
	ref      string // of the newest join
	answered bool   // it was joined
	leaving  string // the reference of a leave under way
}

// follow joins all topics on one connection, and rejoins some now and then.
func (s *socketReader) follow(router string) error {
	socket, err := DialSocket(s.ctx, router, "2.0.0", Options{})
	if err != nil {
		return s.excuse(err)
	}
	defer socket.Close()
	s.streams.Add(1)
	topics := map[string]*topicState{}
	for _, v := range s.views {
		t := &topicState{reader: v, topic: Topic(v.of.id)}
		topics[t.topic] = t
		if err := s.join(socket, t); err != nil {
			return s.excuse(closed(err))
		}
	}
	for stay := s.random.IntN(4 * maxStay); stay > 0 && !s.done(); stay-- {
		f, err := socket.Read(s.ctx)
		if err != nil {
			return s.excuse(err)
		}
		t := topics[f.Topic]
		if t == nil {
			return fmt.Errorf("of a topic that was not joined: %.200q", f.Text)
		}
		rejoin, err := s.take(t, f)
		if err != nil {
			return s.excuse(fmt.Errorf("%s: %w", t.name, err))
		}
		switch dice := s.random.IntN(60); {
		case rejoin, t.answered && t.leaving == "" && dice == 0: // replaces the join
			err = s.join(socket, t)
		case t.answered && t.leaving == "" && dice == 1:
			t.leaving = s.next()
			err = socket.Push(s.ctx, t.ref, t.leaving, t.topic, "phx_leave", "{}")
		}
		if err != nil {
			return s.excuse(closed(err))
		}
	}
	return nil
}

func (s *socketReader) next() string {
	s.ref++
	return strconv.Itoa(s.ref)
}

func (s *socketReader) join(socket *Socket, t *topicState) error {
	t.ref, t.answered = s.next(), false
	o := Options{From: t.place.Next}
	if t.place.Next > 0 && s.random.IntN(2) == 0 {
		last := t.place.Next - 1
		o.Resume = &last
	}
	t.change(func(p *Position) { p.Begin(Phoenix) })
	return socket.Join(s.ctx, t.ref, t.topic, o.JoinParams())
}

// take acts on a frame. Those of an earlier join are what a client ignores; after
// the answer to a leave or to the join that replaced it, none may come but
// phx_close. It returns whether to join again.
func (s *socketReader) take(t *topicState, f *Frame) (rejoin bool, err error) {
	of := ""
	if f.JoinRef != nil {
		of = *f.JoinRef
	}
	switch {
	case f.Event == "phx_reply" && f.Ref != nil && *f.Ref == t.leaving:
		if of != t.ref || f.Reply().Status != "ok" {
			return false, fmt.Errorf("answer to a leave: %.200q", f.Text)
		}
		t.answered, t.leaving = false, ""
		return false, nil
	case f.Event == "phx_close":
		return of == t.ref, nil
	case of != t.ref && !t.answered:
		return false, nil
	case of == t.ref && !t.answered:
		err := joined(f, t.ref, t.topic)
		if t.answered = err == nil; t.answered {
			return false, nil
		}
		return false, err
	}
	e, err := f.event(t.ref, t.topic)
	if err != nil {
		return false, err
	}
	s.told.Add(1)
	t.change(func(p *Position) { err = p.Take(&e) })
	return false, err
}
