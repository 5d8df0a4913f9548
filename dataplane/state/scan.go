package state

import (
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// scan reads the messages low to high of one conversation. As sequences are
// dense it seeks to its range, and what it costs does not depend on the rest.
type scan struct {
	keys      keyspace
	rec       *record
	low, high uint64
	maxBytes  int
	newest    bool // when bytes run out, drop the lowest instead of the highest

	messages []rpc.Message
	arena    []byte // holds the JSON of messages
	bytes    int    // of JSON
}

func (s *scan) run(r pebble.Reader) (err error) {
	bounds := make([]byte, 0, 2*(prefixLen+16))
	lower := s.keys.message(bounds, s.rec.num, s.low)
	upper := s.keys.message(lower[len(lower):], s.rec.num, s.high+1)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	s.messages = make([]rpc.Message, 0, s.high-s.low+1)
	fits := true
	if s.newest {
		fits, err = s.fits(it)
	}
	if err == nil && fits {
		err = s.forward(it)
	} else if err == nil {
		err = s.backward(it)
	}
	return errors.Join(err, it.Error(), it.Close())
}

// fits reports whether the range surely is within maxBytes: everything from its
// first message on is. Only then can a tail be read in the faster direction.
func (s *scan) fits(it *pebble.Iterator) (bool, error) {
	if !it.First() {
		return false, holeOr(it)
	}
	row, err := it.ValueAndErr()
	if err != nil {
		return false, err
	}
	m, err := decodeMessage(row)
	return err == nil && s.rec.stored-m.stored <= uint64(s.maxBytes), err
}

func (s *scan) forward(it *pebble.Iterator) error {
	seq := s.low
	for ok := it.First(); ok; ok = it.Next() {
		more, err := s.add(it, seq)
		if err != nil || !more {
			return err
		}
		seq++
	}
	if seq <= s.high {
		return holeOr(it)
	}
	return nil
}

func (s *scan) backward(it *pebble.Iterator) error {
	defer func() { slices.Reverse(s.messages) }()
	seq := s.high
	for ok := it.Last(); ok; ok = it.Prev() {
		more, err := s.add(it, seq)
		if err != nil || !more {
			return err
		}
		seq--
	}
	if seq >= s.low {
		return holeOr(it)
	}
	return nil
}

// holeOr explains why an iterator ended early.
func holeOr(it *pebble.Iterator) error {
	if err := it.Error(); err != nil {
		return err
	}
	return errHole
}

// add copies the message the iterator is at, which must be seq. It returns false
// when the message does not fit any more.
func (s *scan) add(it *pebble.Iterator, seq uint64) (more bool, err error) {
	if at, ok := seqOf(it.Key()); !ok || at != seq {
		return false, errHole
	}
	row, err := it.ValueAndErr()
	if err != nil {
		return false, err
	}
	m, err := decodeMessage(row)
	if err != nil {
		return false, err
	}
	n := len(m.json)
	if len(s.messages) > 0 && s.bytes+n > s.maxBytes {
		return false, nil
	}
	if cap(s.arena)-len(s.arena) < n {
		// What was copied stays where it is.
		s.arena = make([]byte, 0, max(n, s.expect(n)))
	}
	start := len(s.arena)
	s.arena = append(s.arena, m.json...)
	s.messages = append(s.messages, rpc.Message{Seq: seq, Version: m.version, JSON: s.arena[start:len(s.arena):len(s.arena)]})
	s.bytes += n
	return true, nil
}

// expect estimates the bytes of the messages that are still to come, by the
// conversation's average.
func (s *scan) expect(next int) int {
	left := s.high - s.low + 1 - uint64(len(s.messages))
	average := (s.rec.stored - s.rec.trimmed) / (s.rec.last - s.rec.first + 1)
	estimate := left * average
	return int(min(estimate+estimate/8, uint64(s.maxBytes-s.bytes)+uint64(next)))
}
