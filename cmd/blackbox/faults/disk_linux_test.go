package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// fill writes until a file system has no room, and returns the file.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	for size := 1 << 20; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			size /= 2
		}
	}
	return path
}

// appendUntilRefused appends one at a time until the storage refuses, and
// returns false if the server went away instead.
func appendUntilRefused(t *testing.T, s *process.Server, c *client.Client, l *ledger, id string) bool {
	t.Helper()
	const most = 20_000 // times 16 KiB: more than any disk of these tests holds
	for range most {
		n := unique.Add(1)
		a := l.begin(id, "", fmt.Sprintf("text-%d-%s", n, strings.Repeat("x", 16<<10)))
		err := l.send(t, c, a)
		switch status, answered := statusOf(err); {
		case err == nil:
		case !answered:
			<-s.Exited()
			return false
		case status == http.StatusGatewayTimeout, codeOf(err) == "unavailable":
			// The one that was under way when the disk failed, or waited behind
			// another that was.
		default:
			requireStorageFull(t, err)
			return true
		}
	}
	t.Fatalf("%d appends and no refusal", most)
	return false
}

// codeOf returns the code of an error answer, or nothing.
func codeOf(err error) string {
	var status *client.StatusError
	if !errors.As(err, &status) {
		return ""
	}
	return status.Reply.Fault().Code
}

func requireStorageFull(t *testing.T, err error) {
	t.Helper()
	var status *client.StatusError
	require.True(t, errors.As(err, &status), "%v", err)
	require.Equal(t, http.StatusServiceUnavailable, status.Reply.Status, status)
	require.Equal(t, "storage_full", status.Reply.Fault().Code, status)
	_, ok := status.Reply.RetryAfter()
	require.True(t, ok, "no Retry-After: %v", status)
}

// requireFarewell checks what a server that could not go on has said: it may
// give up, but then in words, with a way out.
func requireFarewell(t *testing.T, s *process.Server) {
	t.Helper()
	code, err := s.Wait(t.Context())
	require.NoError(t, err)
	require.NotZero(t, code)
	requireWords(t, s, "restart")
}

// A full disk stops writes, not reads, loses nothing, and is over when there is
// room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, 256)
	data := filepath.Join(dir, "data")
	l := &ledger{}
	server := process.MustStart(t, process.Config{DataDir: data})
	c := connect(t, server)
	ids := names(t, c, 10)
	run := startLoad(t, c, l, ids, 8, none)
	run.await(t, 200)
	run.end()

	for range 2 {
		filler := fill(t, dir)
		if alive := appendUntilRefused(t, server, c, l, ids[0]); alive {
			for range 20 {
				a := l.begin(ids[1], "", fmt.Sprintf("text-%d", unique.Add(1)))
				requireStorageFull(t, l.send(t, c, a))
			}
			require.Equal(t, http.StatusServiceUnavailable, ready(server))
			l.verify(t, c)
			require.NoError(t, os.Remove(filler))
			awaitRecovery(t, server, c, l, ids[2])
		} else {
			requireFarewell(t, server)
			require.NoError(t, os.Remove(filler))
			server = process.MustStart(t, process.Config{DataDir: data})
			c = connect(t, server)
		}
		l.verify(t, c)
	}
	server.MustStop(t)
	server = process.MustStart(t, process.Config{DataDir: data})
	l.verify(t, connect(t, server))
}

// awaitRecovery appends until it works again.
func awaitRecovery(t *testing.T, s *process.Server, c *client.Client, l *ledger, id string) {
	t.Helper()
	eventually(t, "an append after there is room again", func() bool {
		err := l.send(t, c, l.begin(id, "", fmt.Sprintf("text-%d", unique.Add(1))))
		return err == nil
	})
	eventually(t, "readiness", func() bool { return ready(s) == http.StatusOK })
}

