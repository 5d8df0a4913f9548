package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// openStore locks, checks and opens the store in dir, making it when there is
// none. established says that the directory has been in use before, so that a
// missing or empty store is a loss and not a first start.
func openStore(dir string, established bool, logger *slog.Logger) (*store, error) {
	path := filepath.Join(dir, storeFile)
	fresh, err := checkStoreFile(path, established)
	if err != nil {
		return nil, err
	}
	s := &store{logger: logger, released: make(chan struct{}), stable: map[string][]byte{}}
	err = guard(func() error {
		bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: s.boltOptions(false)})
		if err != nil {
			return boltError("open", err)
		}
		s.backend = bolt
		return nil
	})
	if err == nil && fresh {
		// bbolt syncs the file but not its entry in the directory.
		err = syncDir(dir)
	}
	if err == nil {
		err = s.load(established)
	}
	if err != nil {
		s.release()
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// checkStoreFile checks the file under bbolt's lock before bbolt trusts it. It
// reports whether there is no store yet.
func checkStoreFile(path string, established bool) (fresh bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0:
		if established {
			return false, fmt.Errorf("%w: %s is missing or empty", ErrCorrupt, path)
		}
		return true, nil
	case err != nil:
		return false, fmt.Errorf("open control store: %w", err)
	}
	s := &store{}
	err = guard(func() error {
		bolt, err := bbolt.Open(path, 0o600, s.boltOptions(true))
		if err != nil {
			return boltError("check", err)
		}
		return errors.Join(checkBoltFile(path, boltBuckets, !established), bolt.Close())
	})
	if err != nil && s.file != nil {
		_ = s.file.Close() // a second close of the handle does no harm
	}
	// bbolt writes its first four pages in one piece. A kill during that
	// leaves a file that never held anything.
	if errors.Is(err, ErrCorrupt) && !established && info.Size() <= int64(4*os.Getpagesize()) {
		return true, os.Truncate(path, 0)
	}
	return false, err
}

func (s *store) boltOptions(readOnly bool) *bbolt.Options {
	options := *bbolt.DefaultOptions
	options.Timeout = lockTimeout
	options.ReadOnly = readOnly
	options.NoStatistics = true
	options.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		file, err := os.OpenFile(name, flag, mode)
		s.file = file
		return file, err
	}
	return &options
}

// boltError sorts an error of bbolt's open: the lock, the operating system, or
// else the content of the file.
func boltError(operation string, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%s control store: %w", operation, ErrLocked)
	case errors.As(err, &errno):
		return fmt.Errorf("%s control store: %w", operation, err)
	}
	return fmt.Errorf("%s control store: %w: %w", operation, ErrCorrupt, err)
}

// guard turns a panic of bbolt over a damaged file, and a fault in its memory
// map, into ErrCorrupt.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: bbolt: %v", ErrCorrupt, r)
		}
	}()
	return f()
}

// load reads everything once: the stable record and every log entry must pass
// their checksums, and the log must be without holes.
func (s *store) load(established bool) error {
	return guard(func() error {
		if err := s.loadStable(established); err != nil {
			return err
		}
		first, err := s.backend.FirstIndex()
		if err != nil {
			return fmt.Errorf("load control log: %w", err)
		}
		last, err := s.backend.LastIndex()
		if err != nil {
			return fmt.Errorf("load control log: %w", err)
		}
		s.first.Store(first)
		s.last.Store(last)
		term := uint64(0)
		for index := first; first > 0 && index <= last; index++ {
			var entry raft.Log
			if err := s.read(index, &entry); err != nil {
				return fmt.Errorf("load control log: %w", err)
			}
			if entry.Term < term {
				return fmt.Errorf("%w: term of log entry %d falls from %d to %d", ErrCorrupt, index, term, entry.Term)
			}
			term = entry.Term
		}
		current, err := s.GetUint64(currentTermKey)
		if err != nil {
			return err
		}
		if established && current < term {
			return fmt.Errorf("%w: log is of term %d, the current one is %d", ErrCorrupt, term, current)
		}
		return nil
	})
}

func (s *store) loadStable(established bool) error {
	record, err := s.backend.Get(stableKey)
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		if established {
			return fmt.Errorf("%w: stable record is missing", ErrCorrupt)
		}
		return nil
	case err != nil:
		return fmt.Errorf("load stable record: %w", err)
	}
	s.stable, err = decodeStable(record)
	return err
}
