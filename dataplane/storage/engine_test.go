package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestCleanStopLeavesAnEmptyLog(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	e := mustOpen(t, memOptions(fsys))
	for i := range 100 {
		set(t, e, fmt.Sprintf("\x22%d", i), "value")
	}
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())

	var newest, size int64
	names, err := fsys.List(dir)
	require.NoError(t, err)
	for _, name := range names {
		if kind, num := parseLogName(name); kind == walLog && int64(num) > newest {
			info, err := fsys.Stat(fsys.PathJoin(dir, name))
			require.NoError(t, err)
			newest, size = int64(num), info.Size()
		}
	}
	require.EqualValues(t, recyclableHeaderBytes, size, "only the trailer")
	require.NotContains(t, names, pidName)

	e = mustOpen(t, memOptions(fsys))
	requireValue(t, e, "\x2299", "value")
	require.NoError(t, e.Close())
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want   string
		change func(*Options)
	}{
		{"no Dir", func(o *Options) { o.Dir = "" }},
		{"CacheBytes", func(o *Options) { o.CacheBytes = -1 }},
		{"MemTableBytes", func(o *Options) { o.MemTableBytes = 1 }},
		{"NodeID", func(o *Options) { o.NodeID = strings.Repeat("x", maxIDBytes+1) }},
	} {
		opts := memOptions(vfs.NewMem())
		c.change(&opts)
		_, err := Open(opts)
		require.ErrorContains(t, err, c.want)
	}
	got, err := Options{Dir: dir}.complete()
	require.NoError(t, err)
	want := DefaultOptions(dir)
	require.NotNil(t, got.Logger)
	got.Logger, want.Logger = nil, nil
	require.Equal(t, want, got)
}

func TestReserve(t *testing.T) {
	t.Parallel()
	const gb = 1 << 30
	for _, c := range []struct {
		option int64
		total  uint64
		want   uint64
	}{
		{0, 1000 * gb, FreeReserveBytesDefault},
		{0, 100 << 20, 5 << 20},
		{123, gb, 123},
		{-1, gb, 0},
	} {
		e := &Engine{opts: Options{FreeReserveBytes: c.option}}
		require.Equal(t, c.want, e.reserve(vfs.DiskUsage{TotalBytes: c.total}))
	}
}

func TestLowSpaceHasHysteresis(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	usage := func(avail uint64) {
		fsys.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: avail, TotalBytes: 1 << 40})
	}
	opts := memOptions(fsys)
	opts.FreeReserveBytes = 1000
	usage(999)
	e := mustOpen(t, opts)
	require.ErrorIs(t, e.Health(), rpc.ErrStorageFull, "from the start")
	for _, step := range []struct {
		avail uint64
		full  bool
	}{{1000, true}, {1249, true}, {1250, false}, {1000, false}, {999, true}, {0, true}, {5000, false}} {
		usage(step.avail)
		e.sampleSpace()
		require.Equal(t, step.full, e.Health() != nil, "%d bytes", step.avail)
	}
	require.NoError(t, e.Close())
}

func TestHealthPrecedence(t *testing.T) {
	t.Parallel()
	h := &health{logger: slog.New(slog.DiscardHandler)}
	require.NoError(t, h.err())
	cause := errors.New("cause")
	h.block(cause)
	h.block(cause)
	h.unblock()
	require.ErrorIs(t, h.err(), rpc.ErrStorageFull)
	require.ErrorIs(t, h.err(), cause)
	h.setCorrupt(cause)
	require.ErrorIs(t, h.err(), rpc.ErrCorrupt)
	h.unblock()
	require.ErrorIs(t, h.err(), rpc.ErrCorrupt, "damage does not heal")
	h.setFinal(rpc.ErrClosed)
	h.setFinal(ErrFailed)
	require.ErrorIs(t, h.err(), rpc.ErrClosed, "the first end counts")
}

