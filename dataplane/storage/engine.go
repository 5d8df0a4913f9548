package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// drainLimit bounds how long Close of a halted engine waits for file
// operations under way before it keeps the directory locked instead.
const drainLimit = time.Second

// Engine is the open storage of a data node.
//
// Goroutines: monitor (free space), reclaim (garbage) and those of Pebble; Close
// stops them. After a halt those that write stay, parked or waiting, until the
// process ends.
type Engine struct {
	*halter
	opts  Options
	db    *pebble.DB
	guard *guardFS
	lock  *dirLock
	marks *syncMarks

	identityMu sync.Mutex // serialises SetClusterID
	identity   atomic.Pointer[Identity]

	stopMonitor chan struct{}
	monitorDone chan struct{}
	stopReclaim context.CancelFunc
	reclaimDone chan struct{}
	closeOnce   sync.Once
	closeErr    error
}

// Open opens the data directory, and makes it if there is none. It returns
// ErrLocked, ErrReadOnly, ErrForeignNode, ErrFormat, rpc.ErrStorageFull or
// rpc.ErrCorrupt, wrapped with the directory, and in these cases leaves what is
// stored as it was.
func Open(opts Options) (*Engine, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	e, err := open(opts)
	if err != nil {
		return nil, fmt.Errorf("open storage in %s: %w", opts.Dir, err)
	}
	return e, nil
}

func open(opts Options) (*Engine, error) {
	if err := makeDir(opts.FS, opts.Dir); err != nil {
		return nil, unwritable(err)
	}
	if opts.FS == vfs.Default {
		dir, err := filepath.EvalSymlinks(opts.Dir)
		if err != nil {
			return nil, err
		}
		opts.Dir = dir
	}
	lock, err := lockDir(opts.FS, opts.Dir)
	if err != nil {
		return nil, err
	}
	h := &halter{logger: opts.Logger, halted: make(chan struct{})}
	h.health = &health{logger: opts.Logger}
	e := &Engine{
		halter:      h,
		opts:        opts,
		guard:       newGuardFS(opts.FS, h),
		lock:        lock,
		stopMonitor: make(chan struct{}),
		monitorDone: make(chan struct{}),
		reclaimDone: make(chan struct{}),
	}
	if err := e.start(); err != nil {
		return nil, errors.Join(err, e.release())
	}
	return e, nil
}

// start does what follows the lock. On error the caller releases.
func (e *Engine) start() error {
	id, known, err := readLabel(e.opts.FS, e.opts.Dir)
	if err != nil {
		return err
	}
	if known && e.opts.NodeID != "" && id.NodeID != e.opts.NodeID {
		return fmt.Errorf("%w: it is of node %q, this is node %q", ErrForeignNode, id.NodeID, e.opts.NodeID)
	}
	if !known {
		id = newIdentity(e.opts.NodeID)
		if err := writeLabel(e.opts.FS, e.opts.Dir, id); err != nil {
			return unwritable(err)
		}
	}
	if e.marks, err = openSyncMarks(e.opts.FS, e.opts.Dir, e.opts.Logger); err != nil {
		return unwritable(err)
	}
	e.guard.marks = e.marks
	if e.guard.checker, err = newLogChecker(e.opts.FS, e.opts.Dir, e.marks); err != nil {
		return err
	}
	if err := e.openDB(id); err != nil {
		return err
	}
	e.guard.phase.Store(phaseRunning)
	e.sampleSpace()
	go e.monitor()
	ctx, cancel := context.WithCancel(context.Background())
	e.stopReclaim = cancel
	go e.reclaim(ctx)
	return nil
}

// openDB opens Pebble and settles the identity. Both run on a goroutine of
// their own because a halt parks whoever meets it.
func (e *Engine) openDB(onLabel Identity) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil { // Pebble panics on some damage
				e.fail(fmt.Errorf("%w: opening panicked: %v", rpc.ErrCorrupt, r))
			}
		}()
		done <- e.openDBHere(onLabel)
	}()
	select {
	case err := <-done:
		return err
	case <-e.halted:
		return unwritable(e.err)
	}
}

func (e *Engine) openDBHere(onLabel Identity) error {
	db, err := pebble.Open(e.opts.Dir, e.pebbleOptions())
	if err != nil {
		return classifyOpen(err)
	}
	id, err := matchIdentity(db, e.opts.FS, e.opts.Dir, onLabel)
	if err != nil {
		return errors.Join(Classify(err), db.Close())
	}
	e.db = db
	e.identity.Store(&id)
	return nil
}

// DB returns Pebble. Every package keeps to its own spaces. A commit never
// returns an error for want of room or after a failed sync: it waits, for ever
// if the engine has halted. DB must not be used after Close.
func (e *Engine) DB() *pebble.DB { return e.db }

