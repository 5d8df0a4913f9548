package socket

import (
	"github.com/coder/websocket"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream"
)

// single is what the transports share that follow one conversation and take
// nothing from the client.
type single struct {
	link   *link
	key    rpc.Key
	from   uint64
	cursor *stream.Cursor
}

// notNow closes a stream that was accepted and cannot be served after all.
var notNow = &goodbye{code: codeTryLater, reason: "the conversation cannot be followed now", cause: causeOverload}

func (s *single) start() {
	cursor, err := s.link.session.Join(s.key, s.from)
	if err != nil {
		s.link.order(notNow)
		return
	}
	s.cursor = cursor
}

func (s *single) orders(*output) {}

func (s *single) leave() {
	if s.cursor != nil {
		s.cursor.Leave()
	}
}

// broken tells apart why reading from a WebSocket ended. The client left or was
// lost, or it broke the framing: mostly the library has sent a close frame about
// that, and where it has not one is returned.
func (l *link) broken(err error) *goodbye {
	switch {
	case websocket.CloseStatus(err) != -1: // its close frame was answered
	case l.conn.answer.Load():
		l.blame(causeProtocol)
	case !l.conn.lost.Load():
		return &goodbye{code: codeBroken, reason: "broken framing", cause: causeProtocol}
	}
	return nil
}
