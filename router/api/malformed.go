package api

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
)

// net/http answers what it cannot parse by itself, in plain text and before any
// handler. The listener here gives those answers the body that all failures
// have. It knows them by the header that only they have.

// plainErrorHeader follows the status line of the answers of net/http to
// malformed requests.
var plainErrorHeader = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

const (
	statusLinePrefix = "HTTP/1.1 "
	// maxPlainErrorBytes is more than any of those answers takes.
	maxPlainErrorBytes = 512
)

// malformedKinds maps the statuses that net/http answers on its own.
var malformedKinds = map[int]*kind{
	http.StatusBadRequest:                  kindBadProtocol,
	http.StatusRequestHeaderFieldsTooLarge: kindHeaderTooLarge,
	http.StatusExpectationFailed:           kindExpectation,
	http.StatusNotImplemented:              kindUnsupportedCoding,
	http.StatusHTTPVersionNotSupported:     kindUnsupportedVersion,
}

type jsonErrorListener struct{ net.Listener }

func (l jsonErrorListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return jsonErrorConn{c}, nil
}

type jsonErrorConn struct{ net.Conn }

// Write passes everything through except an answer of net/http itself.
func (c jsonErrorConn) Write(b []byte) (int, error) {
	if len(b) > maxPlainErrorBytes {
		return c.Conn.Write(b)
	}
	k := plainErrorKind(b)
	if k == nil {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(malformedAnswer(k)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Hijacked implements socket.Hijackable: streams are no answers.
func (c jsonErrorConn) Hijacked() net.Conn { return c.Conn }

// CloseWrite lets net/http end an answer without cutting off what the client is
// still sending.
func (c jsonErrorConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// plainErrorKind tells what failure an answer of net/http itself stands for, or
// nil if it is another answer.
func plainErrorKind(b []byte) *kind {
	rest, ok := bytes.CutPrefix(b, []byte(statusLinePrefix))
	if !ok || len(rest) < 3 {
		return nil
	}
	status, err := strconv.Atoi(string(rest[:3]))
	if err != nil || status < 400 {
		return nil
	}
	line := bytes.IndexByte(rest, '\r')
	if line < 0 {
		return nil
	}
	// The answer to an unknown expectation has an ordinary header and no body;
	// no handler answers 417.
	if status != http.StatusExpectationFailed && !bytes.HasPrefix(rest[line:], plainErrorHeader) {
		return nil
	}
	return malformedKinds[status]
}

func malformedAnswer(k *kind) []byte {
	body := (&failure{kind: k}).appendJSON(nil, "")
	answer := fmt.Appendf(nil, "%s%d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		statusLinePrefix, k.status, http.StatusText(k.status), len(body))
	return append(answer, body...)
}
