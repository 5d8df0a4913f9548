package state

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Snapshot is the state of a group at one applied index, read as a stream of a
// length known in advance. Nothing is locked or copied while it is open; it only
// keeps the storage engine from dropping what it covers. It is used by one
// goroutine and must be closed before the database.
type Snapshot struct {
	snapshot *pebble.Snapshot
	meta     meta
	conf     configuration
	size     int64
	walk     walk

	out    []byte // produced, not yet read; aliases buf
	buf    []byte
	frame  uint64
	sum    hash.Hash
	head   []byte // scratch for a row's head
	parts  [2][]byte
	rows   uint64
	bytes  uint64 // of rows
	atEnd  bool   // all rows are in parts or produced
	ended  bool   // the end is produced
	err    error
	closed bool
}

// OpenSnapshot opens the current state.
func (m *Machine) OpenSnapshot() (*Snapshot, error) {
	if m.waiters.isClosed() {
		return nil, fmt.Errorf("open snapshot: %w", rpc.ErrClosed)
	}
	s := &Snapshot{snapshot: m.db.NewSnapshot(), sum: sha256.New()}
	var err error
	if s.meta, s.conf, err = loadMeta(s.snapshot, m.group); err != nil {
		return nil, fmt.Errorf("open snapshot: %w", errors.Join(err, s.snapshot.Close()))
	}
	s.walk = walk{reader: s.snapshot, keys: keyspace{group: m.group, generation: s.meta.generation}}
	s.buf = appendStreamStart(make([]byte, 0, frameHead+frameBytes), m.group, &s.meta, s.conf)
	s.sum.Write(s.buf)
	s.out = s.buf
	s.size = streamBytes(len(s.buf), s.meta.bytes)
	return s, nil
}

// Meta returns the applied index and term that the snapshot is of, and the
// newest configuration in it with its index.
func (s *Snapshot) Meta() (index, term uint64, configuration []byte, configurationIndex uint64) {
	return s.meta.applied, s.meta.term, s.conf.data, s.conf.index
}

// Size returns the exact length of the stream.
func (s *Snapshot) Size() int64 { return s.size }

// Read reads the stream.
func (s *Snapshot) Read(p []byte) (int, error) {
	if len(s.out) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// WriteTo writes the rest of the stream to w.
func (s *Snapshot) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if len(s.out) == 0 {
			if err := s.fill(); err == io.EOF {
				return total, nil
			} else if err != nil {
				return total, err
			}
		}
		n, err := w.Write(s.out)
		total += int64(n)
		s.out = s.out[n:]
		if err != nil {
			return total, err
		}
	}
}

// Close ends the snapshot. It may be called more than once.
func (s *Snapshot) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.err = rpc.ErrClosed
	s.out = nil
	return errors.Join(s.walk.close(), s.snapshot.Close())
}

// fill produces the next frame or the end. It returns io.EOF after the end.
func (s *Snapshot) fill() error {
	if s.err != nil {
		return s.err
	}
	if s.ended {
		return io.EOF
	}
	if s.err = s.fillFrame(); s.err != nil {
		s.err = fmt.Errorf("stream snapshot: %w", s.err)
	}
	return s.err
}

func (s *Snapshot) fillFrame() error {
	s.buf = s.buf[:0]
	s.buf = append(s.buf, make([]byte, frameHead)...)
	for len(s.buf) < frameHead+frameBytes {
		if len(s.parts[0]) == 0 && len(s.parts[1]) == 0 {
			if more, err := s.row(); err != nil {
				return err
			} else if !more {
				break
			}
		}
		for i := range s.parts {
			n := min(len(s.parts[i]), frameHead+frameBytes-len(s.buf))
			s.buf = append(s.buf, s.parts[i][:n]...)
			s.parts[i] = s.parts[i][n:]
		}
	}
	if payload := s.buf[frameHead:]; len(payload) > 0 {
		binary.BigEndian.PutUint32(s.buf, uint32(len(payload)))
		binary.BigEndian.PutUint32(s.buf[4:], frameSum(s.frame, payload))
		s.frame++
		s.sum.Write(s.buf)
		s.out = s.buf
		return nil
	}
	if s.rows != s.meta.rows || s.bytes != s.meta.bytes {
		return fmt.Errorf("read %d rows of %d bytes, have count of %d of %d: %w",
			s.rows, s.bytes, s.meta.rows, s.meta.bytes, rpc.ErrCorrupt)
	}
	s.buf = binary.BigEndian.AppendUint32(s.buf[:0], 0)
	s.sum.Write(s.buf)
	s.buf = s.sum.Sum(s.buf)
	s.out, s.ended = s.buf, true
	return nil
}

// row takes the next row into parts, which stay valid until the next call.
func (s *Snapshot) row() (more bool, err error) {
	if s.atEnd {
		return false, nil
	}
	space, rest, value, ok, err := s.walk.next()
	if err != nil || !ok {
		s.atEnd = true
		return false, err
	}
	s.head = appendRowHead(s.head[:0], space, rest, len(value))
	s.parts = [2][]byte{s.head, value}
	s.rows++
	s.bytes += rowBytes(len(rest), len(value))
	return true, nil
}
