package fastpaca

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"time"
)

// FromNow subscribes to what is appended from now on.
const FromNow int64 = -1

// EventType says what an Event is.
type EventType string

// The types of events.
const (
	// EventMessage brings Message.
	EventMessage EventType = "message"
	// EventCaughtUp tells, once after every connect, that what follows is live. Seq
	// was the newest message when the connection was made.
	EventCaughtUp EventType = "caught_up"
	// EventTombstone tells that the conversation was closed. It is the last event.
	EventTombstone EventType = "tombstone"
	// EventGap tells that the messages from Expected up to, but without, Actual
	// are no longer held by the server.
	EventGap EventType = "gap"
	// EventReconnecting tells that the connection broke with Err and is made again
	// after Wait. Nothing is lost by it.
	EventReconnecting EventType = "reconnecting"
)

// Event is something that happened to a conversation, or to the connection.
// Only the fields named at its type are set.
type Event struct {
	Type     EventType
	Seq      int64 // of the message; with EventCaughtUp the newest there was
	Version  int64 // with EventMessage: of the conversation after it
	Message  Message
	Expected int64
	Actual   int64
	Err      error
	Wait     time.Duration
}

// Subscribe ranges over the messages of a conversation: first what is there from
// a sequence on (0 and 1 are the first, FromNow skips it), then live, each
// exactly once and in order. When the connection breaks it is made again and
// goes on where it was; see WithReconnectLimit for how long that is tried.
//
// It ends without an error when the conversation is tombstoned, and with an
// *Error when the context ends (CodeCanceled), when the first connection fails
// after the usual retries, or when the server refuses it, as with ErrNotFound.
// Messages that the server no longer holds are told as a *GapError; that is the
// one error after which the range goes on if the loop does.
//
// Messages are read as the loop takes them: a slow loop slows its own stream and
// nothing else. Nothing runs between iterations.
func (c *Conversation) Subscribe(ctx context.Context, from int64) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for e, err := range c.Events(ctx, from) {
			more := true
			switch {
			case err != nil:
				more = yield(Message{}, err)
			case e.Type == EventMessage:
				more = yield(e.Message, nil)
			case e.Type == EventGap:
				more = yield(Message{}, &GapError{Expected: e.Expected, Actual: e.Actual})
			}
			if !more {
				return
			}
		}
	}
}

// Events is Subscribe with everything that happens beside messages.
func (c *Conversation) Events(ctx context.Context, from int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		op, err := c.begin("subscribe to")
		if err != nil {
			yield(Event{}, err)
			return
		}
		next := max(from, 1)
		if from < 0 {
			// Not left to the server: when a connection broke before its first
			// message, the next one would not know where the first began.
			info, err := c.Get(ctx)
			if err != nil {
				yield(Event{}, named(op, err))
				return
			}
			next = info.LastSeq + 1
		}
		s := subscription{conversation: c, ctx: ctx, op: op, next: next, yield: yield}
		s.run()
	}
}

// Bounds of the waits before a stream is connected again.
const (
	minReconnectWait = 100 * time.Millisecond
	maxReconnectWait = 10 * time.Second
)

// subscription is one range over Events, on the goroutine that ranges.
type subscription struct {
	conversation *Conversation
	ctx          context.Context
	op           string
	yield        func(Event, error) bool

	next  int64 // the sequence that is to be delivered next
	holed int64 // the sequence at which the server skipped on the connection before

	connected bool          // a connection has brought something
	failures  int           // since then
	since     time.Time     // of the first of these failures
	retry     time.Duration // what the server asked for
	buf       []byte
}

var (
	errStopped = errors.New("the loop ended")         // by break
	errDone    = errors.New("the conversation ended") // by a tombstone
	errHole    = errors.New("the stream skipped a message")
)

// run connects until there is nothing more to deliver or nobody to deliver to.
func (s *subscription) run() {
	for {
		err := s.follow()
		if errors.Is(err, errStopped) || errors.Is(err, errDone) {
			return
		}
		failed := s.failure(err)
		if !failed.Retryable || s.exhausted() {
			s.yield(Event{}, failed)
			return
		}
		d := s.backoff(failed)
		if s.connected && !s.yield(Event{Type: EventReconnecting, Err: failed, Wait: d}, nil) {
			return
		}
		if s.conversation.client.wait(s.ctx, d) != nil {
			stopped := canceled(s.ctx, failed)
			stopped.Op = s.op
			s.yield(Event{}, stopped)
			return
		}
	}
}

