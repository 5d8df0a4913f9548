package streams

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/coder/websocket"
)

// Topic is the topic of a conversation.
func Topic(id string) string { return "conversation:" + id }

// Frame is one frame of the Phoenix protocol. References that are null are nil.
type Frame struct {
	JoinRef, Ref *string
	Topic, Event string
	Payload      json.RawMessage
	// Text is the frame as it came.
	Text string
}

// Reply is the payload of a phx_reply.
type Reply struct {
	Status   string          `json:"status"`
	Response json.RawMessage `json:"response"`
}

// Reply decodes the payload of an answer; it is zero if the frame is none.
func (f *Frame) Reply() Reply {
	var r Reply
	if f.Event != "phx_reply" || json.Unmarshal(f.Payload, &r) != nil {
		return Reply{}
	}
	return r
}

// Reason is why a Reply refuses.
func (r Reply) Reason() string {
	var response struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(r.Response, &response) // empty if it has none
	return response.Reason
}

// Socket is a connection of Phoenix Channels. One goroutine reads; any number
// may send.
type Socket struct{ conn *websocket.Conn }

// DialSocket connects, with the version of the protocol that is given. Of the
// options, those about a conversation are for joins.
func DialSocket(ctx context.Context, base, version string, o Options, subprotocols ...string) (*Socket, error) {
	o.Compress = false
	conn, err := dialWebSocket(ctx, base, "/socket/websocket?vsn="+version, o, subprotocols...)
	if err != nil {
		return nil, err
	}
	return &Socket{conn}, nil
}

// Subprotocol is what the server has selected.
func (s *Socket) Subprotocol() string { return s.conn.Subprotocol() }

// Send sends a text frame.
func (s *Socket) Send(ctx context.Context, text string) error {
	return s.conn.Write(ctx, websocket.MessageText, []byte(text))
}

// SendBinary sends a binary frame.
func (s *Socket) SendBinary(ctx context.Context, data []byte) error {
	return s.conn.Write(ctx, websocket.MessageBinary, data)
}

// Push sends a frame of version 2 of the protocol. Of the references, which are
// strings, an empty one is null.
func (s *Socket) Push(ctx context.Context, joinRef, ref, topic, event, payload string) error {
	text, err := json.Marshal([]any{reference(joinRef), reference(ref), topic, event, json.RawMessage(payload)})
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	return s.Send(ctx, string(text))
}

// Join asks to join a topic, with a reference that is also that of the join.
func (s *Socket) Join(ctx context.Context, ref, topic, payload string) error {
	return s.Push(ctx, ref, ref, topic, "phx_join", payload)
}

func reference(ref string) *string {
	if ref == "" {
		return nil
	}
	return &ref
}

// Read returns the next frame, of either version.
func (s *Socket) Read(ctx context.Context) (*Frame, error) {
	data, err := readFrame(ctx, s.conn)
	if err != nil {
		return nil, err
	}
	f := &Frame{Text: string(data)}
	if len(data) > 0 && data[0] == '{' {
		err = json.Unmarshal(data, &struct {
			Ref     **string         `json:"ref"`
			Topic   *string          `json:"topic"`
			Event   *string          `json:"event"`
			Payload *json.RawMessage `json:"payload"`
		}{&f.Ref, &f.Topic, &f.Event, &f.Payload})
	} else {
		err = json.Unmarshal(data, &[]any{&f.JoinRef, &f.Ref, &f.Topic, &f.Event, &f.Payload})
	}
	if err != nil {
		return nil, fmt.Errorf("decode frame %.200q: %w", data, err)
	}
	return f, nil
}

// Close cuts the connection off.
func (s *Socket) Close() { _ = s.conn.CloseNow() }

// JoinError reports that a join was refused.
type JoinError struct{ Reason string }

func (e *JoinError) Error() string { return "the join was refused: " + e.Reason }

// joinRef is the reference of the one join of a channel.
const joinRef = "7"

// channel is a socket with one topic.
type channel struct {
	*Socket
	topic    string
	answered bool
}

func openChannel(ctx context.Context, base, id string, o Options) (Stream, error) {
	s, err := DialSocket(ctx, base, "2.0.0", o)
	if err != nil {
		return nil, err
	}
	if err := s.Join(ctx, joinRef, Topic(id), o.JoinParams()); err != nil {
		s.Close()
		return nil, closed(err)
	}
	return &channel{Socket: s, topic: Topic(id)}, nil
}

// JoinParams is the payload of a join with these options.
func (o *Options) JoinParams() string {
	switch {
	case o.Resume != nil:
		return `{"cursor":` + strconv.FormatUint(*o.Resume, 10) + `}`
	case o.From > 0:
		return `{"from":` + strconv.FormatUint(o.From, 10) + `}`
	}
	return "{}"
}

// Next implements Stream. The answer to the join comes before everything else.
func (c *channel) Next(ctx context.Context) (Event, error) {
	f, err := c.Read(ctx)
	if err != nil {
		return Event{}, err
	}
	if !c.answered {
		c.answered = true
		if err := joined(f, joinRef, c.topic); err != nil {
			return Event{}, err
		}
		return c.Next(ctx)
	}
	return f.event(joinRef, c.topic)
}

// joined checks the answer to a join.
func joined(f *Frame, ref, topic string) error {
	switch r := f.Reply(); {
	case r.Status == "" || f.Topic != topic || f.Ref == nil || *f.Ref != ref || f.JoinRef == nil || *f.JoinRef != ref:
		return fmt.Errorf("no answer to join %s of %s: %.200q", ref, topic, f.Text)
	case r.Status != "ok":
		return &JoinError{r.Reason()}
	}
	return nil
}

// event returns the event of a push to a channel.
func (f *Frame) event(joinRef, topic string) (Event, error) {
	if f.JoinRef == nil || *f.JoinRef != joinRef || f.Ref != nil || f.Topic != topic {
		return Event{}, fmt.Errorf("not for join %s of %s: %.200q", joinRef, topic, f.Text)
	}
	e, err := decodeEvent(f.Payload)
	if err == nil && e.Type != f.Event {
		err = fmt.Errorf("event %q holds a %q", f.Event, e.Type)
	}
	return e, err
}
