package state

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Conversation returns what is known of one conversation, or rpc.ErrNotFound.
func (m *Machine) Conversation(key rpc.Key) (rpc.Conversation, error) {
	m.swap.RLock()
	defer m.swap.RUnlock()
	rec, found, err := m.read(string(key))
	if err != nil {
		return rpc.Conversation{}, fmt.Errorf("read conversation: %w", err)
	}
	if !found {
		return rpc.Conversation{}, rpc.ErrNotFound
	}
	return rec.conversation(string(key)), nil
}

// Messages reads forward: up to limit messages with a sequence of at least from
// (0 is taken as 1), and no more than maxBytes of JSON, but at least one
// message. It returns rpc.ErrNotFound, or *rpc.CursorExpiredError when from is
// below the hot log.
func (m *Machine) Messages(key rpc.Key, from uint64, limit, maxBytes int) (rpc.Page, error) {
	from = max(from, 1)
	limit, maxBytes = pageBounds(limit, maxBytes)
	return m.page(key, maxBytes, false, func(rec *record) (low, high uint64, err error) {
		if from < rec.first {
			return 0, 0, &rpc.CursorExpiredError{Earliest: rec.first}
		}
		if from > rec.last {
			return 1, 0, nil
		}
		return from, from + min(uint64(limit)-1, rec.last-from), nil
	})
}

// Tail reads the newest messages in ascending order: up to limit, skipping the
// newest offset of those below before (of all when before is 0), and no more
// than maxBytes of JSON, but at least one message; when bytes run out it is the
// older messages that are left away. Only the hot log is read: the page's
// Earliest tells where that starts, and what the page lacks below its first
// message, or offset, is there in the archive if anywhere.
func (m *Machine) Tail(key rpc.Key, before, offset uint64, limit, maxBytes int) (rpc.Page, error) {
	limit, maxBytes = pageBounds(limit, maxBytes)
	return m.page(key, maxBytes, true, func(rec *record) (low, high uint64, err error) {
		high = rec.last
		if before > 0 {
			high = min(high, before-1)
		}
		if offset >= high {
			return 1, 0, nil
		}
		high -= offset
		if high < rec.first {
			return 1, 0, nil
		}
		return max(rec.first, high-min(uint64(limit)-1, high-1)), high, nil
	})
}

func pageBounds(limit, maxBytes int) (int, int) {
	if maxBytes <= 0 {
		maxBytes = rpc.MaxPageBytes
	}
	return min(max(limit, 1), rpc.MaxPageMessages), maxBytes
}

// List returns up to limit (at most 1000) conversations whose key starts with
// prefix and comes after the given key, ascending.
func (m *Machine) List(prefix, after string, limit int) ([]rpc.Conversation, error) {
	limit = min(max(limit, 1), maxList)
	m.swap.RLock()
	defer m.swap.RUnlock()
	snapshot := m.db.NewSnapshot()
	list, err := m.list(snapshot, prefix, after, limit)
	if err = errors.Join(err, snapshot.Close()); err != nil {
		return nil, fmt.Errorf("list conversations: %w", storageError(err))
	}
	return list, nil
}

func (m *Machine) list(r pebble.Reader, prefix, after string, limit int) (list []rpc.Conversation, err error) {
	lower := m.keys.record(nil, prefix)
	upper := successor(lower)
	if after >= prefix {
		lower = append(m.keys.record(nil, after), 0)
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil, nil
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid() && err == nil && len(list) < limit; it.Next() {
		var row []byte
		if row, err = it.ValueAndErr(); err != nil {
			break
		}
		var rec record
		var apart bool
		if rec, apart, err = decodeRecord(row); err == nil && apart {
			err = loadMetadata(r, m.keys, &rec)
		}
		list = append(list, rec.conversation(string(it.Key()[prefixLen+1:])))
	}
	return list, errors.Join(err, it.Error(), it.Close())
}

// read returns a record from the cache or storage. The caller holds swap.
func (m *Machine) read(key string) (rec record, found bool, err error) {
	rec, epoch, found := m.view.lookup(key)
	if found {
		return rec, true, nil
	}
	rec, found, apart, err := loadRow(m.db, m.keys, key)
	if err == nil && apart {
		// The metadata row must be of the same moment.
		snapshot := m.db.NewSnapshot()
		rec, found, err = loadRecord(snapshot, m.keys, key)
		err = errors.Join(err, snapshot.Close())
	}
	if err != nil || !found {
		return record{}, false, err
	}
	m.view.offer(key, &rec, epoch)
	return rec, true, nil
}

// errHole reports that a message which should be there is not.
var errHole = fmt.Errorf("message is missing: %w", rpc.ErrCorrupt)

// page reads the messages of the range that plan chooses, empty when low is
// above high; newest tells which end of it counts when bytes run out.
//
// The record is read first and the messages are read after it, so all up to its
// last are there. Only a trim between the two can have taken some away: then
// both are read again from one snapshot, and what is missing there is corrupt.
func (m *Machine) page(key rpc.Key, maxBytes int, newest bool,
	plan func(*record) (low, high uint64, err error)) (rpc.Page, error) {
	m.swap.RLock()
	defer m.swap.RUnlock()
	rec, found, err := m.read(string(key))
	if err != nil {
		return rpc.Page{}, fmt.Errorf("read conversation: %w", err)
	}
	if !found {
		return rpc.Page{}, rpc.ErrNotFound
	}
	page, err := m.planned(m.db, &rec, maxBytes, newest, plan)
	if !errors.Is(err, errHole) {
		return page, err
	}
	snapshot := m.db.NewSnapshot()
	rec, found, err = loadRecord(snapshot, m.keys, string(key))
	if err == nil && !found {
		err = rpc.ErrNotFound
	}
	if err == nil {
		page, err = m.planned(snapshot, &rec, maxBytes, newest, plan)
	}
	return page, errors.Join(err, snapshot.Close())
}

func (m *Machine) planned(r pebble.Reader, rec *record, maxBytes int, newest bool,
	plan func(*record) (low, high uint64, err error)) (rpc.Page, error) {
	page := rpc.Page{LastSeq: rec.last, Earliest: rec.first}
	low, high, err := plan(rec)
	if err != nil || low > high {
		return page, err
	}
	s := scan{keys: m.keys, rec: rec, low: low, high: high, maxBytes: maxBytes, newest: newest}
	if err := s.run(r); err != nil {
		return rpc.Page{}, fmt.Errorf("read messages: %w", storageError(err))
	}
	page.Messages = s.messages
	return page, nil
}
