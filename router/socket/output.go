package socket

import (
	"encoding/binary"
	"time"

	"github.com/fastpaca/fastpaca/router/stream"
)

const (
	// flushBytes is how much is gathered before it is written.
	flushBytes = 32 << 10
	// maxPooledBytes bounds the buffers that go back to the pool.
	maxPooledBytes = 64 << 10
	// directBytes is the size from which a payload is written from where it is,
	// without a copy.
	directBytes = 16 << 10
)

// output gathers frames for one connection. It is pooled: a connection has one
// only while it writes.
type output struct {
	conn *conn
	buf  []byte
	err  error // the first; everything after it is dropped
	sent uint64
	news time.Time // when the oldest news among them arrived, or zero
	step stream.Step
}

// flush writes what was gathered.
func (o *output) flush() {
	if len(o.buf) > 0 && o.err == nil {
		o.err = o.conn.send(o.buf)
	}
	o.buf = o.buf[:0]
}

// body appends a payload and what follows it.
func (o *output) body(payload []byte, tail string) {
	if len(payload) < directBytes {
		o.buf = append(o.buf, payload...)
		o.buf = append(o.buf, tail...)
	} else {
		if o.err == nil {
			o.err = o.conn.send(o.buf, payload, []byte(tail))
		}
		o.buf = o.buf[:0]
	}
	o.full()
}

// full writes when enough has gathered.
func (o *output) full() {
	if len(o.buf) >= flushBytes {
		o.flush()
	}
}

// First bytes of WebSocket frames, all of them whole messages.
const (
	frameText     = 0x81
	frameDeflated = 0xc1
	frameClose    = 0x88
	framePing     = 0x89
)

// appendHeader appends the header of an unmasked WebSocket frame.
func appendHeader(dst []byte, first byte, size int) []byte {
	switch {
	case size < 126:
		return append(dst, first, byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(size))
	}
	return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(size))
}

// text appends a text frame: write appends the text to what it is given.
func (o *output) text(write func(dst []byte) []byte) {
	const reserved = 4 // the header of most
	at := len(o.buf)
	o.buf = write(append(o.buf, 0, 0, 0, 0))
	size := len(o.buf) - at - reserved
	var room [10]byte
	header := appendHeader(room[:0], frameText, size)
	if more := len(header) - reserved; more > 0 {
		o.buf = append(o.buf, room[:more]...)
	}
	copy(o.buf[at+len(header):], o.buf[at+reserved:at+reserved+size])
	copy(o.buf[at:], header)
	o.buf = o.buf[:at+len(header)+size]
}

// appendClose appends a close frame.
func appendClose(dst []byte, code uint16, reason string) []byte {
	const maxReason = 123
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	dst = appendHeader(dst, frameClose, 2+len(reason))
	dst = binary.BigEndian.AppendUint16(dst, code)
	return append(dst, reason...)
}
