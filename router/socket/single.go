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

// blamePeer tells apart why reading from a WebSocket ended: unless the client
// left or was lost, the library has sent a close frame about what it sent.
func (l *link) blamePeer(err error) {
	if websocket.CloseStatus(err) == -1 && l.conn.isSealed() {
		l.blame(causeProtocol)
	}
}

func (c *conn) isSealed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sealed
}
