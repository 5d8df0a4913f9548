package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// ErrGap: entries to store or to delete would leave a hole in the log.
var ErrGap = errors.New("raft log would have a gap")

// Options configures a Log.
type Options struct {
	// OnSync, when not nil, is told how long each durable write of entries
	// took. It must be cheap.
	OnSync func(time.Duration)
}

// Log is the Raft log and the stable store of one group. Its methods may be
// called from any goroutine.
type Log struct {
	db    *pebble.DB
	group uint16
	opts  Options

	// write orders what changes the log: Raft appends on its main goroutine
	// while it truncates on the one that takes snapshots. It guards the changes
	// of first, last and recent.
	write  sync.Mutex
	first  atomic.Uint64 // 0 when the log is empty
	last   atomic.Uint64 // rises only once what it covers is durable
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
	var unknown error
	for _, edge := range []struct {
		seek  func() bool
		index *atomic.Uint64
	}{{it.First, &l.first}, {it.Last, &l.last}} {
		if !edge.seek() {
			continue
		}
		if len(it.Key()) != keyBytes {
			unknown = fmt.Errorf("%w: key %x is not an entry's", rpc.ErrCorrupt, it.Key())
			continue
		}
		edge.index.Store(indexOf(it.Key()))
	}
	if err := errors.Join(unknown, it.Error(), it.Close()); err != nil {
		return nil, fmt.Errorf("open raft log: %w", storage.Classify(err))
	}
	return l, nil
}

// keyBytes is the length of an entry's key.
const keyBytes = storage.PrefixLen + 8

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

// GetLog fills entry with the one stored at the index. It returns
// raft.ErrLogNotFound, as it is, for one the log does not hold, and
// rpc.ErrCorrupt for one that it must hold and cannot read. The bytes of a
// recent entry are those given to StoreLogs and must not be changed.
func (l *Log) GetLog(index uint64, entry *raft.Log) error {
	if l.recent.get(index, entry) {
		return nil
	}
	if !l.holds(index) {
		return raft.ErrLogNotFound
	}
	var buf [keyBytes]byte
	value, closer, err := l.db.Get(l.key(buf[:0], index))
	if errors.Is(err, pebble.ErrNotFound) {
		if !l.holds(index) { // deleted since
			return raft.ErrLogNotFound
		}
		return fmt.Errorf("read raft log: %w: entry %d of group %d is missing", rpc.ErrCorrupt, index, l.group)
	}
	if err != nil {
		return fmt.Errorf("read raft log: %w", storage.Classify(err))
	}
	return errors.Join(decodeEntry(index, value, entry), closer.Close())
}

func (l *Log) holds(index uint64) bool {
	first := l.first.Load()
	return first != 0 && index >= first && index <= l.last.Load()
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

// StoreLogs stores entries and returns once they are durable. Their indexes
// follow each other, and continue the log or replace entries of it; an empty
// log takes any first index, since it may begin behind a snapshot. Entries
// above replaced ones are removed with them: Raft stores there only if it takes
// its new entries for the last. Anything else is ErrGap.
//
// The entries' bytes are kept while they are recent and must not change.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.checkOrder(entries); err != nil {
		return err
	}
	batch := l.db.NewBatchWithSize(batchSize(entries))
	start, err := l.commitEntries(batch, entries)
	if err = errors.Join(err, batch.Close()); err != nil {
		return fmt.Errorf("write raft log: %w", storage.Classify(err))
	}
	if l.opts.OnSync != nil {
		l.opts.OnSync(time.Since(start))
	}
	bytes := 0
	for _, e := range entries {
		bytes += entryBytes(e)
	}
	l.stored.Add(uint64(len(entries)))
	l.storedBytes.Add(uint64(bytes))
	l.recent.forget(entries[0].Index, ^uint64(0))
	l.recent.add(entries)
	if l.first.Load() == 0 {
		l.first.Store(entries[0].Index)
	}
	l.last.Store(entries[len(entries)-1].Index)
	return nil
}

func (l *Log) checkOrder(entries []*raft.Log) error {
	from := entries[0].Index
	for i, e := range entries {
		if want := from + uint64(i); e.Index != want || want == 0 {
			return fmt.Errorf("%w: got entry %d, want %d", ErrGap, e.Index, want)
		}
	}
	first, last := l.first.Load(), l.last.Load()
	if last != 0 && (from < first || from > last+1) {
		return fmt.Errorf("%w: entry %d does not fit a log of %d to %d", ErrGap, from, first, last)
	}
	return nil
}

// batchOverhead bounds what a batch needs besides a key and a value.
const batchOverhead = 16

func batchSize(entries []*raft.Log) int {
	size := batchOverhead
	for _, e := range entries {
		size += batchOverhead + keyBytes + encodedLen(e)
	}
	return size
}

// commitEntries writes entries, and the removal of those they leave behind, in
// one step. It returns when the commit began.
func (l *Log) commitEntries(batch *pebble.Batch, entries []*raft.Log) (start time.Time, err error) {
	for _, e := range entries {
		op := batch.SetDeferred(keyBytes, encodedLen(e))
		l.key(op.Key[:0], e.Index)
		appendEntry(op.Value[:0], e)
		if err := op.Finish(); err != nil {
			return start, err
		}
	}
	newLast, last := entries[len(entries)-1].Index, l.last.Load()
	if newLast < last {
		if err := batch.DeleteRange(l.key(nil, newLast+1), l.key(nil, last+1), nil); err != nil {
			return start, err
		}
	}
	start = time.Now()
	return start, batch.Commit(pebble.Sync)
}

// DeleteRange deletes the entries of a prefix or a suffix of the log, both ends
// inclusive; what the log does not hold of the range is ignored, and a range
// inside of it is ErrGap. A suffix is gone for good on return: Raft will store other entries
// in its place. A prefix need not be: it is only deleted once the state covers
// it, and a prefix that comes back after a crash is deleted again.
func (l *Log) DeleteRange(low, high uint64) error {
	l.write.Lock()
	defer l.write.Unlock()
	first, last := l.first.Load(), l.last.Load()
	low, high = max(low, first), min(high, last)
	if first == 0 || low > high {
		return nil
	}
	if low > first && high < last {
		return fmt.Errorf("delete raft log: %w: %d to %d is inside of %d to %d", ErrGap, low, high, first, last)
	}
	sync := pebble.NoSync
	if high == last {
		sync = pebble.Sync
	}
	if err := l.db.DeleteRange(l.key(nil, low), l.key(nil, high+1), sync); err != nil {
		return fmt.Errorf("delete raft log: %w", storage.Classify(err))
	}
	switch {
	case low == first && high == last:
		l.setEmpty()
	case low == first:
		l.first.Store(high + 1)
		l.recent.forget(low, high)
	default:
		l.last.Store(low - 1)
		l.recent.forget(low, high)
	}
	return nil
}

func (l *Log) setEmpty() {
	l.last.Store(0)
	l.first.Store(0)
	l.recent.forget(0, ^uint64(0))
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
	l.write.Lock()
	defer l.write.Unlock()
	l.setEmpty()
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
