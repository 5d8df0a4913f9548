package storage

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// A halted engine parks goroutines until the process ends, so each such case
// runs in a process of its own: this test binary again, with childEnv naming
// the case and childDir the directory.
const (
	childEnv = "STORAGE_TEST_CHILD"
	childDir = "STORAGE_TEST_DIR"
)

var childCases = map[string]func(t *testing.T, dir string){
	"log sync fails":         childLogSyncFails,
	"manifest sync fails":    childManifestSyncFails,
	"table write fails":      childTableWriteFails,
	"close while full":       childCloseWhileFull,
	"open while full":        childOpenWhileFull,
	"hold":                   childHold,
	"fatal error of pebble":  childFatalf,
	"log cannot be created":  childLogCreateFails,
	"close with a full disk": childCloseFlushFull,
}

// TestInChild is not a test of its own.
func TestInChild(t *testing.T) {
	run := childCases[os.Getenv(childEnv)]
	if run == nil {
		t.Skip("runs in a child process of TestHalts")
	}
	run(t, os.Getenv(childDir))
}

func child(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), childEnv+"="+name, childDir+"="+dir)
	return cmd
}

func TestHalts(t *testing.T) {
	t.Parallel()
	for name := range childCases {
		if name == "hold" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := smallDisk(t, 32)
			out, err := child(t, name, at).CombinedOutput()
			require.NoError(t, err, "%s", out)
			// Whatever happened, what was acknowledged is there.
			e := mustOpen(t, diskOptions(at))
			requireValue(t, e, "\x22acked", "1")
			require.NoError(t, e.Close())
		})
	}
}

func requireValue(t *testing.T, e *Engine, key, want string) {
	t.Helper()
	got, closer, err := e.DB().Get([]byte(key))
	require.NoError(t, err)
	require.Equal(t, want, string(got))
	require.NoError(t, closer.Close())
}

func set(t *testing.T, e *Engine, key, value string) {
	t.Helper()
	require.NoError(t, e.DB().Set([]byte(key), []byte(value), pebble.Sync))
}

// failOn opens an engine, acknowledges a write, lets act meet EIO in the
// operations that hook picks, and checks how the engine halts.
func failOn(t *testing.T, at string, hook func(errorfs.Op) bool, act func(*Engine)) {
	var f faults
	opts := diskOptions(at)
	opts.FS = f.wrap(vfs.Default)
	e := mustOpen(t, opts)
	set(t, e, "\x22acked", "1")
	f.set(func(op errorfs.Op) error {
		if hook(op) {
			return syscall.EIO
		}
		return nil
	})
	returned := make(chan struct{})
	go func() { act(e); close(returned) }()
	<-e.Failed()
	requireHalted(t, e)
	f.clear()
	before := listing(t, opts.Dir)
	blocked := make(chan struct{})
	go func() {
		_ = e.DB().Set([]byte("\x22late"), []byte("1"), pebble.Sync)
		close(blocked)
	}()
	requireValue(t, e, "\x22acked", "1") // reads go on
	require.ErrorIs(t, e.Close(), ErrFailed)
	require.ErrorIs(t, e.Close(), ErrFailed)
	select {
	case <-returned:
		t.Fatal("the failed operation returned")
	case <-blocked:
		t.Fatal("a write succeeded after the failure")
	default:
	}
	delete(before, pidName) // Close gives up the lock
	require.Equal(t, before, listing(t, opts.Dir))
}

func requireHalted(t *testing.T, e *Engine) {
	t.Helper()
	require.ErrorIs(t, e.Err(), ErrFailed)
	require.ErrorIs(t, e.Health(), ErrFailed)
	require.ErrorIs(t, e.Health(), rpc.ErrUnavailable)
	require.Error(t, e.SetClusterID("c"))
}

func listing(t *testing.T, dir string) map[string]int64 {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	sizes := map[string]int64{}
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(t, err)
		sizes[entry.Name()] = info.Size()
	}
	return sizes
}

func opOn(kind logKind, kinds ...errorfs.OpKind) func(errorfs.Op) bool {
	return func(op errorfs.Op) bool {
		k, _ := parseLogName(filepath.Base(op.Path))
		for _, want := range kinds {
			if op.Kind == want && k == kind {
				return true
			}
		}
		return false
	}
}

func childLogSyncFails(t *testing.T, at string) {
	failOn(t, at, opOn(walLog, errorfs.OpFileSync, errorfs.OpFileSyncData),
		func(e *Engine) { _ = e.DB().Set([]byte("\x22a"), []byte("1"), pebble.Sync) })
}

