package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	storeFile = "raft.db"
	// lockTimeout is how long an open waits for the process before it to let
	// go of the store.
	lockTimeout = time.Second
	// recentLogs is how many of the newest entries are also held in memory;
	// raft reads what it just wrote.
	recentLogs = 512
	// writeRetryInterval is how often a stable write is tried again while the
	// store cannot write.
	writeRetryInterval = 250 * time.Millisecond
)

var (
	stableKey = []byte("stable")
	// currentTermKey is raft's own.
	currentTermKey = []byte("CurrentTerm")
	boltBuckets    = [][]byte{[]byte("conf"), []byte("logs")}
)

// backend is the part of raft-boltdb that the store uses; a seam for tests of
// failing disks.
type backend interface {
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
	GetLog(index uint64, entry *raft.Log) error
	StoreLogs(entries []*raft.Log) error
	DeleteRange(first, last uint64) error
	Get(key []byte) ([]byte, error)
	Set(key, value []byte) error
	Close() error
}

// store is the log and the stable store of one member: raft-boltdb with
// checksums around it. Raft calls it from several goroutines.
//
// A failed write never makes raft panic. Raft treats a stable value that cannot
// be stored as fatal, so such a write waits instead until it succeeds or the
// store is released: the member stops taking part, as if it were gone, and
// comes back by itself when there is space again.
type store struct {
	logger  *slog.Logger
	backend backend
	file    *os.File // bbolt's own handle, for when bbolt cannot close itself

	// released ends the waiting of stable writes; closed once by release.
	released    chan struct{}
	releaseOnce sync.Once

	logMu       sync.Mutex    // orders writes of the log with first and last
	first, last atomic.Uint64 // indexes of the log, 0 when it is empty
	failure     atomic.Pointer[storageFailure]

	recentMu sync.Mutex
	recent   [recentLogs]*raft.Log // by index modulo recentLogs

	stableMu sync.Mutex
	stable   map[string][]byte // what is durably stored
}

// storageFailure is the last write error until a write succeeds.
type storageFailure struct {
	err error
	// final: nothing is written any more until the process restarts.
	final bool
}

var (
	_ raft.LogStore          = (*store)(nil)
	_ raft.MonotonicLogStore = (*store)(nil)
	_ raft.StableStore       = (*store)(nil)
)

// read reads and checks one entry from the file.
func (s *store) read(index uint64, entry *raft.Log) error {
	err := s.backend.GetLog(index, entry)
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		if first, last := s.first.Load(), s.last.Load(); index < first || index > last {
			return err
		}
		return fmt.Errorf("%w: log entry %d is missing", ErrCorrupt, index)
	case err != nil:
		return fmt.Errorf("%w: log entry %d: %w", ErrCorrupt, index, err)
	}
	return openLog(index, entry)
}

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (uint64, error) { return s.first.Load(), nil }

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (uint64, error) { return s.last.Load(), nil }

// GetLog implements raft.LogStore.
func (s *store) GetLog(index uint64, entry *raft.Log) error {
	s.recentMu.Lock()
	recent := s.recent[index%recentLogs]
	s.recentMu.Unlock()
	if recent != nil && recent.Index == index {
		*entry = *recent
		return nil
	}
	return guard(func() error { return s.read(index, entry) })
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. The entries are durable when it returns
// without an error.
func (s *store) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	sealed := make([]*raft.Log, len(entries))
	for i, entry := range entries {
		sealed[i] = sealLog(entry)
	}
	s.logMu.Lock()
	defer s.logMu.Unlock()
	if err := s.write(func() error { return s.backend.StoreLogs(sealed) }); err != nil {
		return err
	}
	s.recentMu.Lock()
	for _, entry := range entries {
		s.recent[entry.Index%recentLogs] = entry
	}
	s.recentMu.Unlock()
	if s.first.Load() == 0 {
		s.first.Store(entries[0].Index)
	}
	s.last.Store(entries[len(entries)-1].Index)
	return nil
}

// DeleteRange implements raft.LogStore. Raft deletes from the front when it
// compacts, and from the back when it drops what a leader contradicts.
func (s *store) DeleteRange(first, last uint64) error {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.recentMu.Lock()
	s.recent = [recentLogs]*raft.Log{}
	s.recentMu.Unlock()
	if err := s.write(func() error { return s.backend.DeleteRange(first, last) }); err != nil {
		return err
	}
	have, until := s.first.Load(), s.last.Load()
	switch {
	case first <= have && last >= until:
		s.first.Store(0)
		s.last.Store(0)
	case first <= have:
		s.first.Store(max(have, last+1))
	default:
		s.last.Store(min(until, first-1))
	}
	return nil
}

