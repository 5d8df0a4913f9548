package transport

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"
)

// Bounds on the fields of a message; Limits.FrameBytes bounds the rest.
const (
	maxIDBytes            = 1 << 10 // ID, Addr, Leader, Candidate
	maxPeersBytes         = 1 << 20 // the deprecated Peers
	maxConfigurationBytes = 1 << 20
	// maxEntries is the most hashicorp/raft allows for MaxAppendEntries.
	maxEntries = 1024
)

// Flags of a message. A node's own id appears up to three times in what Raft
// sends; a flag stands for each.
const (
	flagOwnID     = 1 << 0 // RPCHeader.ID is the sender's node id
	flagOwnAddr   = 1 << 1 // RPCHeader.Addr is the sender's node id
	flagOwnLeader = 1 << 2 // Leader or Candidate is the sender's node id
	flagYes       = 1 << 3 // Success, Granted or LeadershipTransfer
	flagNoBackoff = 1 << 4 // NoRetryBackoff
)

// encoder appends messages of one node to a buffer. The zero buffer is fine.
type encoder struct {
	buf []byte
	own []byte // the sending node's id
	err error
}

func (e *encoder) byte(v byte)      { e.buf = append(e.buf, v) }
func (e *encoder) uvarint(v uint64) { e.buf = binary.AppendUvarint(e.buf, v) }
func (e *encoder) varint(v int64)   { e.buf = binary.AppendVarint(e.buf, v) }
func (e *encoder) ownFlag(v []byte, flag byte) byte {
	if bytes.Equal(v, e.own) {
		return flag
	}
	return 0
}

// bytes appends v with its length; longer than limit is an error.
func (e *encoder) bytes(v []byte, limit int) {
	if len(v) > limit && e.err == nil {
		e.err = fmt.Errorf("%w: field of %d bytes, limit %d", ErrTooLarge, len(v), limit)
	}
	e.uvarint(uint64(len(v)))
	e.buf = append(e.buf, v...)
}

// header appends the flags and the RPCHeader that every message begins with.
func (e *encoder) header(h *raft.RPCHeader, flags byte) {
	flags |= e.ownFlag(h.ID, flagOwnID) | e.ownFlag(h.Addr, flagOwnAddr)
	e.byte(flags)
	e.varint(int64(h.ProtocolVersion))
	if flags&flagOwnID == 0 {
		e.bytes(h.ID, maxIDBytes)
	}
	if flags&flagOwnAddr == 0 {
		e.bytes(h.Addr, maxIDBytes)
	}
}

// leader appends the deprecated copy of the sender's address.
func (e *encoder) leader(v []byte, flag byte) {
	if flag == 0 {
		e.bytes(v, maxIDBytes)
	}
}

func yes(v bool, flag byte) byte {
	if v {
		return flag
	}
	return 0
}

// decoder reads messages of one peer. The first error sticks; every further
// read returns zeroes.
type decoder struct {
	rest []byte
	peer []byte // the sending node's id; shared by all messages, never modified
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
	}
	d.rest = nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail("message is cut short")
		return 0
	}
	v := d.rest[0]
	d.rest = d.rest[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	if len(d.rest) > 0 && d.rest[0] < 0x80 {
		v := d.rest[0]
		d.rest = d.rest[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("bad integer")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail("bad integer")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// view returns the next field without copying it; nil when it is empty.
func (d *decoder) view(limit int) []byte {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("field of %d bytes, limit %d", n, limit)
		return nil
	}
	if n > uint64(len(d.rest)) {
		d.fail("message is cut short")
		return nil
	}
	if n == 0 {
		return nil
	}
	v := d.rest[:n:n]
	d.rest = d.rest[n:]
	return v
}

// bytes returns a copy of the next field.
func (d *decoder) bytes(limit int) []byte { return bytes.Clone(d.view(limit)) }

func (d *decoder) own(flags, flag byte) []byte {
	if flags&flag != 0 {
		return d.peer
	}
	return d.bytes(maxIDBytes)
}

// header reads what encoder.header wrote.
func (d *decoder) header(h *raft.RPCHeader, known byte) (flags byte) {
	flags = d.byte()
	if unknown := flags &^ (known | flagOwnID | flagOwnAddr); unknown != 0 {
		d.fail("unknown flags %#x", unknown)
	}
	h.ProtocolVersion = raft.ProtocolVersion(d.varint())
	h.ID = d.own(flags, flagOwnID)
	h.Addr = d.own(flags, flagOwnAddr)
	return flags
}

// finish returns the first error, or one when bytes are left.
func (d *decoder) finish() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes after the message", len(d.rest))
	}
	return d.err
}
