package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// notRun skips a test, and says so where it is seen: a fault that is not
// tested should not look like one that is survived.
func notRun(t *testing.T, why string) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "NOT RUN: %s: %s\n", t.Name(), why)
	t.Skip(why)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		notRun(t, "needs root to mount a disk of its own")
	}
}

// mount mounts and sees to it that nothing stays mounted. Servers on it must
// be started after, so that they are killed before.
func mount(t *testing.T, source, kind, data string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount(source, dir, kind, 0, data); err != nil {
		notRun(t, fmt.Sprintf("cannot mount %s: %v", kind, err))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil && err != syscall.EINVAL {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// tmpfs mounts a memory disk of so many MiB.
func tmpfs(t *testing.T, mib int) string {
	t.Helper()
	needRoot(t)
	return mount(t, "tmpfs", "tmpfs", fmt.Sprintf("size=%dm,mode=755", mib))
}

// disk is an ext4 file system in a file.
type disk struct {
	t                  *testing.T
	image, device, dir string
}

// ext4 makes and mounts a disk of so many MiB.
func ext4(t *testing.T, mib int) *disk {
	t.Helper()
	needRoot(t)
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "image")}
	file, err := os.Create(d.image)
	require.NoError(t, err)
	require.NoError(t, file.Truncate(int64(mib)<<20))
	require.NoError(t, file.Close())
	if out, err := exec.Command("mkfs.ext4", "-q", d.image).CombinedOutput(); err != nil {
		notRun(t, fmt.Sprintf("mkfs.ext4: %v %s", err, out))
	}
	if out, err := d.attach(); err != nil {
		notRun(t, fmt.Sprintf("losetup: %v %s", err, out))
	}
	t.Cleanup(d.detach)
	d.dir = mount(t, d.device, "ext4", "errors=remount-ro")
	return d
}

// attach finds a loop device for the image.
func (d *disk) attach() (string, error) {
	out, err := exec.Command("losetup", "--find", "--show", d.image).CombinedOutput()
	d.device = strings.TrimSpace(string(out))
	return d.device, err
}

func (d *disk) detach() {
	if out, err := exec.Command("losetup", "--detach", d.device).CombinedOutput(); err != nil {
		d.t.Errorf("losetup: %v %s", err, out)
	}
}

// cutPower ends a server as the loss of power does: what it had not synced is
// gone. The server is stopped, with every system call it was in at its end; the
// image, which is what has been written to the disk and nothing of what the
// kernel still holds, is set aside; then the server is killed and the disk put
// back as it was. Whatever a client was told before, the disk must know.
//
// Failing the disk under the server instead would accuse it of what others do:
// an fsync that is under way while ext4 aborts its journal may return success
// without having written anything (seen on Linux 6.18).
func (d *disk) cutPower(s *process.Server) {
	d.t.Helper()
	require.NoError(d.t, s.Signal(syscall.SIGSTOP))
	eventually(d.t, "all threads stopped", func() bool { return stopped(d.t, s.PID()) })
	aside := d.image + ".aside"
	out, err := exec.Command("cp", "--sparse=always", d.image, aside).CombinedOutput()
	require.NoError(d.t, err, string(out))
	s.Kill()
	require.NoError(d.t, syscall.Unmount(d.dir, 0))
	d.detach()
	require.NoError(d.t, os.Rename(aside, d.image))
	what, err := d.attach()
	require.NoError(d.t, err, what)
	require.NoError(d.t, syscall.Mount(d.device, d.dir, "ext4", 0, "errors=remount-ro"))
}

// stopped tells whether every thread of a process is stopped, so that none is
// inside a system call.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	require.NoError(t, err)
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if !strings.HasPrefix(rest, "T") && !strings.HasPrefix(rest, "t") { // t when traced
			return false
		}
	}
	return true
}

// failReadOnly makes the kernel find an error in the file system, for which it
// remounts it read-only under its users. Nobody may be in an fsync, see
// cutPower.
func (d *disk) failReadOnly() {
	d.t.Helper()
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(d.device), "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("1"), 0o200); err != nil {
		notRun(d.t, fmt.Sprintf("cannot trigger an error: %v", err))
	}
}

// repair brings a failed disk back. No process may use it.
func (d *disk) repair() {
	d.t.Helper()
	require.NoError(d.t, syscall.Unmount(d.dir, 0))
	// Exit code 1 means that errors were corrected.
	out, err := exec.Command("e2fsck", "-f", "-y", d.device).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() == 1 {
		err = nil
	}
	require.NoError(d.t, err, string(out))
	require.NoError(d.t, syscall.Mount(d.device, d.dir, "ext4", 0, "errors=remount-ro"))
}