// IsMonotonic implements raft.MonotonicLogStore: the log never has a hole. Raft
// then drops all entries once it installed a snapshot from the leader.
func (s *store) IsMonotonic() bool { return true }

// Get implements raft.StableStore: nil for a key that is not there.
func (s *store) Get(key []byte) ([]byte, error) {
	s.stableMu.Lock()
	defer s.stableMu.Unlock()
	return slices.Clone(s.stable[string(key)]), nil
}

// GetUint64 implements raft.StableStore: 0 for a key that is not there.
func (s *store) GetUint64(key []byte) (uint64, error) {
	s.stableMu.Lock()
	defer s.stableMu.Unlock()
	value := s.stable[string(key)]
	switch len(value) {
	case 0:
		return 0, nil
	case 8:
		return binary.BigEndian.Uint64(value), nil
	}
	return 0, fmt.Errorf("%w: stable value %q is no number", ErrCorrupt, key)
}

// SetUint64 implements raft.StableStore.
func (s *store) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// Set implements raft.StableStore. The value is durable when it returns. While
// the store cannot write it blocks; once released it returns nil without having
// stored anything, because raft would panic over an error and is about to end.
// That is safe: a released store also refuses log entries and keeps no vote, so
// the only thing forgotten is a term in which this member neither voted nor
// acknowledged an entry.
func (s *store) Set(key, value []byte) error {
	s.stableMu.Lock()
	defer s.stableMu.Unlock()
	if old, ok := s.stable[string(key)]; ok && slices.Equal(old, value) {
		return nil
	}
	changed := maps.Clone(s.stable)
	changed[string(key)] = slices.Clone(value)
	record := encodeStable(changed)
	for {
		err := s.write(func() error { return s.backend.Set(stableKey, record) })
		if err == nil {
			s.stable = changed
			return nil
		}
		select {
		case <-s.released:
			return refusedAfterRelease(key)
		case <-time.After(writeRetryInterval):
		}
	}
}

// refusedAfterRelease is nil only for the one value whose error raft does not
// survive.
func refusedAfterRelease(key []byte) error {
	if string(key) == string(currentTermKey) {
		return nil
	}
	return ErrClosed
}

// reset forgets all stable values; only for a store whose log is empty.
func (s *store) reset() error {
	s.stableMu.Lock()
	defer s.stableMu.Unlock()
	if len(s.stable) == 0 {
		return nil
	}
	s.stable = map[string][]byte{}
	return s.write(func() error { return s.backend.Set(stableKey, encodeStable(s.stable)) })
}

// write runs one write and keeps track of whether the store can write. An error
// about space may pass. After any other the state of the page cache is unknown,
// so nothing is written again until the file was read afresh.
func (s *store) write(f func() error) error {
	select {
	case <-s.released:
		return ErrClosed
	default:
	}
	if failure := s.failure.Load(); failure != nil && failure.final {
		return failure.err
	}
	err := guard(f)
	if err == nil {
		if s.failure.Swap(nil) != nil {
			s.logger.Info("control store writes again")
		}
		return nil
	}
	failure := &storageFailure{
		err:   fmt.Errorf("%w: %w", ErrStorage, err),
		final: !outOfSpace(err),
	}
	if s.failure.Swap(failure) == nil || failure.final {
		s.logger.Error("control store cannot write", "error", err, "restart_needed", failure.final)
	}
	return failure.err
}

// outOfSpace tells the errors that leave a bbolt file as it was and pass when
// there is room again: those of the write call itself. An error of a sync is
// not among them, whatever its number, for what it did not write is unknown.
func outOfSpace(err error) bool {
	var path *fs.PathError
	if !errors.As(err, &path) || path.Op != "write" {
		return false
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// fail makes the store refuse every write until the process restarts.
func (s *store) fail(err error) {
	s.failure.Store(&storageFailure{err: fmt.Errorf("%w: %w", ErrStorage, err), final: true})
	s.logger.Error("control member needs a restart", "error", err)
}

// err returns why the store cannot write, or nil.
func (s *store) err() error {
	if failure := s.failure.Load(); failure != nil {
		return failure.err
	}
	return nil
}

// release ends all waiting in Set, so that raft can shut down.
func (s *store) release() { s.releaseOnce.Do(func() { close(s.released) }) }

// close closes the file and its lock. Nothing else may be running.
func (s *store) close() error {
	if failure := s.failure.Load(); s.backend == nil || failure != nil && errors.Is(failure.err, ErrCorrupt) {
		// bbolt may have panicked with its locks held and would wait for them.
		if s.file == nil {
			return nil
		}
		if err := s.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("close control store: %w", err)
		}
		return nil
	}
	if err := s.backend.Close(); err != nil {
		return fmt.Errorf("close control store: %w", err)
	}
	return nil
}
