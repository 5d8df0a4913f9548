package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Bounds of waiting for room on the disk.
const (
	roomBackoffMin  = 10 * time.Millisecond
	roomBackoffMax  = 500 * time.Millisecond
	tableBackoffMin = 100 * time.Millisecond
	tableBackoffMax = 5 * time.Second
)

// Phases of an engine. While it opens or closes, somebody waits for an answer,
// so a disk without room is an error; while it runs it is waited out.
const (
	phaseOpening int32 = iota
	phaseRunning
	phaseClosing
)

// guardFS stands between Pebble and the file system and decides what an error
// of a changing operation means:
//
//   - no room (ENOSPC, EDQUOT, EROFS) on a write-ahead log, MANIFEST or
//     directory operation: wait and try again, for Pebble cannot survive it;
//   - no room in a table that a flush or compaction writes: give the error to
//     Pebble, which deletes the half-written table and so gives its room back,
//     and hold up the next table for a while;
//   - any other error, and every error of a sync: halt. A sync that failed is
//     never tried again, because the kernel may have dropped the pages and
//     would report success.
//
// While the engine opens, a log or MANIFEST is checked before Pebble reads it.
// Reads otherwise pass through untouched. After a halt every changing
// operation parks, so a failed engine cannot touch the directory again.
type guardFS struct {
	vfs.FS
	*halter
	phase   atomic.Int32
	closing chan struct{} // closed when Close begins
	marks   *syncMarks    // nil until opened
	checker *logChecker   // nil: check nothing

	// inflight is held for reading by changing operations, so that whoever
	// releases the directory's lock can wait for the last of them.
	inflight sync.RWMutex

	gateMu  sync.Mutex
	backoff time.Duration // of the next table; 0 while tables succeed
	openAt  time.Time     // no table is created before
}

func newGuardFS(inner vfs.FS, h *halter) *guardFS {
	return &guardFS{FS: inner, halter: h, closing: make(chan struct{})}
}

// Unwrap implements vfs.FS.
func (g *guardFS) Unwrap() vfs.FS { return g.FS }

// change runs one changing operation unless the engine has halted.
func (g *guardFS) change(op func() error) error {
	g.inflight.RLock()
	if g.fenced() {
		g.inflight.RUnlock()
		park()
	}
	err := op()
	g.inflight.RUnlock()
	return err
}

// insist runs a changing operation until there is room for it and returns its
// result or the error that is not about room. op may be run many times.
func (g *guardFS) insist(op func() error) error {
	err := g.change(op)
	if err == nil || !isSpaceError(err) {
		return err
	}
	if g.phase.Load() != phaseRunning {
		g.halt(err)
	}
	g.health.block(err)
	for wait := roomBackoffMin; ; wait = min(2*wait, roomBackoffMax) {
		select {
		case <-time.After(wait):
		case <-g.closing:
			g.halt(errors.Join(errClosing, err))
		}
		err = g.change(op)
		if err == nil || !isSpaceError(err) {
			g.health.unblock()
			return err
		}
	}
}

// passTableGate waits until a table may be created after one ran out of room.
func (g *guardFS) passTableGate() {
	g.gateMu.Lock()
	wait := time.Until(g.openAt)
	g.gateMu.Unlock()
	if wait <= 0 {
		return
	}
	select {
	case <-time.After(wait):
	case <-g.closing:
		g.halt(errClosing)
	}
}

// yieldTable notes that the table at name ran out of room.
func (g *guardFS) yieldTable(name string, cause error) {
	if g.phase.Load() != phaseRunning {
		// Pebble would try again for ever. The half-written table belongs to
		// no version yet; left behind it would keep the room it takes.
		_ = g.FS.Remove(name)
		g.halt(cause)
	}
	g.closeTableGate()
	g.health.yield(cause)
}