// failure counts a failed or broken connection.
func (s *subscription) failure(err error) *Error {
	var failed *Error
	if !errors.As(err, &failed) {
		failed = networkFailure(s.ctx, err)
	}
	if s.failures++; s.failures == 1 {
		s.since = time.Now()
	}
	failed.Op, failed.Attempts = s.op, s.failures
	return failed
}

// exhausted tells whether there were failures enough.
func (s *subscription) exhausted() bool {
	client := s.conversation.client
	if !s.connected {
		return s.failures >= client.retry.Attempts
	}
	return client.reconnect > 0 && s.failures > 1 && time.Since(s.since) > client.reconnect
}

func (s *subscription) backoff(failed *Error) time.Duration {
	steps := Retry{MinWait: minReconnectWait, MaxWait: maxReconnectWait}
	d := steps.backoff(s.failures)
	if s.retry > 0 && s.failures == 1 {
		d = jittered(min(s.retry, maxReconnectWait))
	}
	return min(failed.RetryAfter, maxReconnectWait) + d
}

// follow connects once and delivers until the connection breaks.
func (s *subscription) follow() error {
	conn, err := s.conversation.connect(s.ctx, s.next)
	if err != nil {
		return s.expired(err)
	}
	defer conn.close()
	for {
		data, err := conn.frames.next(s.buf)
		if err != nil {
			return conn.cause(err)
		}
		s.buf = data
		s.retry = conn.frames.retry
		conn.rest()
		if err := s.take(data); err != nil {
			return err
		}
	}
}

// expired makes a gap of a server that no longer holds what comes next.
func (s *subscription) expired(err error) error {
	var failed *Error
	if !errors.As(err, &failed) || failed.Code != CodeCursorExpired || failed.EarliestSeq <= s.next {
		return err
	}
	if err := s.gap(failed.EarliestSeq); err != nil {
		return err
	}
	failed.Retryable = true // from there on
	return failed
}

// frame is the data of an event as it is sent.
type frame struct {
	Type     EventType       `json:"type"`
	Seq      int64           `json:"seq"`
	Version  int64           `json:"version"`
	Message  json.RawMessage `json:"message"`
	Expected int64           `json:"expected"`
	Actual   int64           `json:"actual"`
}

// take delivers one event, unless it was delivered before. Types that this
// version does not know are passed over.
func (s *subscription) take(data []byte) error {
	var f frame
	if err := json.Unmarshal(data, &f); err != nil {
		return &Error{Code: CodeUnexpectedResponse, Message: "the stream sent what is not JSON", Retryable: true, Err: err}
	}
	s.connected, s.failures = true, 0
	switch f.Type {
	case EventMessage:
		return s.message(&f)
	case EventGap:
		return s.gap(f.Actual)
	case EventCaughtUp:
		return s.deliver(Event{Type: EventCaughtUp, Seq: f.Seq})
	case EventTombstone:
		if err := s.deliver(Event{Type: EventTombstone}); err != nil {
			return err
		}
		return errDone
	}
	return nil
}

func (s *subscription) message(f *frame) error {
	if f.Seq < s.next {
		return nil // delivered before the connection broke
	}
	if f.Seq > s.next {
		// Reading from the cursor again finds what was skipped. A server that
		// skips it twice does not have it.
		if s.holed != s.next {
			s.holed = s.next
			return &Error{Code: CodeUnexpectedResponse, Message: errHole.Error(), Retryable: true, Err: errHole}
		}
		if err := s.gap(f.Seq); err != nil {
			return err
		}
	}
	var m Message
	if err := json.Unmarshal(f.Message, &m); err != nil || m.Seq != f.Seq {
		return &Error{Code: CodeUnexpectedResponse, Message: "the stream sent a message that is none", Retryable: true, Err: err}
	}
	s.next++
	return s.deliver(Event{Type: EventMessage, Seq: f.Seq, Version: f.Version, Message: m})
}

// gap moves the cursor over messages that are gone.
func (s *subscription) gap(to int64) error {
	if to <= s.next {
		return nil
	}
	e := Event{Type: EventGap, Expected: s.next, Actual: to}
	s.next = to
	return s.deliver(e)
}

func (s *subscription) deliver(e Event) error {
	if !s.yield(e, nil) {
		return errStopped
	}
	return nil
}
