package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// feed follows one conversation over a connection of its own and does as little
// as a client can do: it looks at the first bytes of each frame, which hold the
// sequence, and skips the rest. Every message must follow the one before. Not
// safe for concurrent use, but for close.
type feed struct {
	conn   net.Conn
	reader *bufio.Reader
	read   func(*feed) (notice, error)

	known bool   // whether last means anything
	last  uint64 // sequence read last
	bytes int64  // of frames read, headers included
}

// notice is what a feed tells.
type notice struct {
	caughtUp bool // else a message
	seq      uint64
}

// transport opens feeds.
type transport struct {
	name   string
	target string // under the conversation
	header string // lines of the request
	status int    // of the answer
	read   func(*feed) (notice, error)
}

var transports = []transport{
	{name: "WebSocket", target: "/stream", status: 101, read: (*feed).readFrame, header: "Connection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZmFzdHBhY2EtYmVuY2gtMQ==\r\n"},
	{name: "SSE", target: "/events", status: 200, read: (*feed).readEvent, header: "Accept: text/event-stream\r\n"},
}

// overWebSocket is what most benchmarks follow over.
var overWebSocket = transports[0]

// Sizes of the buffer of a feed: of one that mostly waits, and of one that has
// to keep up. The first holds any line of an answer's header.
const (
	idleBuffer = 4 << 10
	busyBuffer = 64 << 10
)

// follow opens a feed from a sequence on, or from now on when it is 0; then it
// returns once that now is over.
func (t transport) follow(ctx context.Context, address, id string, from uint64, buffer int) (*feed, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	f := &feed{conn: conn, reader: bufio.NewReaderSize(conn, buffer), read: t.read}
	if err := f.open(t, address, id, from); err != nil {
		f.close()
		return nil, fmt.Errorf("%s of %s: %w", t.name, id, err)
	}
	return f, nil
}

func (f *feed) open(t transport, address, id string, from uint64) error {
	target := path(id) + t.target
	if from > 0 {
		target += "?from=" + strconv.FormatUint(from, 10)
	}
	if err := f.conn.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f.conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", target, address, t.header); err != nil {
		return err
	}
	if err := f.readHeader(t.status); err != nil {
		return err
	}
	if f.known, f.last = from > 0, max(from, 1)-1; !f.known {
		for caughtUp := false; !caughtUp; {
			n, err := f.next()
			if err != nil {
				return err
			}
			caughtUp = n.caughtUp
		}
	}
	return f.conn.SetDeadline(time.Time{})
}

var errChunked = errors.New("answer in chunks, which feeds do not read")

func (f *feed) readHeader(want int) error {
	line, err := f.reader.ReadSlice('\n')
	if err != nil {
		return err
	}
	status, err := parseStatus(line)
	if err != nil {
		return err
	}
	if status != want {
		return fmt.Errorf("answered %d", status)
	}
	for {
		if line, err = f.reader.ReadSlice('\n'); err != nil {
			return err
		}
		if bytes.HasPrefix(bytes.ToLower(line), []byte("transfer-encoding:")) {
			return errChunked
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return nil
		}
	}
}

func (f *feed) close() { _ = f.conn.Close() }

var errDisorder = errors.New("a message was left out, repeated or out of order")

// next returns the next message, or that the feed has caught up. Tombstones and
// gaps are errors: nobody makes any here.
func (f *feed) next() (notice, error) {
	n, err := f.read(f)
	if err != nil {
		return n, err
	}
	if n.caughtUp {
		f.known, f.last = true, max(f.last, n.seq)
		return n, nil
	}
	if f.known && n.seq != f.last+1 {
		return n, fmt.Errorf("%w: %d after %d", errDisorder, n.seq, f.last)
	}
	f.known, f.last = true, n.seq
	return n, nil
}

// Opcodes of WebSocket frames; every message is one frame.
const (
	wholeText  = 0x81
	wholeClose = 0x88
	wholePing  = 0x89
	wholePong  = 0x8a
	masked     = 0x80
	maxControl = 125
)

// openingBytes is enough of a frame to tell what it is about.
const openingBytes = 64

// readFrame reads WebSocket frames up to one that is about messages, and answers
// pings.
func (f *feed) readFrame() (notice, error) {
	for {
		first, size, err := f.frameHeader()
		if err != nil {
			return notice{}, err
		}
		switch {
		case first == wholeText:
			opening, err := f.reader.Peek(min(size, openingBytes))
			if err != nil {
				return notice{}, err
			}
			n, err := parsePayload(opening)
			if err != nil {
				return notice{}, err
			}
			_, err = f.reader.Discard(size)
			return n, err
		case first == wholePing && size <= maxControl:
			if err := f.pong(size); err != nil {
				return notice{}, err
			}
		case first == wholeClose && size >= 2 && size <= maxControl:
			reason, err := f.reader.Peek(size)
			if err != nil {
				return notice{}, err
			}
			return notice{}, fmt.Errorf("closed with %d %s", binary.BigEndian.Uint16(reason), reason[2:])
		default:
			return notice{}, fmt.Errorf("frame %#x of %d bytes", first, size)
		}
	}
}

