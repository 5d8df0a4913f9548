package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// ErrGap: an entry does not follow the newest one stored.
var ErrGap = errors.New("raft log entry does not follow the last one")

// Options configures a Log.
type Options struct {
	// OnSync, when not nil, is told how long each durable write of entries
	// took. It must be cheap.
	OnSync func(time.Duration)
}

// Log is the Raft log and the stable store of one group. As a LogStore it
// follows raft's rules of use: one goroutine stores entries, any may read, and
// DeleteRange of a prefix may run beside both.
type Log struct {
	db     *pebble.DB
	group  uint16
	opts   Options
	first  atomic.Uint64 // 0 when the log is empty
	last   atomic.Uint64
	recent recent
	stable stable

	// stored and storedBytes count what was stored since Open, to tell the
	// average size of an entry.
	stored, storedBytes atomic.Uint64
}

var (
	_ raft.LogStore    = (*Log)(nil)
	_ raft.StableStore = (*Log)(nil)
)

// Open finds the bounds of the group's log. The caller keeps db open for as
// long as the Log is used.
func Open(db *pebble.DB, group uint16, opts Options) (*Log, error) {
	l := &Log{db: db, group: group, opts: opts}
	l.stable.values = make(map[string][]byte)
	lower, upper := l.span()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", storage.Classify(err))
	}
	if it.First() {
		l.first.Store(indexOf(it.Key()))
	}
	if it.Last() {
		l.last.Store(indexOf(it.Key()))
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, fmt.Errorf("open raft log: %w", storage.Classify(err))
	}
	return l, nil
}

func (l *Log) key(dst []byte, index uint64) []byte {
	dst = storage.AppendPrefix(dst, storage.SpaceLog, l.group)
	return binary.BigEndian.AppendUint64(dst, index)
}

func indexOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[storage.PrefixLen:]) }

// span returns the bounds of the group's entries: indexes from 0 to the
// largest but one, which no log reaches.
func (l *Log) span() (lower, upper []byte) {
	return l.key(nil, 0), l.key(nil, ^uint64(0))
}

// FirstIndex returns the oldest index stored, 0 when the log is empty.
func (l *Log) FirstIndex() (uint64, error) { return l.first.Load(), nil }

// LastIndex returns the newest index stored, 0 when the log is empty.
func (l *Log) LastIndex() (uint64, error) { return l.last.Load(), nil }

// GetLog fills entry with the one stored at the index, or returns
// raft.ErrLogNotFound.
func (l *Log) GetLog(index uint64, entry *raft.Log) error {
	if l.recent.get(index, entry) {
		return nil
	}
	if first := l.first.Load(); first == 0 || index < first || index > l.last.Load() {
		return raft.ErrLogNotFound
	}
	var buf [storage.PrefixLen + 8]byte
	value, closer, err := l.db.Get(l.key(buf[:0], index))
	if errors.Is(err, pebble.ErrNotFound) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		return fmt.Errorf("read raft log: %w", storage.Classify(err))
	}
	return errors.Join(decodeEntry(index, value, entry), closer.Close())
}

// TermAt returns the term of the entry at the index; false when it is not
// stored.
func (l *Log) TermAt(index uint64) (uint64, bool, error) {
	var entry raft.Log
	err := l.GetLog(index, &entry)
	if errors.Is(err, raft.ErrLogNotFound) {
		return 0, false, nil
	}
	return entry.Term, err == nil, err
}

// StoreLog stores one entry; see StoreLogs.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries that follow the newest one, and returns once they
// are durable. An empty log takes any first index: it may begin behind a
// snapshot.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	next := l.last.Load() + 1
	if next == 1 {
		next = entries[0].Index
	}
	batch := l.db.NewBatch()
	bytes := 0
	for _, e := range entries {
		if e.Index != next {
			return errors.Join(fmt.Errorf("%w: got %d, want %d", ErrGap, e.Index, next), batch.Close())
		}
		next++
		size := entryBytes(e)
		bytes += size
		op := batch.SetDeferred(storage.PrefixLen+8, encodedLen(e))
		l.key(op.Key[:0], e.Index)
		appendEntry(op.Value[:0], e)
		if err := op.Finish(); err != nil {
			return errors.Join(fmt.Errorf("write raft log: %w", err), batch.Close())
		}
	}
	start := time.Now()
	err := batch.Commit(pebble.Sync)
	if l.opts.OnSync != nil {
		l.opts.OnSync(time.Since(start))
	}
	if err := errors.Join(err, batch.Close()); err != nil {
		return fmt.Errorf("write raft log: %w", storage.Classify(err))
	}
	l.stored.Add(uint64(len(entries)))
	l.storedBytes.Add(uint64(bytes))
	l.recent.add(entries)
	if l.first.Load() == 0 {
		l.first.Store(entries[0].Index)
	}
	l.last.Store(next - 1)
	return nil
}

// DeleteRange deletes the entries of a prefix or a suffix of the log, both ends
// inclusive. A suffix is gone for good on return: Raft will store other entries
// in its place. A prefix need not be: it is only deleted once the state covers
// it, and a prefix that comes back after a crash is deleted again.
func (l *Log) DeleteRange(low, high uint64) error {
	first, last := l.first.Load(), l.last.Load()
	if first == 0 || high < first || low > last || low > high {
		return nil
	}
	if low > first && high < last {
		return fmt.Errorf("delete raft log %d to %d: neither end of %d to %d", low, high, first, last)
	}
	sync := pebble.NoSync
	if high >= last {
		sync = pebble.Sync
	}
	l.recent.forget(low, high)
	if err := l.db.DeleteRange(l.key(nil, low), l.key(nil, high+1), sync); err != nil {
		return fmt.Errorf("delete raft log: %w", storage.Classify(err))
	}
	switch {
	case low <= first && high >= last:
		l.first.Store(0)
		l.last.Store(0)
	case low <= first:
		l.first.Store(high + 1)
	default:
		l.last.Store(low - 1)
	}
	return nil
}

// AppendWipe adds the deletion of all entries to a batch of the caller's, who
// calls Wiped once it is committed. Nothing may be stored in between.
func (l *Log) AppendWipe(b *pebble.Batch) error {
	lower, upper := l.span()
	if err := b.DeleteRange(lower, upper, nil); err != nil {
		return fmt.Errorf("wipe raft log: %w", err)
	}
	return nil
}

// Wiped tells the log that the batch of AppendWipe is committed.
func (l *Log) Wiped() {
	l.recent.forget(0, ^uint64(0))
	l.first.Store(0)
	l.last.Store(0)
}

// AverageEntryBytes returns the average size of the entries stored since Open,
// or 0.
func (l *Log) AverageEntryBytes() uint64 {
	if n := l.stored.Load(); n > 0 {
		return l.storedBytes.Load() / n
	}
	return 0
}

// Wipe adds to b the deletion of everything a group has stored here. Its Log
// must not be used any more.
func Wipe(b *pebble.Batch, group uint16) error {
	for _, space := range []byte{storage.SpaceLog, storage.SpaceStable} {
		lower := storage.AppendPrefix(nil, space, group)
		upper := storage.AppendPrefix(nil, space, group+1)
		if err := b.DeleteRange(lower, upper, nil); err != nil {
			return fmt.Errorf("wipe raft log: %w", err)
		}
	}
	return nil
}
