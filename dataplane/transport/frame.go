package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A frame is a header and a body. All integers are little-endian.
//
//	 0  length of the body  uint32
//	 4  CRC-32C of everything after this field  uint32
//	 8  frame version  uint8
//	 9  kind  uint8
//	10  group  uint16
//	12  request id  uint64
//	20  body
const (
	headerLen    = 20
	checksumFrom = 8 // the first byte the checksum covers
	frameVersion = 1

	// minFrameLimit and maxFrameLimit bound Limits.FrameBytes.
	minFrameLimit = 64 << 10
	maxFrameLimit = 1 << 30
)

// kind says what a frame holds. A reply is its request's kind with the lowest
// bit set. The numbers are part of the protocol.
type kind uint8

const (
	kindHello kind = 0x01
	kindPing  kind = 0x02
	kindPong  kind = 0x03
	kindError kind = 0x05 // answers any request

	kindAppend          kind = 0x10
	kindAppendReply     kind = 0x11
	kindVote            kind = 0x12
	kindVoteReply       kind = 0x13
	kindPreVote         kind = 0x14
	kindPreVoteReply    kind = 0x15
	kindTimeoutNow      kind = 0x16
	kindTimeoutNowReply kind = 0x17
	kindSnapshot        kind = 0x18
	kindSnapshotReply   kind = 0x19

	kindSnapshotAccept  kind = 0x20 // receiver: send the data
	kindSnapshotWorking kind = 0x21 // receiver: still at it
	kindSnapshotData    kind = 0x22
	kindSnapshotEnd     kind = 0x23
)

func (k kind) reply() kind { return k | 1 }

func (k kind) isReply() bool { return k >= kindAppend && k <= kindSnapshotReply && k&1 == 1 }

// String returns the kind's name for logs and metrics.
func (k kind) String() string {
	switch k &^ 1 {
	case kindAppend:
		return "append"
	case kindVote:
		return "vote"
	case kindPreVote:
		return "pre-vote"
	case kindTimeoutNow:
		return "timeout-now"
	case kindSnapshot:
		return "snapshot"
	}
	return fmt.Sprintf("kind(%#x)", uint8(k))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is one decoded frame. Its body is valid until the next one is read.
type frame struct {
	kind  kind
	group uint16
	id    uint64
	body  []byte
}

// appendHeader begins a frame at the end of b; sealFrame completes it.
func appendHeader(b []byte, k kind, group uint16, id uint64) []byte {
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, frameVersion, byte(k), byte(group), byte(group>>8))
	return binary.LittleEndian.AppendUint64(b, id)
}

// sealFrame fills in the length and checksum of the frame that began at start
// and reaches to the end of b.
func sealFrame(b []byte, start int) {
	f := b[start:]
	binary.LittleEndian.PutUint32(f, uint32(len(f)-headerLen))
	binary.LittleEndian.PutUint32(f[4:], crc32.Checksum(f[checksumFrom:], castagnoli))
}

// readBufferBytes is what a connection reads at most at a time. The buffer
// grows for a larger frame and shrinks after it.
const readBufferBytes = 64 << 10

// frameReader reads frames from a stream. It reads ahead: as many frames as
// have arrived are had with one read. Not safe for concurrent use.
type frameReader struct {
	src        io.Reader
	buf        []byte
	start, end int // what is read but not yet returned
	limit      int // bound on a body
	// received, when not nil, is called after each read with its byte count.
	received func(int)
}

func newFrameReader(src io.Reader, limit int) *frameReader {
	return &frameReader{src: src, buf: make([]byte, readBufferBytes), limit: limit}
}

// next returns the next frame. The error is io.EOF at the end of the stream
// between frames, and wraps ErrProtocol when the bytes are not a frame.
func (r *frameReader) next() (frame, error) {
	if err := r.need(headerLen); err != nil {
		return frame{}, err
	}
	h := r.buf[r.start : r.start+headerLen]
	if v := h[8]; v != frameVersion {
		return frame{}, fmt.Errorf("%w: frame version %d, want %d", ErrProtocol, v, frameVersion)
	}
	size := binary.LittleEndian.Uint32(h)
	if int64(size) > int64(r.limit) {
		return frame{}, fmt.Errorf("%w: frame of %d bytes, limit %d", ErrProtocol, size, r.limit)
	}
	total := headerLen + int(size)
	if err := r.need(total); err != nil {
		return frame{}, err
	}
	raw := r.buf[r.start : r.start+total]
	r.start += total
	if got, want := crc32.Checksum(raw[checksumFrom:], castagnoli), binary.LittleEndian.Uint32(raw[4:]); got != want {
		return frame{}, fmt.Errorf("%w: checksum mismatch", ErrProtocol)
	}
	return frame{
		kind:  kind(raw[9]),
		group: binary.LittleEndian.Uint16(raw[10:]),
		id:    binary.LittleEndian.Uint64(raw[12:]),
		body:  raw[headerLen:],
	}, nil
}

// need reads until n bytes wait. The buffer grows with what has arrived, not
// with what a header promises.
func (r *frameReader) need(n int) error {
	for r.end-r.start < n {
		if err := r.fill(n); err != nil {
			if errors.Is(err, io.EOF) && r.end > r.start {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

func (r *frameReader) fill(n int) error {
	if r.start == r.end {
		r.start, r.end = 0, 0
		if len(r.buf) > readBufferBytes && n <= readBufferBytes {
			r.buf = make([]byte, readBufferBytes)
		}
	}
	if r.start+n > len(r.buf) && r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	if r.end == len(r.buf) {
		grown := make([]byte, min(n, 2*len(r.buf)))
		copy(grown, r.buf[:r.end])
		r.buf = grown
	}
	got, err := r.src.Read(r.buf[r.end:])
	r.end += got
	if got > 0 {
		if r.received != nil {
			r.received(got)
		}
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
