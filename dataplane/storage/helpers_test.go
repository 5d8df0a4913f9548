package storage

import (
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// dir is the data directory in tests on a file system in memory.
const dir = "/data"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(m.Run()) // halted engines leave goroutines behind
	}
	goleak.VerifyTestMain(m)
}

func memOptions(fsys vfs.FS) Options {
	opts := DefaultOptions(dir)
	opts.FS = fsys
	opts.CacheBytes = 1 << 20
	opts.MemTableBytes = memTableBytesMin
	return opts
}

func mustOpen(t testing.TB, opts Options) *Engine {
	t.Helper()
	e, err := Open(opts)
	require.NoError(t, err)
	return e
}

func mustClone(t testing.TB, base *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	c := vfs.NewMem()
	ok, err := vfs.Clone(base, c, dir, dir)
	require.NoError(t, err)
	require.True(t, ok)
	return c
}