// Health returns nil if writes can be expected to succeed. Otherwise the error
// wraps rpc.ErrStorageFull, which passes by itself; rpc.ErrCorrupt, once damage
// was found; rpc.ErrUnavailable after a failure; or rpc.ErrClosed. It costs an
// atomic load and is meant to be asked before every proposal.
func (e *Engine) Health() error { return e.health.err() }

// Failed is closed when the engine has met an error from which it must not go
// on, such as a failed sync. From then on every write blocks, the directory is
// not touched, reads may still work, and the process must end; Err says why.
func (e *Engine) Failed() <-chan struct{} { return e.halted }

// Err returns the error that closed Failed, wrapping ErrFailed, or nil.
func (e *Engine) Err() error {
	if e.fenced() {
		return e.err
	}
	return nil
}

// Metrics returns Pebble's own metrics.
func (e *Engine) Metrics() *pebble.Metrics { return e.db.Metrics() }

// DiskUsage returns the space of the file system that holds the directory.
func (e *Engine) DiskUsage() (vfs.DiskUsage, error) {
	return e.opts.FS.GetDiskUsage(e.opts.Dir)
}

// Identity returns whose directory this is.
func (e *Engine) Identity() Identity { return *e.identity.Load() }

// SetClusterID records the cluster the node has joined, durably. Setting the id
// it already has does nothing; another one is ErrForeignCluster.
func (e *Engine) SetClusterID(clusterID string) error {
	if clusterID == "" || len(clusterID) > maxIDBytes {
		return fmt.Errorf("set cluster id: it must have 1 to %d bytes", maxIDBytes)
	}
	e.identityMu.Lock()
	defer e.identityMu.Unlock()
	id := e.Identity()
	switch id.ClusterID {
	case clusterID:
		return nil
	case "":
	default:
		return fmt.Errorf("set cluster id: %w: it is of %q, not %q", ErrForeignCluster, id.ClusterID, clusterID)
	}
	if err := e.Health(); err != nil {
		return fmt.Errorf("set cluster id: %w", err)
	}
	id.ClusterID = clusterID
	if err := e.db.Set(identityKey(), encodeLabel(id), pebble.Sync); err != nil {
		return fmt.Errorf("set cluster id: %w", Classify(err))
	}
	e.identity.Store(&id)
	// The label follows; if that fails, the next Open writes it.
	if err := writeLabel(e.opts.FS, e.opts.Dir, id); err != nil {
		e.logger.Warn("label of the data directory is behind", "error", err)
	}
	return nil
}

// Close flushes what is in memory, so that the next start has no log to replay,
// and releases the directory. If the engine has failed, or the disk has no room
// for the flush, it returns that error; nothing that was synced is lost by it.
// Iterators and snapshots must be closed before, and no write may be under way
// unless it waits for room.
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		e.guard.phase.Store(phaseClosing)
		close(e.guard.closing)
		close(e.stopMonitor)
		<-e.monitorDone
		e.stopReclaim()
		select {
		case <-e.reclaimDone:
		case <-e.halted: // it may be parked
		}
		err := e.closeDB()
		e.health.setFinal(fmt.Errorf("%w: storage is closed", rpc.ErrClosed))
		if err = errors.Join(err, e.release()); err != nil {
			e.closeErr = fmt.Errorf("close storage in %s: %w", e.opts.Dir, err)
		}
	})
	return e.closeErr
}

// closeDB closes Pebble, on a goroutine of its own for the reason openDB has.
func (e *Engine) closeDB() error {
	if e.fenced() {
		return Classify(e.err)
	}
	done := make(chan error, 1)
	go func() { done <- errors.Join(e.db.Flush(), e.db.Close()) }()
	select {
	case err := <-done:
		return Classify(err)
	case <-e.halted:
		return Classify(e.err)
	}
}

// release gives up what Open took besides Pebble. After a halt the directory
// stays locked if a file operation is still under way.
func (e *Engine) release() error {
	if e.fenced() && !e.guard.drained(drainLimit) {
		return errors.New("a file operation hangs; the directory stays locked")
	}
	var err error
	if e.marks != nil {
		err = e.marks.close()
	}
	return errors.Join(err, e.lock.release())
}

// makeDir makes dir and what is missing above it, durably.
func makeDir(fsys vfs.FS, dir string) error {
	var missing []string // parents to sync, the deepest first
	for at := dir; ; at = fsys.PathDir(at) {
		if _, err := fsys.Stat(at); err == nil || fsys.PathDir(at) == at {
			break
		}
		missing = append(missing, fsys.PathDir(at))
	}
	if len(missing) == 0 {
		return nil
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, parent := range missing {
		if err := syncDir(fsys, parent); err != nil {
			return err
		}
	}
	return nil
}
