package socket

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/phoenix"
	"github.com/fastpaca/fastpaca/router/stream"
)

// Phoenix serves a connection of Phoenix Channels, on which a client joins
// topics. It returns before the connection ends. An error means that nothing was
// answered yet; it is a HandshakeError or one of this package. The caller has
// checked the origin. The query string is not logged: clients put secrets there.
func (s *Server) Phoenix(w http.ResponseWriter, r *http.Request) error {
	version, err := phoenix.ParseVersion(r.URL.Query().Get("vsn"))
	if err != nil {
		return &HandshakeError{http.StatusForbidden, "vsn must be 1.0.0 or 2.0.0"}
	}
	var upgrade *HandshakeError
	if err := checkUpgrade(r); errors.As(err, &upgrade) {
		return &HandshakeError{http.StatusBadRequest, upgrade.Reason}
	}
	if err := s.admit(); err != nil {
		return err
	}
	// Clients that offer a token as a subprotocol fail unless "phoenix" is
	// selected.
	ws, c := s.accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled, Subprotocols: []string{"phoenix"},
	})
	if ws == nil {
		s.release()
		return nil // it was answered
	}
	ws.SetReadLimit(s.cfg.MaxFrameBytes)
	s.link(transportPhoenix, c, func(l *link) protocol {
		return &channels{
			link: l, ws: ws, version: version, joined: make(map[string]*channel), inbox: make(chan phoenix.Frame, inboxFrames),
			joins: bucket{size: int64(s.cfg.MaxSubscriptions), rate: int64(s.cfg.MaxJoinRate)},
		}
	})
	return nil
}

// inboxFrames bounds the frames of a client that wait to be acted on. When it is
// full nothing more is read, so a client that sends without reading stops
// itself.
const inboxFrames = 4

// maxReplaced bounds the joins of a topic that a client replaces before any of
// them is answered. The client has forgotten those beyond it, as all of them.
const maxReplaced = 4

// channels is the protocol of Phoenix Channels: what of it is state.
type channels struct {
	link  *link
	ws    *websocket.Conn
	inbox chan phoenix.Frame

	version phoenix.Version // in which is answered
	settled bool            // by the first frame
	joined  map[string]*channel
	joins   bucket
}

// channel is one joined topic.
type channel struct {
	topic   string
	joinRef phoenix.Ref
	ref     phoenix.Ref // of the join
	// replaced are join references of earlier joins of the topic, to be closed
	// once this one is answered.
	replaced []phoenix.Ref
	cursor   *stream.Cursor
	opening  []byte // of message events, made for the first
}

func (p *channels) start() {}

