package socket

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// errSealed: the last frame of the connection has been sent.
var errSealed = errors.New("connection is closing")

// conn is a connection taken over from net/http. Each write is whole frames and
// goes out undivided, whichever goroutine makes it: the writer of the link, or
// the WebSocket library answering a ping or a close.
type conn struct {
	net.Conn
	timeout time.Duration
	clock   *atomic.Int64 // seconds, coarse
	heard   atomic.Int64  // when the client was last heard, by clock
	rest    []byte        // read by net/http beyond the request; owned by the reader

	lost    atomic.Bool // a read, or a write of the library, has failed
	answer  atomic.Bool // the library has sent a close frame
	closing atomic.Bool // set before the connection is given up: no more patience
	done    chan struct{}
	once    sync.Once

	mu     sync.Mutex // guards sealed and the order of writes
	sealed bool
}

// Read reads what the client sends. One goroutine does.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	c.rest = nil
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(c.clock.Load())
	}
	if err != nil {
		c.lost.Store(true)
	}
	return n, err
}

const opcodeClose = 8

// Write is for the WebSocket library, which writes nothing but control frames
// here, one with each call.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return 0, errSealed
	}
	if len(p) > 0 && p[0]&0x0f == opcodeClose {
		c.sealed = true
		c.answer.Store(true)
	}
	if err := c.writeAll(p); err != nil {
		c.lost.Store(true)
		return 0, err
	}
	return len(p), nil
}

// send writes the parts one after the other.
func (c *conn) send(parts ...[]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return errSealed
	}
	for _, p := range parts {
		if err := c.writeAll(p); err != nil {
			c.sealed = true // half a frame may be out
			return err
		}
	}
	return nil
}

// seal sends the last bytes of the connection and gives the client until the
// timeout to answer.
func (c *conn) seal(last []byte, answer time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return errSealed
	}
	c.sealed = true
	c.closing.Store(true)
	_ = c.SetReadDeadline(time.Now().Add(answer))
	return c.writeAll(last)
}

// writeAll writes as long as the client takes something before each timeout.
func (c *conn) writeAll(p []byte) error {
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return err
		}
		n, err := c.Conn.Write(p)
		if err == nil {
			return nil
		}
		p = p[n:]
		if n == 0 || c.closing.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// hurry ends the patience with a client: a write under way fails soon.
func (c *conn) hurry(within time.Duration) {
	c.closing.Store(true)
	_ = c.SetWriteDeadline(time.Now().Add(within))
}

// maxLingerBytes bounds what a client may go on sending to a closed connection.
const maxLingerBytes = 4 << 20

// linger lets the client read what was sent last. Closing with input unread
// would reset the connection and take it away.
func (c *conn) linger(timeout time.Duration) {
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	c.finish()
	_, _ = io.CopyN(io.Discard, c.Conn, maxLingerBytes)
}

// finish tells the client that nothing more comes, where the connection can be
// closed by halves.
func (c *conn) finish() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// Close closes the connection; more than once does no harm.
func (c *conn) Close() (err error) {
	c.once.Do(func() {
		close(c.done)
		err = c.Conn.Close()
	})
	return err
}

// Hijackable is implemented by connections that rewrite answers of HTTP and must
// be out of the way once a connection carries something else.
type Hijackable interface {
	// Hijacked returns the connection beneath.
	Hijacked() net.Conn
}

// Sizes of the buffers of a connection. Those of net/http are 4 KiB each, held
// for as long as the connection lives.
const (
	readBufferBytes  = 512
	writeBufferBytes = 256 // more than a control frame
)

// takeover is the response writer of a request whose connection is taken over.
type takeover struct {
	http.ResponseWriter
	server *Server
	conn   *conn // once taken over
}

// Hijack implements http.Hijacker.
func (t *takeover) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, buffered, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	rest, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	if h, ok := raw.(Hijackable); ok {
		raw = h.Hijacked()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		// Bounds what a client that does not read costs in the kernel.
		_ = tcp.SetWriteBuffer(t.server.cfg.SendBuffer)
		limitUnacknowledged(tcp)
	}
	c := &conn{Conn: raw, timeout: t.server.cfg.WriteTimeout, clock: &t.server.clock, rest: bytes.Clone(rest), done: make(chan struct{})}
	c.heard.Store(c.clock.Load())
	t.conn = c
	return c, bufio.NewReadWriter(bufio.NewReaderSize(c, readBufferBytes), bufio.NewWriterSize(c, writeBufferBytes)), nil
}
