package process

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shell runs a script in place of the server.
func shell(t *testing.T, script string, env ...string) *Server {
	t.Helper()
	s, err := Start(Config{Command: []string{"sh", "-c", script}, Env: env})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	return s
}

func wait(t *testing.T, s *Server) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code, err := s.Wait(ctx)
	require.NoError(t, err)
	return code
}

func TestExitCodeAndOutput(t *testing.T) {
	t.Parallel()
	s := shell(t, `echo out; echo err >&2; exit 3`)
	require.Equal(t, 3, wait(t, s))
	require.Contains(t, s.Output(), "out\n")
	require.Contains(t, s.Output(), "err\n")
	s.Kill()
	s.Kill()
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	_, err := Start(Config{Command: []string{"/nonexistent/program"}})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A process that a server left behind must not survive Kill.
func TestKillTakesTheWholeGroup(t *testing.T) {
	t.Parallel()
	s := shell(t, `sleep 1000 & echo child=$!; wait`)
	var child int
	require.Eventually(t, func() bool {
		_, err := fmt.Sscanf(s.Output(), "child=%d", &child)
		return err == nil
	}, time.Minute, time.Millisecond)
	s.Kill()
	require.Equal(t, -1, wait(t, s), "ended by a signal")
	require.Eventually(t, func() bool {
		// The orphan is a zombie until init has waited for it.
		state, err := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(child)).Output()
		return err != nil || strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
	}, time.Minute, 10*time.Millisecond)
}

func TestSignalReachesTheServer(t *testing.T) {
	t.Parallel()
	s := shell(t, `trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done`)
	require.Eventually(t, func() bool { return strings.Contains(s.Output(), "ready") }, time.Minute, time.Millisecond)
	require.NoError(t, s.Signal(syscall.SIGTERM))
	require.Equal(t, 7, wait(t, s))
}

func TestEnvironmentOfTheServer(t *testing.T) {
	t.Setenv("FASTPACA_LISTEN", "elsewhere")
	t.Setenv("DATABASE_URL", "postgres://elsewhere/of-the-suite")
	t.Setenv("PGHOST", "elsewhere")
	s := shell(t, `echo "[$FASTPACA_LISTEN][$DATABASE_URL][$PGHOST][$FASTPACA_OTHER][$HOME]"`, "FASTPACA_OTHER=given")
	wait(t, s)
	require.Contains(t, s.Output(), "[][][][given]["+os.Getenv("HOME")+"]")
}

func TestWaitReadyReportsAnExit(t *testing.T) {
	t.Parallel()
	s := shell(t, `echo cannot start >&2; exit 1`)
	err := s.WaitReady(t.Context())
	require.ErrorIs(t, err, ErrExited)
	require.ErrorContains(t, err, "cannot start")
}

func TestWaitReadyHonoursItsContext(t *testing.T) {
	t.Parallel()
	s := shell(t, `exec sleep 1000`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.WaitReady(ctx), context.Canceled)
}

func TestWaitReadyWantsOK(t *testing.T) {
	t.Parallel()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	s, err := Start(Config{
		Command: []string{"sleep", "1000"},
		Listen:  strings.TrimPrefix(server.URL, "http://"),
	})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	require.NoError(t, s.WaitReady(t.Context()))
	require.Equal(t, 3, asked)
}

func TestOutputKeepsTheNewest(t *testing.T) {
	t.Parallel()
	b := &tailBuffer{limit: 10}
	for i := range 100 {
		n, err := fmt.Fprintf(b, "%02d|", i)
		require.NoError(t, err)
		require.Equal(t, 3, n)
	}
	require.True(t, strings.HasSuffix(b.String(), "|97|98|99|"))
	require.Contains(t, b.String(), "dropped")
}