// listen parses what the client sends and hands it to the writer.
func (p *channels) listen() *goodbye {
	for {
		kind, r, err := p.ws.Reader(context.Background())
		if err != nil {
			return p.link.broken(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			return p.link.broken(err)
		}
		f, err := p.parse(kind, raw)
		if err != nil {
			return &goodbye{code: codeInvalid, reason: "not a frame of the Phoenix protocol", cause: causeProtocol}
		}
		select {
		case p.inbox <- f:
			p.link.session.Poke()
		case <-p.link.conn.done:
			return nil
		}
	}
}

func (p *channels) parse(kind websocket.MessageType, raw []byte) (phoenix.Frame, error) {
	if kind == websocket.MessageText {
		return phoenix.ParseText(raw)
	}
	return phoenix.ParseBinary(raw)
}

// orders acts on what has been sent.
func (p *channels) orders(o *output) {
	for range inboxFrames {
		select {
		case f := <-p.inbox:
			p.act(&f, o)
		default:
			return
		}
	}
}

func (p *channels) act(f *phoenix.Frame, o *output) {
	if !p.settled {
		p.settled, p.version = true, f.Shape
	}
	if f.Binary && p.version == phoenix.V1 {
		p.link.order(&goodbye{code: codeInvalid, reason: "binary frames need version 2 of the protocol", cause: causeProtocol})
		return
	}
	ch := p.joined[f.Topic]
	switch {
	case f.Topic == phoenix.TopicPhoenix && f.Event == phoenix.EventHeartbeat:
		p.reply(o, phoenix.Ref{}, f.Ref, f.Topic, phoenix.StatusOK, "{}")
	case f.Event == phoenix.EventJoin:
		p.join(f, ch, o)
	case f.Event == phoenix.EventLeave && ch == nil:
		p.reply(o, f.JoinRef, f.Ref, f.Topic, phoenix.StatusOK, "{}")
	case ch == nil:
		p.refuse(o, phoenix.Ref{}, f, "unmatched topic")
	case f.JoinRef.Set && f.JoinRef != ch.joinRef:
		// About an earlier join of the topic, which has ended.
	case f.Event == phoenix.EventLeave:
		p.end(ch)
		p.reply(o, ch.joinRef, f.Ref, ch.topic, phoenix.StatusOK, "{}")
		p.tell(o, ch, phoenix.EventClose)
	default:
		p.refuse(o, ch.joinRef, f, "unsupported event")
	}
}

// topicPrefix is in front of conversation ids.
const topicPrefix = "conversation:"

func (p *channels) join(f *phoenix.Frame, old *channel, o *output) {
	joinRef := f.JoinRef.Or(f.Ref)
	id, ok := strings.CutPrefix(f.Topic, topicPrefix)
	if !ok {
		p.refuse(o, phoenix.Ref{}, f, "unmatched topic")
		return
	}
	key, err := rpc.KeyOf(id)
	if err != nil {
		p.refuse(o, joinRef, f, "invalid conversation id")
		return
	}
	from, ok := joinFrom(f)
	switch {
	case !ok:
		p.refuse(o, joinRef, f, "invalid from")
		return
	case old == nil && len(p.joined) >= p.link.server.cfg.MaxSubscriptions:
		p.refuse(o, joinRef, f, "too many channels joined")
		return
	case !p.joins.take(p.link.conn.clock.Load()):
		p.refuse(o, joinRef, f, "too many joins, try later")
		return
	}
	cursor, err := p.link.session.Join(key, from)
	if err != nil {
		p.refuse(o, joinRef, f, "overloaded")
		return
	}
	ch := &channel{topic: f.Topic, joinRef: joinRef, ref: f.Ref, cursor: cursor}
	cursor.Tag = ch
	if old != nil {
		p.end(old)
		if ch.replaced = old.replaced; old.joinRef != joinRef && len(ch.replaced) < maxReplaced {
			ch.replaced = append(ch.replaced, old.joinRef)
		}
	}
	p.joined[f.Topic] = ch
}

// end stops a channel. Nothing more comes from it.
func (p *channels) end(ch *channel) {
	ch.cursor.Leave()
	delete(p.joined, ch.topic)
}

// step writes what a cursor has: the answer to the join first, then events.
func (p *channels) step(c *stream.Cursor, o *output) {
	ch, step := c.Tag.(*channel), &o.step
	if p.joined[ch.topic] != ch {
		return // replaced or left since
	}
	if step.Failed {
		p.end(ch)
		p.reply(o, ch.joinRef, ch.ref, ch.topic, phoenix.StatusError, `{"reason":"unavailable"}`)
		p.closeReplaced(ch, o)
		return
	}
	if step.Joined {
		p.reply(o, ch.joinRef, ch.ref, ch.topic, phoenix.StatusOK, joinResponse(&step.State))
		p.closeReplaced(ch, o)
	}
	if step.Gap {
		p.event(o, ch, "gap", appendGap(nil, step))
	}
	for _, f := range step.Frames {
		p.message(o, ch, f)
	}
	if step.CaughtUp {
		p.event(o, ch, "caught_up", appendCaughtUp(nil, step))
	}
	if step.Tombstone {
		p.event(o, ch, "tombstone", []byte(tombstone))
	}
}

func (p *channels) closeReplaced(ch *channel, o *output) {
	for _, ref := range ch.replaced {
		o.text(func(dst []byte) []byte {
			return phoenix.AppendEvent(dst, p.version, ref, ref, ch.topic, phoenix.EventClose, "{}")
		})
	}
	ch.replaced = nil
}

// message writes a message event, whose parts but the payload are the same each
// time.
func (p *channels) message(o *output, ch *channel, f *stream.Frame) {
	if ch.opening == nil {
		ch.opening = phoenix.AppendOpening(nil, p.version, ch.joinRef, phoenix.Ref{}, ch.topic, "message")
	}
	closing := "]"
	if p.version == phoenix.V1 {
		closing = `,"ref":null}`
	}
	o.buf = appendHeader(o.buf, frameText, len(ch.opening)+len(f.Payload)+len(closing))
	o.buf = append(o.buf, ch.opening...)
	o.body(f.Payload, closing)
	o.sent++
}

func (p *channels) event(o *output, ch *channel, name string, payload []byte) {
	o.text(func(dst []byte) []byte {
		return phoenix.AppendEvent(dst, p.version, ch.joinRef, phoenix.Ref{}, ch.topic, name, string(payload))
	})
}

// tell writes an event of the protocol about a whole channel.
func (p *channels) tell(o *output, ch *channel, event string) {
	o.text(func(dst []byte) []byte {
		return phoenix.AppendEvent(dst, p.version, ch.joinRef, ch.joinRef, ch.topic, event, "{}")
	})
}

func (p *channels) refuse(o *output, joinRef phoenix.Ref, f *phoenix.Frame, reason string) {
	p.reply(o, joinRef, f.Ref, f.Topic, phoenix.StatusError, `{"reason":"`+reason+`"}`)
}

func (p *channels) reply(o *output, joinRef, ref phoenix.Ref, topic, status, response string) {
	o.text(func(dst []byte) []byte {
		return phoenix.AppendReply(dst, p.version, joinRef, ref, topic, status, response)
	})
	o.full()
}

func (p *channels) beat(silent int64, _ *output) *goodbye {
	if silent > int64(p.link.server.cfg.IdleTimeout.Seconds()) {
		return &goodbye{code: codeGoingAway, reason: "no heartbeat came", cause: causeSilent}
	}
	return nil
}

func (p *channels) goodbye(g *goodbye) []byte { return appendClose(nil, g.code, g.reason) }

func (p *channels) leave() {
	for _, ch := range p.joined {
		ch.cursor.Leave()
	}
}

func (p *channels) closed() { _ = p.ws.CloseNow() }