// closeTableGate holds up the next table, longer each time: Pebble starts a
// failed flush again at once.
func (g *guardFS) closeTableGate() {
	g.gateMu.Lock()
	defer g.gateMu.Unlock()
	g.backoff = min(max(2*g.backoff, tableBackoffMin), tableBackoffMax)
	g.openAt = time.Now().Add(g.backoff)
}

// tableDone notes that a table was written whole.
func (g *guardFS) tableDone() {
	g.gateMu.Lock()
	was := g.backoff
	g.backoff = 0
	g.gateMu.Unlock()
	if was != 0 {
		g.health.resume()
	}
}

// isTable reports whether a flush or compaction writes the file, which Pebble
// can abandon.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

// Create implements vfs.FS.
func (g *guardFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	var f vfs.File
	create := func() (err error) {
		f, err = g.FS.Create(name, category)
		return err
	}
	if isTable(name) {
		g.passTableGate()
		err := g.change(create)
		if err != nil {
			if isSpaceError(err) {
				g.yieldTable(name, err)
			} else {
				g.closeTableGate()
			}
			return nil, err
		}
		return g.wrap(f, name), nil
	}
	if err := g.insist(create); err != nil {
		return nil, g.vital(name, err)
	}
	return g.wrap(f, name), nil
}

// vital halts the engine when a log or MANIFEST could not be made, since Pebble
// would panic or exit, and returns err for other files.
func (g *guardFS) vital(name string, err error) error {
	if kind, _ := parseLogName(g.PathBase(name)); kind != notALog {
		g.halt(fmt.Errorf("create %s: %w", name, err))
	}
	return err
}

// ReuseForWrite implements vfs.FS. A rename that succeeded before the open of
// the new name found no room is not repeated.
func (g *guardFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	var f vfs.File
	err := g.insist(func() (err error) {
		f, err = g.FS.ReuseForWrite(oldname, newname, category)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = g.FS.OpenReadWrite(newname, category)
		}
		return err
	})
	if err != nil {
		return nil, g.vital(newname, err)
	}
	return g.wrap(f, newname), nil
}

// OpenReadWrite implements vfs.FS.
func (g *guardFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	var f vfs.File
	err := g.insist(func() (err error) {
		f, err = g.FS.OpenReadWrite(name, category, opts...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return g.wrap(f, name), nil
}

// Open implements vfs.FS. Files opened for reading are not wrapped.
func (g *guardFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if g.phase.Load() == phaseOpening && g.checker != nil {
		if err := g.checker.check(name); err != nil {
			return nil, err
		}
	}
	return g.FS.Open(name, opts...)
}

// OpenDir implements vfs.FS.
func (g *guardFS) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return g.wrap(f, name), nil
}

// Link implements vfs.FS.
func (g *guardFS) Link(oldname, newname string) error {
	return g.insist(func() error { return g.FS.Link(oldname, newname) })
}

// Rename implements vfs.FS.
func (g *guardFS) Rename(oldname, newname string) error {
	return g.insist(func() error { return g.FS.Rename(oldname, newname) })
}

// MkdirAll implements vfs.FS.
func (g *guardFS) MkdirAll(dir string, perm os.FileMode) error {
	return g.insist(func() error { return g.FS.MkdirAll(dir, perm) })
}

// Remove implements vfs.FS. Nothing depends on a file being gone, so an error
// is Pebble's to report.
func (g *guardFS) Remove(name string) error {
	return g.change(func() error { return g.FS.Remove(name) })
}

// RemoveAll implements vfs.FS.
func (g *guardFS) RemoveAll(name string) error {
	return g.change(func() error { return g.FS.RemoveAll(name) })
}

// Lock implements vfs.FS. The engine holds the directory's lock already.
func (g *guardFS) Lock(string) (io.Closer, error) { return lent{}, nil }

// drained waits, for at most the given time, until no changing operation is
// under way. It is called after a halt, when none can begin.
func (g *guardFS) drained(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; {
		if g.inflight.TryLock() {
			g.inflight.Unlock()
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
}
