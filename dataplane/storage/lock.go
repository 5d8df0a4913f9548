package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lockName is Pebble's own lock file; holding it before Pebble opens covers
// what Open does around it.
const lockName = "LOCK"

// pidName names a file with the process id of whoever last locked the
// directory. It only serves the error message of the next.
const pidName = "PID"

// dirLock is the lock on a data directory. The system releases it when the
// process ends.
type dirLock struct {
	fs   vfs.FS
	dir  string
	held io.Closer
}

// lockDir locks dir. It returns ErrLocked, naming the directory and if known
// the process, when another holds it.
func lockDir(fsys vfs.FS, dir string) (*dirLock, error) {
	held, err := fsys.Lock(fsys.PathJoin(dir, lockName))
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			return nil, unwritable(err) // the lock file could not be made
		}
		return nil, fmt.Errorf("%w: %s%s: %w", ErrLocked, dir, holder(fsys, dir), err)
	}
	l := &dirLock{fs: fsys, dir: dir, held: held}
	l.writePID()
	return l, nil
}

func (l *dirLock) writePID() {
	f, err := l.fs.Create(l.fs.PathJoin(l.dir, pidName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return // only a message is poorer
	}
	_, _ = f.Write(strconv.AppendInt(nil, int64(os.Getpid()), 10))
	_ = f.Close()
}

// holder returns " by process N" if the process is known.
func holder(fsys vfs.FS, dir string) string {
	f, err := fsys.Open(fsys.PathJoin(dir, pidName))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 20))
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" by process %d", pid)
}

func (l *dirLock) release() error {
	_ = l.fs.Remove(l.fs.PathJoin(l.dir, pidName))
	return l.held.Close()
}

// lent is what Pebble gets when it locks the directory that l already holds.
type lent struct{}

func (lent) Close() error { return nil }
