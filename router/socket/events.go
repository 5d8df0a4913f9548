package socket

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream"
)

// Events streams the conversation from a sequence on, or from now on when it is
// 0, as Server-Sent Events. It returns before the stream ends. An error means
// that nothing was answered yet. The caller has checked the origin, and set the
// headers that all its answers have.
//
// The answer has no length and no chunks: it ends with the connection.
func (s *Server) Events(w http.ResponseWriter, r *http.Request, key rpc.Key, from uint64) error {
	if r.ProtoMajor != 1 {
		return &HandshakeError{http.StatusHTTPVersionNotSupported, "events are sent in HTTP/1 only"}
	}
	done, err := s.begin(r.Context(), key)
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache, no-transform")
	header.Set("Connection", "close")
	header.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		done(false)
		return nil
	}
	t := &takeover{ResponseWriter: w, server: s}
	if _, _, err := t.Hijack(); err != nil {
		done(false)
		return fmt.Errorf("%w: %w", errHijack, err)
	}
	var opening bytes.Buffer
	opening.WriteString("HTTP/1.1 200 OK\r\n")
	_ = header.Write(&opening) // a bytes.Buffer takes everything
	fmt.Fprintf(&opening, "\r\nretry: %d\n\n", retryMin+rand.IntN(retryMin))
	if err := t.conn.send(opening.Bytes()); err != nil {
		_ = t.conn.Close()
		done(false)
		return nil // there is nobody left to tell
	}
	s.link(transportEvents, t.conn, func(l *link) protocol {
		return &events{single{link: l, key: key, from: from}}
	})
	done(true)
	return nil
}

// retryMin is the shortest time after which a client is told to come back, in
// milliseconds; the longest is twice that.
const retryMin = 1000

// events is the protocol of Server-Sent Events.
type events struct{ single }

// listen waits for the client to leave. It has nothing to say.
func (e *events) listen() *goodbye {
	var ignored [64]byte
	for heard := 0; heard < maxLingerBytes; {
		n, err := e.link.conn.Read(ignored[:])
		if err != nil {
			return nil
		}
		heard += n
	}
	return &goodbye{cause: causeProtocol}
}

func (e *events) step(_ *stream.Cursor, o *output) {
	step := &o.step
	if step.Failed {
		e.link.order(notNow)
		return
	}
	if step.Gap {
		o.buf = appendEvent(o.buf, "gap", step.Actual-1, true)
		o.buf = append(appendGap(o.buf, step), "\n\n"...)
	}
	for _, f := range step.Frames {
		o.buf = appendEvent(o.buf, "message", f.Seq, true)
		if bytes.IndexByte(f.Payload, '\n') < 0 && bytes.IndexByte(f.Payload, '\r') < 0 {
			o.body(f.Payload, "\n\n")
		} else {
			o.buf = append(appendLines(o.buf, f.Payload), "\n\n"...)
			o.full()
		}
		o.sent++
	}
	if step.CaughtUp {
		// The id lets a client that joined from now on come back to where it
		// joined, even if it has seen no message.
		o.buf = appendEvent(o.buf, "caught_up", step.Resume-1, true)
		o.buf = append(appendCaughtUp(o.buf, step), "\n\n"...)
	}
	if step.Tombstone {
		o.buf = appendEvent(o.buf, "tombstone", 0, false)
		o.buf = append(append(o.buf, tombstone...), "\n\n"...)
	}
}

func appendEvent(dst []byte, name string, id uint64, identified bool) []byte {
	dst = append(dst, "event: "...)
	dst = append(dst, name...)
	if identified {
		dst = append(dst, "\nid: "...)
		dst = strconv.AppendUint(dst, id, 10)
	}
	return append(dst, "\ndata: "...)
}

// appendLines appends a payload that holds line breaks, which can only be white
// space of JSON, as lines of data.
func appendLines(dst, payload []byte) []byte {
	for i, b := range payload {
		switch {
		case b == '\n' && i > 0 && payload[i-1] == '\r':
		case b == '\n', b == '\r':
			dst = append(dst, "\ndata: "...)
		default:
			dst = append(dst, b)
		}
	}
	return dst
}

// beat sends a comment, which keeps proxies from closing the connection.
func (e *events) beat(_ int64, o *output) *goodbye {
	o.buf = append(o.buf, ":\n\n"...)
	return nil
}

// goodbye spreads those that are sent away.
func (e *events) goodbye(*goodbye) []byte {
	return fmt.Appendf(nil, "retry: %d\n\n", retryMin+rand.IntN(2*retryMin))
}

func (e *events) closed() {}
