package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// patience bounds how long a test waits for something that must happen.
const patience = 30 * time.Second

// smallDisk mounts a file system of the given size, or skips the test.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	at := t.TempDir()
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) })
	return at
}

func diskOptions(at string) Options {
	opts := DefaultOptions(filepath.Join(at, "node"))
	opts.CacheBytes = 1 << 20
	opts.MemTableBytes = memTableBytesMin
	return opts
}

// fill takes all free space of the disk but leave bytes and returns a function
// that gives it back.
func fill(t *testing.T, at string, leave int64) (free func()) {
	t.Helper()
	name := filepath.Join(at, "filler")
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	chunk := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(chunk)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	if leave > 0 {
		size, err := f.Seek(0, 2)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(max(0, size-leave)))
	}
	return func() { require.NoError(t, os.Remove(name)) }
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 5*time.Millisecond, what)
}

// noise does not compress.
func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestHealthReportsLowSpaceBeforeTheDiskIsFull(t *testing.T) {
	t.Parallel()
	at := smallDisk(t, 32)
	e := mustOpen(t, diskOptions(at))
	require.NoError(t, e.Health())
	usage, err := e.DiskUsage()
	require.NoError(t, err)
	require.EqualValues(t, 32<<20, usage.TotalBytes)

	free := fill(t, at, 1<<20) // the reserve is a twentieth of 32 MiB
	eventually(t, "low space", func() bool { return e.Health() != nil })
	require.ErrorIs(t, e.Health(), rpc.ErrStorageFull)
	// What is in flight still finds room.
	require.NoError(t, e.DB().Set([]byte("\x22k"), []byte("v"), pebble.Sync))
	free()
	eventually(t, "space again", func() bool { return e.Health() == nil })
	require.NoError(t, e.Close())
	require.ErrorIs(t, e.Health(), rpc.ErrClosed)
}

// TestFullDiskBlocksAndRecovers fills the disk under concurrent synced writes,
// flushes and compactions, several times. No write may fail, Pebble must
// survive, and everything acknowledged must be there at the end.
func TestFullDiskBlocksAndRecovers(t *testing.T) {
	t.Parallel()
	at := smallDisk(t, 48)
	opts := diskOptions(at)
	opts.FreeReserveBytes = -1
	e := mustOpen(t, opts)
	var acked [4]atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range acked {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				// A bounded set of keys keeps the data small, compactions busy.
				key := fmt.Appendf(nil, "\x22%d-%04d", w, i%500)
				value := fmt.Appendf(noise(rng, 2000), "%012d", i)
				if err := e.DB().Set(key, value, pebble.Sync); err != nil {
					t.Errorf("set: %v", err)
				}
				acked[w].Store(i + 1)
			}
		})
	}
	total := func() (n int64) {
		for w := range acked {
			n += acked[w].Load()
		}
		return n
	}
	for round := range 3 {
		free := fill(t, at, int64(round)*500<<10)
		eventually(t, "full", func() bool { return e.Health() != nil })
		require.ErrorIs(t, e.Health(), rpc.ErrStorageFull)
		free()
		eventually(t, "room", func() bool { return e.Health() == nil })
		before := total()
		eventually(t, "writes go on", func() bool { return total() > before+2000 })
	}
	close(stop)
	wg.Wait()
	require.NoError(t, e.Err())
	require.NoError(t, e.Close())

	e = mustOpen(t, opts)
	for w := range acked {
		n := acked[w].Load()
		for i := max(0, n-500); i < n; i++ {
			got, closer, err := e.DB().Get(fmt.Appendf(nil, "\x22%d-%04d", w, i%500))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("%012d", i), string(got[2000:]))
			require.NoError(t, closer.Close())
		}
	}
	require.NoError(t, e.Close())
}

// faults injects an error into chosen operations while it is set.
type faults struct {
	hook atomic.Pointer[func(errorfs.Op) error]
}

func (f *faults) wrap(fsys vfs.FS) vfs.FS {
	return errorfs.Wrap(fsys, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if hook := f.hook.Load(); hook != nil {
			return (*hook)(op)
		}
		return nil
	}))
}

