package fastpaca

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/fastpaca/fastpaca/sdk/go/internal/params"
)

// streamIdleTimeout is how long a stream may be silent before it is taken for
// dead: three of the server's heartbeats.
const streamIdleTimeout = 45 * time.Second

// streamBufferBytes holds a burst of ordinary messages.
const streamBufferBytes = 64 << 10

// connection is an open stream. Its watchdog ends it when the server does not
// answer or falls silent, but not while the caller is busy with an event.
type connection struct {
	frames   frames
	resp     *http.Response
	cancel   context.CancelCauseFunc
	ctx      context.Context
	watchdog *time.Timer
}

var errSilent = errors.New("nothing arrived for too long")

// connect opens a stream of events from a sequence on. Errors are *Error.
func (c *Conversation) connect(parent context.Context, from int64) (*connection, error) {
	client := c.client
	ctx, cancel := context.WithCancelCause(parent)
	url := fmt.Sprintf("%s/conversations/%s/events?from=%d", client.base, params.PathSegment(c.id), from)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel(err)
		return nil, invalid("%v", err)
	}
	client.dress(req)
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Cache-Control", "no-store")
	req.Header.Set("Accept-Encoding", "identity") // compression would hold events back

	patience := client.timeout
	if patience <= 0 {
		patience = client.idle
	}
	watchdog := time.AfterFunc(patience, func() { cancel(errSilent) })
	resp, err := client.http.Do(req)
	conn := &connection{resp: resp, cancel: cancel, ctx: ctx, watchdog: watchdog}
	if err != nil {
		watchdog.Stop()
		cancel(err)
		return nil, networkFailure(parent, conn.cause(err))
	}
	if failed := streamRefused(resp); failed != nil {
		conn.close()
		return nil, failed
	}
	conn.frames = frames{
		in:    bufio.NewReaderSize(resp.Body, streamBufferBytes),
		alive: func() { watchdog.Reset(client.idle) },
	}
	return conn, nil
}

// streamRefused returns why an answer is no stream, or nil if it is one.
func streamRefused(resp *http.Response) *Error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == "text/event-stream" {
		return nil
	}
	body := make([]byte, maxRefusalBytes)
	n, _ := readSome(resp, body)
	if resp.StatusCode == http.StatusOK {
		return &Error{Status: resp.StatusCode, Code: CodeUnexpectedResponse, Message: strangeAnswer(resp, body[:n])}
	}
	return failureOf(resp, body[:n])
}

// maxRefusalBytes is more than any error of the server's has.
const maxRefusalBytes = 16 << 10

// rest stops the watchdog while the caller has an event.
func (c *connection) rest() { c.watchdog.Stop() }

// cause says that it was the watchdog, if it was.
func (c *connection) cause(err error) error {
	if errors.Is(context.Cause(c.ctx), errSilent) {
		return errSilent
	}
	return err
}

// close ends the connection. A body that is closed before its end takes its
// connection with it.
func (c *connection) close() {
	c.watchdog.Stop()
	c.cancel(nil)
	_ = c.resp.Body.Close()
}

// readSome fills a buffer from a body as far as it goes.
func readSome(resp *http.Response, buf []byte) (int, error) {
	n, err := io.ReadFull(resp.Body, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
