package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// StreamReader reads a snapshot stream row by row, without a database, and
// checks all of it: frames, order, counts, and the hash at its end. It is used
// by one goroutine.
type StreamReader struct {
	r     io.Reader
	group uint16
	meta  meta
	sum   hash.Hash // of the stream
	state hash.Hash // of the state, see Machine.Hash
	// hashed is how many rows are in state, of the order in which a restore stores
	// them.
	hashed uint64
	frame  uint64
	left   uint64 // bytes of rows in frames still to come
	buf    []byte // of a frame
	rows   []byte // not returned yet
	taken  int    // of rows, returned by the last Next
	last   []byte
	seen   meta
	head   []byte // scratch
	err    error
}

// NewStreamReader reads the header of a stream. The error matches ErrBadSnapshot
// unless r failed; so do those of Next.
func NewStreamReader(r io.Reader, group rpc.Group) (*StreamReader, error) {
	s := &StreamReader{r: r, group: uint16(group), sum: sha256.New()}
	if err := s.header(); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	s.left = s.meta.bytes
	s.HashAs(rpc.GroupState{Epoch: s.meta.epoch})
	return s, nil
}

func (s *StreamReader) header() error {
	start := make([]byte, len(streamMagic)+4)
	if err := s.fill(start); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(start[len(streamMagic):])
	if string(start[:len(streamMagic)]) != streamMagic || length > maxStreamHeader {
		return fmt.Errorf("%w: not a snapshot", ErrBadSnapshot)
	}
	rest := make([]byte, length+4)
	if err := s.fill(rest); err != nil {
		return err
	}
	payload := rest[:length]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(rest[length:]) {
		return fmt.Errorf("%w: header checksum", ErrBadSnapshot)
	}
	var err error
	s.meta, _, err = decodeStreamHeader(payload, s.group)
	s.sum.Write(start)
	s.sum.Write(rest)
	return err
}

// fill reads all of b.
func (s *StreamReader) fill(b []byte) error {
	_, err := io.ReadFull(s.r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is incomplete", ErrBadSnapshot)
	}
	return err
}

// State tells what the stream is of, as its header says.
func (s *StreamReader) State() rpc.GroupState { return s.meta.state(s.group, s.meta.applied) }

// Numbers is what RestoreRequest.Numbers must be.
func (s *StreamReader) Numbers() uint64 { return s.meta.nextConversation }

// HashAs makes Hash that of a group which a restore of the stream has filled: the
// archiver epoch is the group's own. While at is Restoring it is that of the rows
// which the restore has stored so far, if these are what at counts. It must be
// called before Next.
func (s *StreamReader) HashAs(at rpc.GroupState) {
	counters := s.meta
	counters.generation, counters.applied, counters.term, counters.restoring = 0, 0, 0, false
	counters.epoch = at.Epoch
	s.hashed = s.meta.rows
	if at.Restoring {
		counters.restoring = true
		counters.conversations, counters.messages, counters.rows, counters.bytes = at.Conversations, at.Messages, at.Rows, at.Bytes
		s.hashed = at.Rows
	}
	s.state = sha256.New()
	s.state.Write(counters.append(nil))
}

// inHash reports whether a row that has just been counted is among the first
// that a restore stores, of which Hash is.
func (s *StreamReader) inHash(row Row) bool {
	if row.IsRecord() {
		others := s.meta.rows - s.meta.conversations // they come first
		return others+s.seen.conversations <= s.hashed
	}
	return s.seen.rows-s.seen.conversations <= s.hashed
}

// Hash is the hash of the state, once Next has returned io.EOF.
func (s *StreamReader) Hash() (sum [32]byte) {
	s.state.Sum(sum[:0])
	return sum
}

// Next returns the next row, which is valid until the next call, and io.EOF once
// the stream has proven to be complete and undamaged.
func (s *StreamReader) Next() (Row, error) {
	if s.err != nil {
		return Row{}, s.err
	}
	row, err := s.next()
	if err != nil {
		if s.err = err; !errors.Is(err, io.EOF) {
			s.err = fmt.Errorf("read snapshot: %w", err)
		}
		return Row{}, s.err
	}
	return row, nil
}

func (s *StreamReader) next() (Row, error) {
	s.rows = s.rows[s.taken:]
	s.taken = 0
	for {
		rest := s.rows
		if row, ok := decodeRow(&rest); ok {
			s.taken = len(s.rows) - len(rest)
			return row, s.pass(row)
		}
		switch {
		case s.left == 0 && len(s.rows) == 0:
			return Row{}, s.end()
		case s.left == 0, len(s.rows) > maxRowBytes+maxKeyBytes+maxIDBytes+32:
			return Row{}, fmt.Errorf("%w: row", ErrBadSnapshot)
		}
		if err := s.readFrame(); err != nil {
			return Row{}, err
		}
	}
}

// pass checks and counts a row that is about to be returned.
func (s *StreamReader) pass(row Row) error {
	if len(s.last) > 0 && (row.Space < s.last[0] || row.Space == s.last[0] && bytes.Compare(row.Rest, s.last[1:]) <= 0) {
		return fmt.Errorf("%w: row order", ErrBadSnapshot)
	}
	s.last = append(append(s.last[:0], row.Space), row.Rest...)
	row.count(&s.seen)
	if !s.inHash(row) {
		return nil
	}
	s.head = appendRowHead(s.head[:0], row.Space, row.Rest, len(row.Value))
	s.state.Write(s.head)
	s.state.Write(row.Value)
	return nil
}

func (s *StreamReader) readFrame() error {
	length := min(s.left, frameBytes)
	s.buf = slices.Grow(s.buf[:0], frameHead+frameBytes)[:frameHead+length]
	if err := s.fill(s.buf); err != nil {
		return err
	}
	payload := s.buf[frameHead:]
	if binary.BigEndian.Uint32(s.buf) != uint32(length) || frameSum(s.frame, payload) != binary.BigEndian.Uint32(s.buf[4:]) {
		return fmt.Errorf("%w: frame %d", ErrBadSnapshot, s.frame)
	}
	s.sum.Write(s.buf)
	s.frame++
	s.left -= length
	s.rows = append(s.rows, payload...)
	return nil
}

// end checks what comes after the last row; without a fault it is io.EOF.
func (s *StreamReader) end() error {
	tail := make([]byte, endBytes)
	if err := s.fill(tail); err != nil {
		return err
	}
	s.sum.Write(tail[:4])
	want := meta{rows: s.meta.rows, bytes: s.meta.bytes, conversations: s.meta.conversations, messages: s.meta.messages}
	switch {
	case binary.BigEndian.Uint32(tail) != 0 || !bytes.Equal(s.sum.Sum(nil), tail[4:]):
		return fmt.Errorf("%w: stream checksum", ErrBadSnapshot)
	case s.seen != want:
		return fmt.Errorf("%w: counts", ErrBadSnapshot)
	}
	if n, err := s.r.Read(make([]byte, 1)); n > 0 {
		return fmt.Errorf("%w: bytes after its end", ErrBadSnapshot)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return io.EOF
}
