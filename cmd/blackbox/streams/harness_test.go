package streams

import (
	"context"
	"flag"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	runFor   = flag.Duration("streams", 0, "how long TestFollowingThroughFaults runs; 0 lets each fault happen once, and waits for no timeout of minutes")
	runSeed  = flag.Uint64("streams-seed", 0, "seed of what clients do and of the faults; 0 draws one")
	runFrom  = flag.Int("streams-from", 0, "number of the first round of TestFollowingThroughFaults")
	logLines = flag.Int("log-lines", 40, "lines of each process's log to show when a test fails")
)

// patience bounds every wait for what must come. It is a bound against hanging
// for ever; how long things take is for the benchmarks to say.
const patience = 90 * time.Second

// seedOf returns the seed that was asked for or draws one, and tells which.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := *runSeed
	for seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-streams-seed %d repeats what is drawn for this run", seed)
	return seed
}

// startCluster starts a cluster that is gone when the test ends. A failed test
// shows what the processes printed last.
func startCluster(t *testing.T, cfg cluster.Config) *cluster.Cluster {
	t.Helper()
	cfg.Dir = t.TempDir()
	c, err := cluster.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for _, n := range c.Nodes() {
				t.Logf("end of the output of %s:\n%s", n.Name, lastLines(n.Output(), *logLines))
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	return c
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// connect returns a client of a server, closed when the test ends.
func connect(t *testing.T, url string) *client.Client {
	c := client.New(url)
	t.Cleanup(c.Close)
	return c
}

// within polls until try returns nil, and fails the test with its last error if
// that takes longer than patience.
func within(t *testing.T, try func() error) {
	t.Helper()
	withinBound(t, patience, try)
}

func withinBound(t *testing.T, bound time.Duration, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("not within %v: %v", bound, err)
		}
	}
}

// pause is how long something lasts: it returns when that is over, or with the
// error of ctx when that ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
