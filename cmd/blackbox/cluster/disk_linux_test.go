package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// smallDisk puts the data directory of a node that was not started yet on a
// disk of its own, of so many MiB.
func smallDisk(t *testing.T, n *Node, mib int) {
	t.Helper()
	if os.Geteuid() != 0 {
		fmt.Fprintf(os.Stderr, "NOT RUN: %s: needs root to mount a disk of its own\n", t.Name())
		t.Skip("needs root to mount a disk of its own")
	}
	require.NoError(t, os.MkdirAll(n.Dir, 0o700))
	if err := syscall.Mount("tmpfs", n.Dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=700", mib)); err != nil {
		fmt.Fprintf(os.Stderr, "NOT RUN: %s: cannot mount: %v\n", t.Name(), err)
		t.Skip("cannot mount a disk")
	}
	t.Cleanup(func() {
		n.Kill()
		if err := syscall.Unmount(n.Dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// fill takes all the room of the disk that dir is on, and returns the file that
// has it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = file.Write(chunk)
	}
	require.True(t, errors.Is(err, syscall.ENOSPC), "%v", err)
	return path
}

// readyStatus is the status of a node's readiness, or 0.
func readyStatus(n *Node) int {
	reply, err := http.Get("http://" + n.Ops() + "/health/ready")
	if err != nil {
		return 0
	}
	_ = reply.Body.Close()
	return reply.StatusCode
}

// TestFullDisk fills the disk of one data node under load. What it leads goes to
// nodes that have room, so that appends to every conversation go on while it is
// full; afterwards it catches up.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	c := prepare(t, Config{})
	n := c.Data[0]
	smallDisk(t, n, 256)
	require.NoError(t, c.Start(t.Context()))
	l := startLoad(t, c, "full", 24, 20*time.Millisecond)
	l.awaitAppends(t)

	filler := fill(t, n.Dir)
	eventually(t, "the node says that its disk is full", func() bool { return readyStatus(n) == http.StatusServiceUnavailable })
	took := l.awaitAppends(t)
	t.Logf("appends went on after %s", spread(took))
	require.Equal(t, http.StatusServiceUnavailable, readyStatus(n))
	require.NotContains(t, n.Output(), "panic")

	require.NoError(t, os.Remove(filler))
	ready(t, n)
	l.awaitAppends(t)
	l.finish(t)
	sameReplicas(t, c)
	require.NoError(t, c.CheckRunning())
}
