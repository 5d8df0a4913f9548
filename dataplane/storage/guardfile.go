package storage

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guardFile is a file of guardFS that may be written. Pebble never calls Write
// and Sync of one file at the same time, so written needs no lock.
type guardFile struct {
	vfs.File
	fs      *guardFS
	name    string
	table   bool
	kind    logKind
	num     uint64
	written int64 // bytes from the file's start, for logs
}

func (g *guardFS) wrap(f vfs.File, name string) vfs.File {
	w := &guardFile{File: f, fs: g, name: name, table: isTable(name)}
	w.kind, w.num = parseLogName(g.PathBase(name))
	return w
}

// Write implements io.Writer. For a log or MANIFEST it returns only when all
// of p is written.
func (f *guardFile) Write(p []byte) (int, error) {
	if f.table {
		var n int
		err := f.fs.change(func() (err error) {
			n, err = f.File.Write(p)
			return err
		})
		if err != nil {
			if !isSpaceError(err) {
				f.halt("write", err)
			}
			f.fs.yieldTable(f.name, err)
		}
		return n, err
	}
	done := 0
	err := f.fs.insist(func() error {
		n, err := f.File.Write(p[done:])
		done += n
		return err
	})
	if err != nil {
		f.halt("write", err)
	}
	f.written += int64(done)
	return done, nil
}

// WriteAt implements io.WriterAt.
func (f *guardFile) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	err := f.fs.insist(func() error {
		n, err := f.File.WriteAt(p[done:], off+int64(done))
		done += n
		return err
	})
	if err != nil {
		f.halt("write", err)
	}
	return done, nil
}

// Preallocate implements vfs.File. It is an optimisation: Pebble ignores that
// there was no room for it.
func (f *guardFile) Preallocate(offset, length int64) error {
	return f.fs.change(func() error { return f.File.Preallocate(offset, length) })
}

// Sync implements vfs.File.
func (f *guardFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *guardFile) SyncData() error { return f.sync(f.File.SyncData) }

// SyncTo implements vfs.File. Its errors are as final as those of a sync: the
// kernel reports a failed write-back once, to whoever asks first.
func (f *guardFile) SyncTo(length int64) (fullSync bool, err error) {
	err = f.fs.change(func() (err error) {
		fullSync, err = f.File.SyncTo(length)
		return err
	})
	return fullSync, f.synced(err)
}

func (f *guardFile) sync(op func() error) error {
	written := f.written
	err := f.fs.change(op)
	if err := f.synced(err); err != nil {
		return err
	}
	if f.table {
		f.fs.tableDone()
	}
	if f.kind != notALog && f.fs.marks != nil {
		f.fs.marks.set(f.kind, f.num, written)
	}
	return nil
}

// synced halts on a failed sync, but for a table that found no room: Pebble
// throws that file away and never asks for it again.
func (f *guardFile) synced(err error) error {
	if err == nil {
		return nil
	}
	if !f.table || !isSpaceError(err) {
		f.halt("sync", err)
	}
	f.fs.yieldTable(f.name, err)
	return err
}

// Close implements io.Closer. A log whose close failed may have lost a write.
func (f *guardFile) Close() error {
	err := f.File.Close()
	if err != nil && f.kind != notALog {
		f.halt("close", err)
	}
	return err
}

func (f *guardFile) halt(op string, err error) {
	f.fs.halt(fmt.Errorf("%s %s: %w", op, f.name, err))
}