func (f *faults) set(hook func(errorfs.Op) error) { f.hook.Store(&hook) }
func (f *faults) clear()                          { f.hook.Store(nil) }

func isWrite(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpLink, errorfs.OpRename, errorfs.OpReuseForWrite, errorfs.OpFileWrite, errorfs.OpFilePreallocate:
		return true
	}
	return false
}

// TestNoRoomIsWaitedOut goes through the errors that mean no room: each write
// of each kind of file meets them, waits, and succeeds when they end.
func TestNoRoomIsWaitedOut(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			var f faults
			e := mustOpen(t, memOptions(f.wrap(vfs.NewMem())))
			for _, act := range []func() error{
				func() error { return e.DB().Set([]byte("\x22a"), []byte("1"), pebble.Sync) },
				func() error { return e.DB().Flush() },
				func() error { // a compaction gives up, and only who asked for it is told
					err := e.DB().Compact(t.Context(), []byte{0}, []byte{0xff}, false)
					if errors.Is(Classify(err), rpc.ErrStorageFull) {
						err = nil
					}
					return err
				},
			} {
				f.set(func(op errorfs.Op) error {
					if isWrite(op) {
						return errno
					}
					return nil
				})
				done := make(chan error, 1)
				go func() { done <- act() }()
				eventually(t, "full", func() bool { return e.Health() != nil || len(done) > 0 })
				f.clear()
				require.NoError(t, <-done)
				eventually(t, "room", func() bool { return e.Health() == nil })
			}
			require.NoError(t, e.Close())
		})
	}
}

// TestHealthDuringWait shows that nothing is acknowledged while there is no
// room and that health says so until then.
func TestHealthDuringWait(t *testing.T) {
	t.Parallel()
	var f faults
	e := mustOpen(t, memOptions(f.wrap(vfs.NewMem())))
	f.set(func(op errorfs.Op) error {
		if isWrite(op) {
			return syscall.ENOSPC
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- e.DB().Set([]byte("\x22a"), []byte("1"), pebble.Sync) }()
	eventually(t, "full", func() bool { return e.Health() != nil })
	require.ErrorIs(t, e.Health(), rpc.ErrStorageFull)
	require.ErrorIs(t, e.SetClusterID("c"), rpc.ErrStorageFull)
	require.Empty(t, done)
	require.NoError(t, e.Err())
	f.clear()
	require.NoError(t, <-done)
	require.NoError(t, e.Health())
	require.NoError(t, e.Close())
}

func TestPartialWritesAreResumed(t *testing.T) {
	t.Parallel()
	at := smallDisk(t, 8)
	h := &halter{logger: DefaultOptions("").Logger, halted: make(chan struct{})}
	h.health = &health{logger: h.logger}
	g := newGuardFS(vfs.Default, h)
	g.phase.Store(phaseRunning)
	name := filepath.Join(at, "000001.log")
	file, err := g.Create(name, "test")
	require.NoError(t, err)
	free := fill(t, at, 100<<10)

	want := noise(rand.New(rand.NewPCG(1, 1)), 300<<10)
	done := make(chan error, 1)
	go func() {
		n, err := file.Write(append([]byte(nil), want...))
		if n != len(want) {
			t.Errorf("wrote %d of %d", n, len(want))
		}
		done <- err
	}()
	eventually(t, "full", func() bool { return h.health.err() != nil })
	free()
	require.NoError(t, <-done)
	require.NoError(t, file.Close())
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	at := smallDisk(t, 32)
	opts := diskOptions(at)
	e := mustOpen(t, opts)
	require.NoError(t, e.DB().Set([]byte("\x22a"), []byte("1"), pebble.Sync))
	require.NoError(t, e.Close())

	require.NoError(t, syscall.Mount("tmpfs", at, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	_, err := Open(opts)
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorContains(t, err, opts.Dir)
	require.NoError(t, syscall.Mount("tmpfs", at, "tmpfs", syscall.MS_REMOUNT, ""))
	require.NoError(t, mustOpen(t, opts).Close())
}
