package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Each sentinel is one thing an operator can do something about.
var (
	// ErrLocked: another process, or another Engine of this one, holds the
	// directory.
	ErrLocked = errors.New("data directory is in use")
	// ErrReadOnly: the directory or its file system does not allow writing.
	ErrReadOnly = errors.New("data directory is not writable")
	// ErrForeignNode: the directory belongs to another node.
	ErrForeignNode = errors.New("data directory belongs to another node")
	// ErrForeignCluster: the directory belongs to another cluster.
	ErrForeignCluster = errors.New("data directory belongs to another cluster")
	// ErrFormat: the directory was written by a version of the program whose
	// format this one does not know.
	ErrFormat = errors.New("data directory has an unknown format")
	// ErrFailed: the engine met an error after which it cannot promise that
	// anything more is durable. The process must restart.
	ErrFailed = errors.New("storage engine has failed and the process must restart")
)

// Classify gives an error from Pebble the sentinel a caller of the data plane
// decides on: rpc.ErrCorrupt for bytes that fail their checks,
// rpc.ErrStorageFull for a disk without room. Other errors, pebble.ErrNotFound
// among them, and nil are returned as they are.
func Classify(err error) error {
	switch {
	case err == nil, errors.Is(err, rpc.ErrCorrupt), errors.Is(err, rpc.ErrStorageFull):
		return err
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: %w", rpc.ErrCorrupt, err)
	case isSpaceError(err):
		return fmt.Errorf("%w: %w", rpc.ErrStorageFull, err)
	}
	return err
}

// classifyOpen is Classify for an error of pebble.Open. The options are always
// the same, so an error that the operating system did not give, or a file that
// must exist and does not, means that the files are not what was written.
func classifyOpen(err error) error {
	err = Classify(err)
	if errors.Is(err, rpc.ErrCorrupt) || errors.Is(err, rpc.ErrStorageFull) || errors.Is(err, ErrFailed) {
		return err
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", rpc.ErrCorrupt, err)
	}
	return err
}

// isSpaceError reports whether a write may succeed later without anything else
// changing than the room on, or the mount of, the file system.
func isSpaceError(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// unwritable turns an error met while preparing the directory into ErrReadOnly
// or rpc.ErrStorageFull where it is one.
func unwritable(err error) error {
	switch {
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	default:
		return Classify(err)
	}
}
