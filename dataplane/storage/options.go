package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Defaults of Options.
const (
	CacheBytesDefault    = 64 << 20
	MemTableBytesDefault = 32 << 20
	// FreeReserveBytesDefault applies to disks that are large enough; see
	// Options.FreeReserveBytes.
	FreeReserveBytesDefault = 64 << 20

	// memTableBytesMin keeps a memtable larger than the largest batch that is
	// worth keeping in one.
	memTableBytesMin = 1 << 20
	// reserveFraction bounds the default reserve on a small disk.
	reserveFraction = 20
)

// Options configure Open. DefaultOptions gives a complete set; a zero field
// takes its default.
type Options struct {
	// Dir is the data directory. It is made if it does not exist. Required.
	Dir string
	// NodeID is the node the directory must belong to. When it is empty any
	// node's directory is opened, and a new one gets a random id.
	NodeID string
	// Logger receives what Pebble reports, and changes of health. Nil discards.
	Logger *slog.Logger
	// CacheBytes bounds the block cache.
	CacheBytes int64
	// MemTableBytes is the size at which a memtable is flushed. Up to
	// memTablesMax of them are in memory.
	MemTableBytes int64
	// FreeReserveBytes is the free space below which Health reports
	// rpc.ErrStorageFull, so that what is in flight still finds room. 0 means
	// FreeReserveBytesDefault or a twentieth of the disk, whichever is smaller;
	// a negative value means none.
	FreeReserveBytes int64
	// FS replaces the operating system's file system, for tests.
	FS vfs.FS

	// reclaimInterval replaces the constant, for tests.
	reclaimInterval time.Duration
}

// DefaultOptions returns the options for a directory with every other field at
// its default.
func DefaultOptions(dir string) Options {
	return Options{
		Dir:           dir,
		Logger:        slog.New(slog.DiscardHandler),
		CacheBytes:    CacheBytesDefault,
		MemTableBytes: MemTableBytesDefault,
		FS:            vfs.Default,

		reclaimInterval: reclaimInterval,
	}
}

// complete fills in defaults and returns an error naming all invalid fields.
func (o Options) complete() (Options, error) {
	d := DefaultOptions(o.Dir)
	if o.Logger == nil {
		o.Logger = d.Logger
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = d.CacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = d.MemTableBytes
	}
	if o.reclaimInterval == 0 {
		o.reclaimInterval = d.reclaimInterval
	}
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("no Dir"))
	}
	if o.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("CacheBytes is %d", o.CacheBytes))
	}
	if o.MemTableBytes < memTableBytesMin {
		errs = append(errs, fmt.Errorf("MemTableBytes is %d, below %d", o.MemTableBytes, memTableBytesMin))
	}
	if len(o.NodeID) > maxIDBytes {
		errs = append(errs, fmt.Errorf("NodeID is longer than %d bytes", maxIDBytes))
	}
	if err := errors.Join(errs...); err != nil {
		return o, fmt.Errorf("storage options: %w", err)
	}
	if o.FS == nil {
		o.FS = d.FS
	}
	if o.FS == vfs.Default {
		// One spelling of the directory: the lock is by process and file, and
		// opening the lock file under a second name would release it.
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return o, fmt.Errorf("storage options: %w", err)
		}
		o.Dir = dir
	}
	return o, nil
}
