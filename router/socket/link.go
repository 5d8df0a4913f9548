package socket

import (
	"errors"
	"os"
	"sync"

	"github.com/fastpaca/fastpaca/router/stream"
)

// protocol is what differs between transports. Its methods but listen are called
// by whoever owns the link at the time: the session's work, and after that has
// ended the goroutine that listens.
type protocol interface {
	// start makes what the client asked for by connecting ready. It is called
	// once, before the link has goroutines.
	start()
	// listen reads what the client sends until the connection ends, and returns
	// what is to be said before it is closed; nil when there is nobody to say it
	// to.
	listen() *goodbye
	// orders does what the client has asked for since.
	orders(o *output)
	// step writes what a cursor has for the client.
	step(c *stream.Cursor, o *output)
	// beat is called every beatSeconds. silent is for how many seconds the
	// client has not been heard.
	beat(silent int64, o *output) *goodbye
	// goodbye returns the last bytes of the connection.
	goodbye(g *goodbye) []byte
	// leave ends all cursors.
	leave()
	// closed is the last call.
	closed()
}

// goodbye is why a connection is closed by this side.
type goodbye struct {
	code   uint16 // of the WebSocket
	reason string // for people
	cause  string // for the metrics
}

// Close codes. 1000 is never sent: old clients of Phoenix take it for the end and
// do not come back.
const (
	codeGoingAway   = 1001
	codeBroken      = 1002
	codeUnsupported = 1003
	codeInvalid     = 1007
	codeRestart     = 1012
	codeTryLater    = 1013
)

// Causes of ended connections, for the metrics.
const (
	causeClient   = "client"   // left, or was cut off
	causeSlow     = "slow"     // did not take what was sent
	causeSilent   = "silent"   // did not answer pings, or sent no heartbeats
	causeProtocol = "protocol" // sent what it must not
	causeDrain    = "drain"    // the router stops
	causeOverload = "overload"
)

// link is one connection.
//
// Goroutines: run, which listens, and the session's work. Close of the conn ends
// both.
type link struct {
	server  *Server
	kind    transport
	conn    *conn
	session *stream.Session
	proto   protocol
	slot    int // in the server's wheel

	mu    sync.Mutex // guards beat, bye and cause
	beat  bool
	bye   *goodbye
	cause string

	ended bool // owned like the protocol
}

// order has the connection closed.
func (l *link) order(g *goodbye) {
	l.mu.Lock()
	if l.bye == nil {
		l.bye = g
	}
	l.mu.Unlock()
	l.session.Poke()
}

// tick has the protocol's beat called.
func (l *link) tick() {
	l.mu.Lock()
	l.beat = true
	l.mu.Unlock()
	l.session.Poke()
}

func (l *link) asked() (beat bool, bye *goodbye) {
	l.mu.Lock()
	defer l.mu.Unlock()
	beat, l.beat = l.beat, false
	return beat, l.bye
}

// blame remembers why the connection ends; the first cause counts.
func (l *link) blame(cause string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == "" {
		l.cause = cause
	}
}

// work writes until nothing is left to be written. It is the session's work.
func (l *link) work() {
	if l.ended {
		return
	}
	o := l.server.borrow(l.conn)
	defer l.server.giveBack(l, o)
	for {
		beat, bye := l.asked()
		if beat && bye == nil {
			bye = l.proto.beat(l.conn.clock.Load()-l.conn.heard.Load(), o)
		}
		if bye != nil {
			o.flush()
			l.say(bye)
			return
		}
		l.proto.orders(o)
		c := l.session.Next(&o.step)
		if c != nil {
			l.proto.step(c, o)
			if o.news.IsZero() {
				o.news = o.step.News
			}
			o.full()
		} else {
			o.flush()
		}
		if o.err != nil {
			l.end()
			if errors.Is(o.err, os.ErrDeadlineExceeded) {
				l.blame(causeSlow)
			}
			if !errors.Is(o.err, errSealed) {
				_ = l.conn.Close()
			}
			return
		}
		if c == nil {
			return
		}
	}
}

// end has nothing more written.
func (l *link) end() {
	l.ended = true
	l.session.Stop()
}

// say sends the last frame.
func (l *link) say(g *goodbye) {
	l.end()
	l.blame(g.cause)
	_ = l.conn.seal(l.proto.goodbye(g), l.server.cfg.CloseTimeout)
	if l.kind == transportEvents {
		l.conn.finish() // it has no close frame: the end is how its client knows
	}
}

// run listens until the connection ends, and takes it down.
func (l *link) run() {
	g := l.proto.listen()
	l.conn.hurry(l.server.cfg.CloseTimeout)
	l.session.Close()
	l.proto.leave()
	if g != nil && !l.ended {
		l.say(g)
	}
	l.conn.linger(l.server.cfg.CloseTimeout)
	_ = l.conn.Close()
	l.proto.closed()
	l.blame(causeClient)
	l.server.forget(l)
}
