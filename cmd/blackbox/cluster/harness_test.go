package cluster

import (
	"context"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logLines is how much of the end of each process's output a failed test logs.
var logLines = flag.Int("log-lines", 40, "lines of each process's log to show when a test fails")

// skipShort leaves a test that takes long to the full run.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long: left out with -short")
	}
}

// start starts a cluster that is gone when the test ends. A failed test shows
// what the processes printed last.
func start(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c := prepare(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	return c
}

// prepare is start without starting anything.
func prepare(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	cfg.Dir = t.TempDir()
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for _, n := range c.Nodes() {
				t.Logf("end of the output of %s:\n%s", n.Name, lastLines(n.Output(), *logLines))
			}
		}
	})
	return c
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// connect returns a client of a router, closed when the test ends.
func connect(t *testing.T, url string) *client.Client {
	c := client.New(url)
	t.Cleanup(c.Close)
	return c
}

// eventually polls until ok, and fails the test if that never comes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !polled(t.Context(), process.ReadyTimeout, func() bool { return ok() }) {
		t.Fatalf("never: %s", what)
	}
}

// within polls until try returns nil, and fails the test with its last error if
// that takes longer than a bound.
func within(t *testing.T, bound time.Duration, try func() error) {
	t.Helper()
	var err error
	if !polled(t.Context(), bound, func() bool { err = try(); return err == nil }) {
		t.Fatalf("not within %v: %v", bound, err)
	}
}

func polled(ctx context.Context, bound time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// ready waits until a process that was started says that it is ready.
func ready(t *testing.T, nodes ...*Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	for _, n := range nodes {
		require.NoError(t, n.WaitReady(ctx))
	}
}

// stay lets what is going on go on for a while: it is how long a fault lasts,
// not a wait for anything.
func stay(t *testing.T, d time.Duration) {
	t.Helper()
	require.NoError(t, pause(t.Context(), d))
}