// The disk fills up under concurrent appends; the server is then killed and
// started while it is still full, and once more when there is room.
func TestFullDiskUnderLoadAndKill(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, 256)
	data := filepath.Join(dir, "data")
	l := &ledger{}
	server := process.MustStart(t, process.Config{DataDir: data})
	c := connect(t, server)
	ids := names(t, c, 10)
	run := startLoad(t, c, l, ids, 8, func(status int) bool { return status >= 500 })
	run.await(t, 100)
	filler := fill(t, dir)
	appendUntilRefused(t, server, c, l, ids[0])
	server.Kill()
	run.end()

	// Whether it can start without room or says why not is its own choice.
	full := process.MustLaunch(t, process.Config{DataDir: data})
	eventually(t, "a start or a refusal", func() bool {
		select {
		case <-full.Exited():
			requireWords(t, full, dir)
			return true
		default:
			return ready(full) != 0
		}
	})
	full.Kill()
	require.NoError(t, os.Remove(filler))
	server = process.MustStart(t, process.Config{DataDir: data})
	c = connect(t, server)
	l.verify(t, c)
	l.retryUnknown(t, c)
	l.verify(t, c)
}

func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	dir := tmpfs(t, 256)
	used := filepath.Join(dir, "used")
	server := process.MustStart(t, process.Config{DataDir: used})
	c := connect(t, server)
	require.NoError(t, c.Create(t.Context(), "x"))
	_, err := c.Append(t.Context(), "x", client.TextBody("", "kept"))
	require.NoError(t, err)
	server.MustStop(t)

	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	for _, data := range []string{used, filepath.Join(dir, "new")} {
		requireRefusal(t, process.MustLaunch(t, process.Config{DataDir: data}), data, "read-only")
	}
	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=256m"))
	server = process.MustStart(t, process.Config{DataDir: used})
	_, log, err := connect(t, server).Verified(t.Context(), "x")
	require.NoError(t, err)
	require.Len(t, log, 1)
}

func TestDirectoryOfAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	// The directories that testing makes are closed to other users.
	home, err := os.MkdirTemp("", "fastpaca-fault-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	require.NoError(t, os.Chmod(home, 0o755))
	binary, err := process.Binary()
	require.NoError(t, err)
	program, err := os.ReadFile(binary)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(home, "fastpaca"), program, 0o755))
	data := filepath.Join(home, "data")
	require.NoError(t, os.Mkdir(data, 0o755))
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}
	requireRefusal(t, process.MustLaunch(t, process.Config{
		Binary: filepath.Join(home, "fastpaca"), DataDir: data, Credential: nobody,
	}), data, "permission denied")
}

// The kernel remounts a failing disk read-only under the server's feet.
func TestDiskTurnsReadOnly(t *testing.T) {
	t.Parallel()
	d := ext4(t, 512)
	data := filepath.Join(d.dir, "data")
	l := &ledger{}
	server := process.MustStart(t, process.Config{DataDir: data})
	c := connect(t, server)
	ids := names(t, c, 10)
	run := startLoad(t, c, l, ids, 8, none)
	run.await(t, 200)
	run.end()
	d.failReadOnly()
	run = startLoad(t, c, l, ids, 8, func(status int) bool { return status >= 500 })
	if appendUntilRefused(t, server, c, l, ids[0]) {
		require.Equal(t, http.StatusServiceUnavailable, ready(server))
	} else {
		requireFarewell(t, server)
	}
	server.Kill()
	run.end()

	d.repair()
	server = process.MustStart(t, process.Config{DataDir: data})
	c = connect(t, server)
	l.verify(t, c)
	l.retryUnknown(t, c)
	l.verify(t, c)
}

// TestPowerLoss is what tells a server that syncs from one that only writes:
// SIGKILL leaves everything written in the kernel's hands, a power cut does
// not. Every acknowledged append must be in what the disk was made to keep.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	d := ext4(t, 512)
	data := filepath.Join(d.dir, "data")
	l := &ledger{}
	server := process.MustStart(t, process.Config{DataDir: data})
	c := connect(t, server)
	ids := names(t, c, 40)
	for range 5 {
		run := startLoad(t, c, l, ids, 16, none)
		run.await(t, 100+rand.IntN(400))
		d.cutPower(server)
		run.end()

		server = process.MustStart(t, process.Config{DataDir: data})
		c = connect(t, server)
		l.verify(t, c)
		l.retryUnknown(t, c)
		l.verify(t, c)
	}
	t.Logf("%d acknowledged, %d unknown", l.count(acked), l.count(unknown))
}
