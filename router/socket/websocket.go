package socket

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/coder/websocket"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream"
)

// WebSocket streams the conversation from a sequence on, or from now on when it
// is 0, as the native protocol has it. It returns before the stream ends. An
// error means that nothing was answered yet; it is a HandshakeError or one of
// rpc. The caller has checked the origin.
func (s *Server) WebSocket(w http.ResponseWriter, r *http.Request, key rpc.Key, from uint64) error {
	if err := checkUpgrade(r); err != nil {
		return err
	}
	done, err := s.begin(r.Context(), key)
	if err != nil {
		return err
	}
	options := &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled}
	if !s.cfg.NoCompression {
		options.CompressionMode = websocket.CompressionNoContextTakeover
	}
	ws, c := s.accept(w, r, options)
	if ws == nil {
		done(false)
		return nil // it was answered
	}
	s.link(transportWebSocket, c, func(l *link) protocol {
		return &native{single: single{link: l, key: key, from: from}, ws: ws, deflate: w.Header().Get("Sec-WebSocket-Extensions") != ""}
	})
	done(true)
	return nil
}

// accept upgrades the request. When that fails it has been answered, and the
// result is nil.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, options *websocket.AcceptOptions) (*websocket.Conn, *conn) {
	t := &takeover{ResponseWriter: w, server: s}
	ws, err := websocket.Accept(t, r, options)
	if err != nil {
		s.cfg.Log.Debug("websocket handshake failed", "error", err)
		return nil, nil
	}
	return ws, t.conn
}

// checkUpgrade refuses what the library would, so that it can be answered as all
// failures are.
func checkUpgrade(r *http.Request) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(r.Header.Get("Sec-WebSocket-Key")))
	switch {
	case !hasToken(r.Header, "Connection", "upgrade") || !hasToken(r.Header, "Upgrade", "websocket"):
		return &HandshakeError{http.StatusUpgradeRequired, "this path takes WebSocket connections only"}
	case r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.ProtoMajor > 1:
		return &HandshakeError{http.StatusBadRequest, "a WebSocket begins with GET in HTTP/1.1"}
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return &HandshakeError{http.StatusBadRequest, "Sec-WebSocket-Version must be 13"}
	case err != nil || len(key) != 16 || len(r.Header.Values("Sec-WebSocket-Key")) > 1:
		return &HandshakeError{http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes in base64"}
	}
	return nil
}

func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// native is the protocol of one conversation on a WebSocket. The client only
// listens.
type native struct {
	single
	ws      *websocket.Conn
	deflate bool
	beats   int
}

// listen has the library answer pings and closes.
func (n *native) listen() *goodbye {
	if _, _, err := n.ws.Reader(context.Background()); err != nil {
		return n.link.broken(err)
	}
	return &goodbye{code: codeUnsupported, reason: "this stream takes no messages", cause: causeProtocol}
}

func (n *native) step(_ *stream.Cursor, o *output) {
	step := &o.step
	if step.Failed {
		n.link.order(notNow)
		return
	}
	if step.Gap {
		o.text(func(dst []byte) []byte { return appendGap(dst, step) })
	}
	for _, f := range step.Frames {
		first, payload := byte(frameText), f.Payload
		if n.deflate && len(payload) >= n.link.server.cfg.CompressAbove {
			if packed := f.Deflated(); packed != nil {
				first, payload = frameDeflated, packed
			}
		}
		o.buf = appendHeader(o.buf, first, len(payload))
		o.body(payload, "")
		o.sent++
	}
	if step.CaughtUp {
		o.text(func(dst []byte) []byte { return appendCaughtUp(dst, step) })
	}
	if step.Tombstone {
		o.text(func(dst []byte) []byte { return append(dst, tombstone...) })
	}
}

// Pings go out with every second beat. A client that answers is heard at least
// that often; one that is not heard for two pings and a half is gone.
const (
	pingBeats   = 2
	silentLimit = 5 * beatSeconds
)

func (n *native) beat(silent int64, o *output) *goodbye {
	if silent > silentLimit {
		return &goodbye{code: codeGoingAway, reason: "pings were not answered", cause: causeSilent}
	}
	if n.beats++; n.beats%pingBeats == 0 {
		o.buf = appendHeader(o.buf, framePing, 0)
	}
	return nil
}

func (n *native) goodbye(g *goodbye) []byte { return appendClose(nil, g.code, g.reason) }

func (n *native) closed() { _ = n.ws.CloseNow() }

// Payloads that all transports share.
const tombstone = `{"type":"tombstone"}`

func appendGap(dst []byte, s *stream.Step) []byte {
	dst = append(dst, `{"type":"gap","expected":`...)
	dst = strconv.AppendUint(dst, s.Expected, 10)
	dst = append(dst, `,"actual":`...)
	dst = strconv.AppendUint(dst, s.Actual, 10)
	return append(dst, '}')
}

func appendCaughtUp(dst []byte, s *stream.Step) []byte {
	dst = append(dst, `{"type":"caught_up","seq":`...)
	dst = strconv.AppendUint(dst, s.Seq, 10)
	return append(dst, '}')
}
