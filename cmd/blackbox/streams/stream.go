package streams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// Transport is one of the ways to follow a conversation.
type Transport string

// The transports.
const (
	WebSocket Transport = "websocket"
	SSE       Transport = "sse"
	Phoenix   Transport = "phoenix"
)

// Transports are all of them.
func Transports() []Transport { return []Transport{WebSocket, SSE, Phoenix} }

// Event is what a stream tells. Which fields are set depends on Type, which is
// "message", "caught_up", "tombstone" or "gap".
type Event struct {
	Type     string          `json:"type"`
	Seq      uint64          `json:"seq"`
	Version  uint64          `json:"version"`
	Message  json.RawMessage `json:"message"` // the bytes that came
	Expected uint64          `json:"expected"`
	Actual   uint64          `json:"actual"`
	// ID is the id of a Server-Sent Event, empty if it has none.
	ID string `json:"-"`
}

// Options say how to follow. The zero value follows from now on.
type Options struct {
	// From is the first sequence wanted; 0 leaves it out.
	From uint64
	// RawFrom is sent in place of From, escaped and not checked, in the query of a
	// WebSocket or of Server-Sent Events.
	RawFrom string
	// Resume is the last sequence seen, for the way of a transport to name it:
	// the header Last-Event-ID, or the join parameter cursor. A native WebSocket
	// has none: it takes From. Nil leaves it out.
	Resume *uint64
	// Headers are sent with the request that becomes the stream.
	Headers []client.Header
	// ReadBuffer bounds what the kernel may hold for the client, in bytes; 0
	// leaves that to the kernel.
	ReadBuffer int
	// Compress offers compression, where the transport has it.
	Compress bool
}

// Stream is an open stream of one conversation. One goroutine uses it.
type Stream interface {
	// Next returns what comes next. It returns *ClosedError once the server has
	// ended the stream, and after that, or when ctx has ended, only errors.
	Next(ctx context.Context) (Event, error)
	// Close cuts the connection off.
	Close()
}

// ClosedError reports that a connection has ended.
type ClosedError struct {
	// Code is that of the server's close frame, 0 if none came.
	Code   int
	Reason string
	Cause  error
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("the stream was closed with code %d (%s): %v", e.Code, e.Reason, e.Cause)
}

// Unwrap returns the cause.
func (e *ClosedError) Unwrap() error { return e.Cause }

// ErrUnreachable is matched by errors of requests that nobody answered.
var ErrUnreachable = errors.New("no server answered")

// RefusedError reports that a request was answered in place of becoming a
// stream.
type RefusedError struct{ Reply client.Reply }

func (e *RefusedError) Error() string { return "no stream: " + e.Reply.String() }

// Open follows a conversation of the server at base. An answer of HTTP is a
// *RefusedError, a refused join a *JoinError.
func Open(ctx context.Context, kind Transport, base, id string, o Options) (Stream, error) {
	switch kind {
	case WebSocket:
		return openWebSocket(ctx, base, id, o)
	case SSE:
		return openEvents(ctx, base, id, o)
	case Phoenix:
		return openChannel(ctx, base, id, o)
	}
	return nil, fmt.Errorf("no transport is called %q", kind)
}

// dialTimeout bounds connecting, so that a listener that does not accept fails
// the one who dials.
const dialTimeout = 20 * time.Second

// httpClient returns a client for one connection.
func (o *Options) httpClient() *http.Client {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if tcp, ok := conn.(*net.TCPConn); ok && o.ReadBuffer > 0 {
				err = tcp.SetReadBuffer(o.ReadBuffer)
			}
			return conn, err
		},
	}}
}

func (o *Options) header() http.Header {
	h := http.Header{}
	for _, one := range o.Headers {
		h.Add(one.Name, one.Value)
	}
	return h
}

func (o *Options) query() string {
	switch {
	case o.RawFrom != "":
		return "?from=" + url.QueryEscape(o.RawFrom)
	case o.From == 0:
		return ""
	}
	return fmt.Sprintf("?from=%d", o.From)
}

// dialWebSocket upgrades a request. The target is an escaped path with its query.
func dialWebSocket(ctx context.Context, base, target string, o Options, subprotocols ...string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	options := &websocket.DialOptions{HTTPClient: o.httpClient(), HTTPHeader: o.header(), Subprotocols: subprotocols}
	if o.Compress {
		options.CompressionMode = websocket.CompressionNoContextTakeover
	}
	conn, reply, err := websocket.Dial(ctx, base+target, options)
	if err != nil {
		return nil, refused(reply, err)
	}
	conn.SetReadLimit(-1)
	return conn, nil
}

// refused makes an answer a RefusedError, if there is one.
func refused(reply *http.Response, err error) error {
	switch {
	case reply == nil:
		return fmt.Errorf("open a stream: %w: %w", ErrUnreachable, err)
	case reply.StatusCode == http.StatusSwitchingProtocols:
		return fmt.Errorf("open a stream: %w", err)
	}
	body, err := io.ReadAll(reply.Body)
	_ = reply.Body.Close()
	if err != nil {
		return fmt.Errorf("open a stream: answer %d: %w", reply.StatusCode, err)
	}
	return &RefusedError{client.Reply{Status: reply.StatusCode, Header: reply.Header, Body: body}}
}

// readFrame reads a data frame, which servers of streams send as text only.
func readFrame(ctx context.Context, conn *websocket.Conn) ([]byte, error) {
	kind, data, err := conn.Read(ctx)
	if err != nil {
		return nil, closed(err)
	}
	if kind != websocket.MessageText {
		return nil, fmt.Errorf("a binary frame of %d bytes came", len(data))
	}
	return data, nil
}

func closed(err error) error {
	var frame websocket.CloseError
	if errors.As(err, &frame) {
		return &ClosedError{Code: int(frame.Code), Reason: frame.Reason, Cause: err}
	}
	return &ClosedError{Cause: err}
}

type webSocket struct{ conn *websocket.Conn }

func openWebSocket(ctx context.Context, base, id string, o Options) (Stream, error) {
	conn, err := dialWebSocket(ctx, base, client.Path(id)+"/stream"+o.query(), o)
	if err != nil {
		return nil, err
	}
	return &webSocket{conn}, nil
}

func (w *webSocket) Next(ctx context.Context) (Event, error) {
	data, err := readFrame(ctx, w.conn)
	if err != nil {
		return Event{}, err
	}
	return decodeEvent(data)
}

func (w *webSocket) Close() { _ = w.conn.CloseNow() }

// decodeEvent decodes an event whose type is among its members.
func decodeEvent(data []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return Event{}, fmt.Errorf("decode event %.200q: %w", data, err)
	}
	if !strings.Contains(" message caught_up tombstone gap ", " "+e.Type+" ") {
		return Event{}, fmt.Errorf("unknown type of event %.200q", data)
	}
	return e, nil
}