// A block that fails its checksum is reported to the reader and to Health, and
// does not stop the process.
func TestCorruptTableIsReported(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	require.NoError(t, mustOpen(t, memOptions(fsys)).Close()) // the identity has its own table
	e := mustOpen(t, memOptions(fsys))
	set(t, e, "\x22k", "value")
	require.NoError(t, e.Close())
	names, err := fsys.List(dir)
	require.NoError(t, err)
	slices.Sort(names)
	tables := slices.DeleteFunc(names, func(name string) bool { return !isTable(name) })
	flipBit(t, fsys, fsys.PathJoin(dir, tables[len(tables)-1]), 100)
	e = mustOpen(t, memOptions(fsys))
	_, _, err = e.DB().Get([]byte("\x22k"))
	require.ErrorIs(t, Classify(err), rpc.ErrCorrupt)
	require.ErrorIs(t, e.Health(), rpc.ErrCorrupt)
	require.NoError(t, e.Err())
	require.NoError(t, e.Close())
}

func TestClassify(t *testing.T) {
	t.Parallel()
	require.NoError(t, Classify(nil))
	require.Equal(t, pebble.ErrNotFound, Classify(pebble.ErrNotFound))
	require.ErrorIs(t, Classify(fmt.Errorf("read: %w", pebble.ErrCorruption)), rpc.ErrCorrupt)
	full := Classify(&fs.PathError{Op: "write", Err: syscall.ENOSPC})
	require.ErrorIs(t, full, rpc.ErrStorageFull)
	require.ErrorIs(t, full, syscall.ENOSPC)
	require.Equal(t, full, Classify(full))

	require.ErrorIs(t, classifyOpen(errors.New("size mismatch")), rpc.ErrCorrupt)
	require.ErrorIs(t, classifyOpen(&fs.PathError{Err: syscall.ENOENT}), rpc.ErrCorrupt)
	require.NotErrorIs(t, classifyOpen(&fs.PathError{Err: syscall.EMFILE}), rpc.ErrCorrupt)
	require.ErrorIs(t, unwritable(&fs.PathError{Err: syscall.EACCES}), ErrReadOnly)
	require.ErrorIs(t, unwritable(syscall.EROFS), ErrReadOnly)
}

func TestTablesAreCutBetweenLogAndMessages(t *testing.T) {
	t.Parallel()
	e := mustOpen(t, memOptions(vfs.NewMem()))
	for _, space := range []byte{SpaceNode, SpaceLog, SpaceStable, SpaceMessage} {
		set(t, e, string(AppendPrefix(nil, space, 1))+"k", "v")
	}
	require.NoError(t, e.DB().Flush())
	tables, err := e.DB().SSTables()
	require.NoError(t, err)
	isLog := func(key []byte) bool { return key[0] == SpaceLog }
	found := 0
	for _, level := range tables {
		for _, table := range level {
			require.Equal(t, isLog(table.Smallest.UserKey), isLog(table.Largest.UserKey))
			found++
		}
	}
	require.GreaterOrEqual(t, found, 3)
	require.NotNil(t, e.Metrics())
	require.NoError(t, e.Close())
}

func TestPrefixesOrderSpacesBeforeGroups(t *testing.T) {
	t.Parallel()
	a := AppendPrefix([]byte("x"), SpaceLog, 0x0102)
	require.Equal(t, []byte{'x', SpaceLog, 1, 2}, a)
	require.Len(t, AppendPrefix(nil, SpaceLog, 1), PrefixLen)
	require.Negative(t, strings.Compare(string(AppendPrefix(nil, SpaceLog, 65535)), string(AppendPrefix(nil, SpaceStable, 0))))
}

func TestBackgroundErrorsAreLoggedSparingly(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	l := limitedLog{logger: slog.New(slog.NewTextHandler(&out, nil))}
	for range 100 {
		l.warn("failed", errors.New("cause"))
	}
	require.Equal(t, 1, strings.Count(out.String(), "failed"))
	l.last = l.last.Add(-2 * backgroundLogInterval)
	l.warn("failed", errors.New("cause"))
	require.Contains(t, out.String(), "dropped=99")
	require.WithinDuration(t, time.Now(), l.last, time.Minute)
}
