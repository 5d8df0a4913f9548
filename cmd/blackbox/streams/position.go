package streams

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// Record is what clients were told of one conversation. Safe for concurrent use.
type Record struct {
	mu       sync.Mutex // guards messages
	messages map[uint64]told
}

type told struct {
	version uint64
	message []byte
}

// NewRecord returns an empty one.
func NewRecord() *Record { return &Record{messages: map[uint64]told{}} }

// add takes down a message, and returns an error if somebody was told another
// one for its sequence.
func (r *Record) add(e *Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.messages[e.Seq]
	switch {
	case !known:
		r.messages[e.Seq] = told{e.Version, bytes.Clone(e.Message)}
		return nil
	case before.version != e.Version:
		return fmt.Errorf("seq %d: version %d, another client was told %d", e.Seq, e.Version, before.version)
	case !bytes.Equal(before.message, e.Message):
		return fmt.Errorf("seq %d: %.200q, another client was told %.200q", e.Seq, e.Message, before.message)
	}
	return nil
}

// Check holds all that was told against the whole log, as it is read.
func (r *Record) Check(log []client.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for seq, m := range r.messages {
		if seq == 0 || seq > uint64(len(log)) {
			return fmt.Errorf("seq %d was told, the log ends at %d", seq, len(log))
		}
		if !bytes.Equal(m.message, log[seq-1].Raw) {
			return fmt.Errorf("seq %d: %.200q was told, a read gives %.200q", seq, m.message, log[seq-1].Raw)
		}
	}
	return nil
}

// Position is a client's place in a conversation, over all the streams that it
// opens one after the other. Take holds each event against what may come there.
type Position struct {
	// Next is the sequence that the client wants next, 0 until it has learned
	// where "now" is.
	Next uint64
	// Seen counts the messages.
	Seen int
	// Done: the tombstone has come.
	Done bool
	// CaughtUp is the sequence that caught_up named in this stream, nil before.
	CaughtUp *uint64

	record *Record
	kind   Transport
	ended  bool // a tombstone came in this stream
	first  uint64
}

// NewPosition returns one that wants from, or what comes from now on if that is
// 0.
func NewPosition(record *Record, from uint64) *Position {
	return &Position{Next: from, record: record}
}

// Begin is called for each stream that is opened at Next.
func (p *Position) Begin(kind Transport) {
	p.kind, p.CaughtUp, p.ended, p.first = kind, nil, false, p.Next
}

// Take moves on by an event, or says why it must not come.
func (p *Position) Take(e *Event) error {
	if p.ended {
		return fmt.Errorf("%s after the tombstone", describe(e))
	}
	var err error
	switch e.Type {
	case "message":
		err = p.message(e)
	case "caught_up":
		err = p.caughtUp(e)
	case "tombstone":
		p.ended, p.Done = true, true
		if p.CaughtUp == nil {
			err = errors.New("a tombstone before caught_up")
		}
	default:
		err = fmt.Errorf("%s, where nothing is gone", describe(e))
	}
	if err == nil {
		err = p.checkID(e)
	}
	if err != nil {
		return fmt.Errorf("%w (%s from %d, now at %d)", err, p.kind, p.first, p.Next)
	}
	return nil
}

func (p *Position) message(e *Event) error {
	switch {
	case p.Next == 0:
		return fmt.Errorf("%s before caught_up has told where the stream began", describe(e))
	case e.Seq != p.Next:
		return fmt.Errorf("%s, want seq %d", describe(e), p.Next)
	}
	p.Next++
	p.Seen++
	return p.record.add(e)
}

func (p *Position) caughtUp(e *Event) error {
	if p.CaughtUp != nil {
		return fmt.Errorf("caught_up %d again, after %d", e.Seq, *p.CaughtUp)
	}
	seq := e.Seq
	p.CaughtUp = &seq
	if p.Next == 0 {
		p.Next = seq + 1
	}
	// Behind the last message that there was, and not later.
	if want := max(p.first, seq+1); p.Next != want {
		return fmt.Errorf("caught_up %d", seq)
	}
	return nil
}

// checkID: with an id, a browser that comes back goes on where it was.
func (p *Position) checkID(e *Event) error {
	if p.kind != SSE || e.Type == "tombstone" {
		return nil
	}
	if id, err := strconv.ParseUint(e.ID, 10, 64); err != nil || id != p.Next-1 {
		return fmt.Errorf("%s with the id %q", describe(e), e.ID)
	}
	return nil
}

func describe(e *Event) string {
	switch e.Type {
	case "message":
		return fmt.Sprintf("message %d", e.Seq)
	case "gap":
		return fmt.Sprintf("gap from %d to %d", e.Expected, e.Actual)
	}
	return e.Type
}
