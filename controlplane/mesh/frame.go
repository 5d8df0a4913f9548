package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame of the handshake is a header and a body:
//
//	magic "\xfbFPM" | version u8 | type u8 | length of the body u16, big endian
//
// Integers are big endian, strings carry a length byte. The header and the
// reject frame keep their form in every version, so that two versions can tell
// each other apart and say so.
const (
	protocolVersion = 1

	headerBytes  = 8
	maxBody      = 1 << 10
	nonceBytes   = 32
	macBytes     = 32
	maxDetail    = 200
	maxFrame     = headerBytes + maxBody
	tlsHandshake = 0x16 // first byte of a TLS ClientHello
)

// magic starts every frame. Its first byte is neither text nor a TLS record.
var magic = [4]byte{0xfb, 'F', 'P', 'M'}

type frameType uint8

const (
	frameHello frameType = iota + 1
	frameChallenge
	frameProof
	frameWelcome
	frameReject
)

// Frames that are not what the handshake expects. These never leave the
// package without a sentinel around them.
var (
	errMalformed = errors.New("malformed frame")
	errNotMagic  = errors.New("not a mesh frame")
	errTLSHello  = errors.New("a TLS handshake")
	errOversized = errors.New("oversized frame")
)

// rawFrame is a frame as it was on the wire, header included.
type rawFrame []byte

func (f rawFrame) version() uint8  { return f[4] }
func (f rawFrame) kind() frameType { return frameType(f[5]) }
func (f rawFrame) body() []byte    { return f[headerBytes:] }

// readFrame reads exactly one frame, never a byte more: what follows belongs
// to the protocol that owns the connection next. The body of a frame of
// another version is left unread unless it is a reject. An io error before the
// first byte is returned as it is, so that a peer that said nothing can be told
// from one that broke off.
func readFrame(r io.Reader) (rawFrame, error) {
	frame := make([]byte, headerBytes, maxFrame)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	if [4]byte(frame[:4]) != magic {
		if frame[0] == tlsHandshake && frame[1] == 3 {
			return nil, errTLSHello
		}
		return nil, errNotMagic
	}
	f := rawFrame(frame)
	if f.version() != protocolVersion && f.kind() != frameReject {
		return f, nil
	}
	length := int(binary.BigEndian.Uint16(frame[6:]))
	if length > maxBody {
		return nil, errOversized
	}
	frame = frame[:headerBytes+length]
	if _, err := io.ReadFull(r, frame[headerBytes:]); err != nil {
		return nil, fmt.Errorf("body: %w", noEOF(err))
	}
	return frame, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// encoder builds one frame. Callers keep strings within 255 bytes.
type encoder struct{ buf []byte }

func newFrame(t frameType) *encoder {
	buf := make([]byte, 0, 512)
	buf = append(buf, magic[:]...)
	return &encoder{append(buf, protocolVersion, byte(t), 0, 0)}
}

func (e *encoder) uint8(v uint8) *encoder {
	e.buf = append(e.buf, v)
	return e
}

func (e *encoder) string(s string) *encoder {
	s = s[:min(len(s), 255)]
	e.buf = append(append(e.buf, byte(len(s))), s...)
	return e
}

func (e *encoder) bytes(b []byte) *encoder {
	e.buf = append(e.buf, b...)
	return e
}

// frame fills in the length and returns the frame.
func (e *encoder) frame() rawFrame {
	binary.BigEndian.PutUint16(e.buf[6:], uint16(len(e.buf)-headerBytes))
	return e.buf
}

// decoder reads a body. The first error sticks; finish returns it, or an error
// when bytes are left.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.rest) < n {
		d.bad = true
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uint8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) string() string { return string(d.take(int(d.uint8()))) }

func (d *decoder) finish() error {
	if d.bad || len(d.rest) > 0 {
		return errMalformed
	}
	return nil
}
