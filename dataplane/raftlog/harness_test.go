package raftlog

import (
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/storage"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(dir)
	}
	goleak.VerifyTestMain(m)
}

func engineOptions(fsys vfs.FS) storage.Options {
	opts := storage.DefaultOptions("/data")
	opts.FS = fsys
	opts.CacheBytes = 1 << 20
	opts.MemTableBytes = 1 << 20
	return opts
}

func mustEngine(t require.TestingT, opts storage.Options) *storage.Engine {
	e, err := storage.Open(opts)
	require.NoError(t, err)
	return e
}

func mustLog(t require.TestingT, e *storage.Engine, group uint16) *Log {
	l, err := Open(e.DB(), group, Options{})
	require.NoError(t, err)
	return l
}

// memLog returns a log on a file system in memory.
func memLog(t testing.TB) *Log {
	e := mustEngine(t, engineOptions(vfs.NewMem()))
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return mustLog(t, e, 7)
}

func entries(from, to, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Data: []byte{byte(i), byte(term)}})
	}
	return logs
}