// maxFrame bounds what counts as a frame.
const maxFrame = 16 << 20

// frameHeader reads the header of a frame: its first byte and the size of the
// payload.
func (f *feed) frameHeader() (first byte, size int, err error) {
	head, err := f.reader.Peek(2)
	if err != nil {
		return 0, 0, err
	}
	first, length := head[0], head[1]
	header := 2
	switch {
	case length < 126:
		size = int(length)
	case length == 126:
		header = 4
		if head, err = f.reader.Peek(header); err != nil {
			return 0, 0, err
		}
		size = int(binary.BigEndian.Uint16(head[2:]))
	case length == 127:
		header = 10
		if head, err = f.reader.Peek(header); err != nil {
			return 0, 0, err
		}
		long := binary.BigEndian.Uint64(head[2:])
		if long > maxFrame {
			return 0, 0, fmt.Errorf("frame of %d bytes", long)
		}
		size = int(long)
	default:
		return 0, 0, errors.New("the server masks a frame")
	}
	f.bytes += int64(header + size)
	_, err = f.reader.Discard(header)
	return first, size, err
}

// pong answers a ping. The mask is 0, which leaves the payload as it is.
func (f *feed) pong(size int) error {
	payload, err := f.reader.Peek(size)
	if err != nil {
		return err
	}
	answer := append([]byte{wholePong, masked | byte(size), 0, 0, 0, 0}, payload...)
	if _, err := f.reader.Discard(size); err != nil {
		return err
	}
	_, err = f.conn.Write(answer)
	return err
}

var (
	messageOpening  = []byte(`{"type":"message","seq":`)
	caughtUpOpening = []byte(`{"type":"caught_up","seq":`)
)

// parsePayload reads what a frame is about from its first bytes.
func parsePayload(opening []byte) (notice, error) {
	if digits, ok := bytes.CutPrefix(opening, messageOpening); ok {
		seq, err := parseDigits(digits)
		return notice{seq: seq}, err
	}
	if digits, ok := bytes.CutPrefix(opening, caughtUpOpening); ok {
		seq, err := parseDigits(digits)
		return notice{caughtUp: true, seq: seq}, err
	}
	return notice{}, fmt.Errorf("unexpected frame %q", opening)
}

// parseDigits reads the number that a text begins with.
func parseDigits(text []byte) (n uint64, err error) {
	const most = 19 // digits that cannot overflow
	at := 0
	for ; at < len(text) && at < most && '0' <= text[at] && text[at] <= '9'; at++ {
		n = 10*n + uint64(text[at]-'0')
	}
	if at == 0 {
		return 0, fmt.Errorf("%.20q begins with no number", text)
	}
	return n, nil
}

var (
	fieldEvent = []byte("event: ")
	fieldID    = []byte("id: ")
	fieldData  = []byte("data: ")
)

// readEvent reads Server-Sent Events up to one that is about messages.
func (f *feed) readEvent() (n notice, err error) {
	var kind string
	told := false // there was data
	for {
		line, err := f.line()
		if err != nil {
			return notice{}, err
		}
		if value, ok := bytes.CutPrefix(line, fieldData); ok {
			told = told || len(value) > 0
		} else if value, ok := bytes.CutPrefix(line, fieldID); ok {
			if n.seq, err = parseDigits(value); err != nil {
				return notice{}, err
			}
		} else if value, ok := bytes.CutPrefix(line, fieldEvent); ok {
			kind = kindOf(value)
		} else if len(line) == 0 && told {
			break
		}
	}
	switch kind {
	case "message":
		return n, nil
	case "caught_up":
		n.caughtUp = true
		return n, nil
	}
	return notice{}, fmt.Errorf("unexpected event %q", kind)
}

// kindOf avoids an allocation for what nearly all events are.
func kindOf(value []byte) string {
	if string(value) == "message" {
		return "message"
	}
	return string(value)
}

// line returns the beginning of the next line, all of it if it fits into the
// buffer.
func (f *feed) line() ([]byte, error) {
	line, err := f.reader.ReadSlice('\n')
	f.bytes += int64(len(line))
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimRight(line, "\r\n"), err
	}
	opening := bytes.Clone(line[:openingBytes])
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = f.reader.ReadSlice('\n')
		f.bytes += int64(len(line))
	}
	return opening, err
}
