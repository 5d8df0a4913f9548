package faults

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// eventually polls until ok, and fails the test if that never comes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// awaitOutputOrFiles returns when a starting server has made a number of files
// or is ready: a point in its start that differs from call to call.
func awaitOutputOrFiles(t *testing.T, s *process.Server, dir string, files int) {
	t.Helper()
	eventually(t, "files or readiness", func() bool {
		found := 0
		_ = filepath.WalkDir(dir, func(string, os.DirEntry, error) error { found++; return nil })
		select {
		case <-s.Exited():
			t.Fatalf("the server exited by itself:\n%s", s.Output())
		default:
		}
		return found >= files || ready(s) == http.StatusOK
	})
}

// ready returns the status of /health/ready, 0 when nobody answers.
func ready(s *process.Server) int {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Get(s.URL() + "/health/ready")
	if err != nil {
		return 0
	}
	_ = reply.Body.Close()
	return reply.StatusCode
}

// A signal under load: what was acknowledged is there, what was not answered
// may be, nothing that was refused is, and the server exits with 0.
func TestSignalDrains(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := &ledger{}
			server := process.MustStart(t, process.Config{DataDir: dir})
			c := connect(t, server)
			ids := names(t, c, 20)
			run := startLoad(t, c, l, ids, 16, func(status int) bool { return status == http.StatusServiceUnavailable })
			run.await(t, 200)
			require.NoError(t, server.Signal(sig))
			server.MustExit(t, 0)
			run.end()

			server = process.MustStart(t, process.Config{DataDir: dir})
			c = connect(t, server)
			l.verify(t, c)
			l.retryUnknown(t, c)
			l.verify(t, c)
		})
	}
}

// heldRequest opens an append of which the last byte is missing, so that a
// draining server has something to wait for.
func heldRequest(t *testing.T, s *process.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Address())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /v1/conversations/held/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		len(heldBody), heldBody[:len(heldBody)-1])
	require.NoError(t, err)
	return conn
}

const heldBody = `{"message":{"role":"user","parts":[{"type":"text","text":"held"}]}}`

// A request that was being sent when the signal came is still answered.
func TestDrainAnswersWhatItHasBegun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := process.MustStart(t, process.Config{DataDir: dir})
	c := connect(t, server)
	require.NoError(t, c.Create(t.Context(), "held"))
	conn := heldRequest(t, server)
	// An answered request on another connection: the held one was accepted
	// before it.
	_, err := c.Conversation(t.Context(), "held")
	require.NoError(t, err)

	require.NoError(t, server.Signal(syscall.SIGTERM))
	eventually(t, "not ready", func() bool { return ready(server) != http.StatusOK })
	_, err = conn.Write([]byte(heldBody[len(heldBody)-1:]))
	require.NoError(t, err)
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	_ = reply.Body.Close()
	require.Equal(t, http.StatusCreated, reply.StatusCode)
	server.MustExit(t, 0)

	server = process.MustStart(t, process.Config{DataDir: dir})
	_, log, err := connect(t, server).Verified(t.Context(), "held")
	require.NoError(t, err)
	require.Len(t, log, 1)
}

// A second Ctrl-C does not wait for the drain that the first began. It is seen
// by the exit code: a drain that ended would have given 0.
func TestSecondSignalExitsAtOnce(t *testing.T) {
	t.Parallel()
	server := process.MustStart(t, process.Config{DataDir: t.TempDir()})
	c := connect(t, server)
	require.NoError(t, c.Create(t.Context(), "held"))
	heldRequest(t, server)
	_, err := c.Conversation(t.Context(), "held")
	require.NoError(t, err)
	require.NoError(t, server.Signal(syscall.SIGINT))
	eventually(t, "not ready", func() bool { return ready(server) != http.StatusOK })
	require.NoError(t, server.Signal(syscall.SIGINT))

	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	code, err := server.Wait(ctx)
	require.NoError(t, err)
	require.NotZero(t, code, "it drained instead:\n%s", server.Output())
}