func childManifestSyncFails(t *testing.T, at string) {
	failOn(t, at, opOn(manifestLog, errorfs.OpFileSync, errorfs.OpFileSyncData),
		func(e *Engine) { _ = e.DB().Flush() })
}

func childLogCreateFails(t *testing.T, at string) {
	failOn(t, at, opOn(walLog, errorfs.OpCreate, errorfs.OpReuseForWrite),
		func(e *Engine) { _ = e.DB().Flush() })
}

func childTableWriteFails(t *testing.T, at string) {
	failOn(t, at, func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && isTable(op.Path) },
		func(e *Engine) { _ = e.DB().Flush() })
}

func childFatalf(t *testing.T, at string) {
	failOn(t, at, func(errorfs.Op) bool { return false },
		func(e *Engine) { pebbleLogger{e.halter}.Fatalf("invariant %d broken", 1) })
}

// childCloseWhileFull closes while a write waits for room; the directory can be
// opened again in the same process.
func childCloseWhileFull(t *testing.T, at string) {
	opts := diskOptions(at)
	opts.FreeReserveBytes = -1
	e := mustOpen(t, opts)
	set(t, e, "\x22acked", "1")
	free := fill(t, at, 0)
	go func() {
		for { // the log's preallocated room may take some
			_ = e.DB().Set([]byte("\x22b"), make([]byte, 4096), pebble.Sync)
		}
	}()
	eventually(t, "full", func() bool { return e.Health() != nil })
	err := e.Close()
	require.ErrorIs(t, err, rpc.ErrStorageFull)
	free()
	e = mustOpen(t, opts)
	requireValue(t, e, "\x22acked", "1")
	require.NoError(t, e.Close())
}

// childCloseFlushFull closes when only the flush of Close finds no room.
func childCloseFlushFull(t *testing.T, at string) {
	opts := diskOptions(at)
	opts.FreeReserveBytes = -1
	e := mustOpen(t, opts)
	set(t, e, "\x22acked", "1")
	free := fill(t, at, 0)
	require.ErrorIs(t, e.Close(), rpc.ErrStorageFull)
	free()
}

// childOpenWhileFull opens a directory that has a log to replay on a full disk.
func childOpenWhileFull(t *testing.T, at string) {
	opts := diskOptions(at)
	killed := child(t, "hold", at)
	startHolding(t, killed)
	require.NoError(t, killed.Process.Kill())
	_ = killed.Wait()
	free := fill(t, at, 0)
	for range 3 {
		before := listing(t, opts.Dir)
		_, err := Open(opts)
		require.ErrorIs(t, err, rpc.ErrStorageFull)
		for name := range listing(t, opts.Dir) {
			if _, was := before[name]; !was {
				require.False(t, isTable(name), "%s is left behind", name)
			}
		}
	}
	free()
	require.NoError(t, mustOpen(t, opts).Close())
}

// childHold opens the directory, writes, says so and stays.
func childHold(t *testing.T, at string) {
	e := mustOpen(t, diskOptions(at))
	set(t, e, "\x22acked", "1")
	_, err := os.Stdout.WriteString("holding\n")
	require.NoError(t, err)
	_, _ = io.ReadAll(os.Stdin)
	require.NoError(t, e.Close())
}

// startHolding starts a "hold" child and returns when it holds. Closing the
// returned pipe ends it.
func startHolding(t *testing.T, cmd *exec.Cmd) io.Closer {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if lines.Text() == "holding" {
			return stdin
		}
	}
	t.Fatal("child did not open the directory")
	return nil
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	at := t.TempDir()
	cmd := child(t, "hold", at)
	stdin := startHolding(t, cmd)
	_, err := Open(diskOptions(at))
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, diskOptions(at).Dir)
	require.ErrorContains(t, err, "process "+strconv.Itoa(cmd.Process.Pid))
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
	require.NoError(t, mustOpen(t, diskOptions(at)).Close())
}

func TestSecondEngineIsRefused(t *testing.T) {
	t.Parallel()
	at := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(at, link))
	e := mustOpen(t, diskOptions(at))
	for _, other := range []string{at, link} {
		_, err := Open(diskOptions(other))
		require.ErrorIs(t, err, ErrLocked)
	}
	// The refused attempts have not released the lock.
	out, err := child(t, "hold", at).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), ErrLocked.Error())
	require.NoError(t, e.Close())
}
