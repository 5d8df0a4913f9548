package backup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
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

// Exit codes of the program.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 4
	exitInterrupted = 130
)

// patience bounds every wait for what must come. It is a bound against hanging
// for ever; how long things take is for the benchmarks to say.
const patience = 2 * time.Minute

const (
	logLines = 30
	// groupCount is how many groups a cluster has.
	groupCount = 256
)

// token is that of all clusters of these tests.
const token = "token-of-the-backup-suite"

// start starts a cluster that is gone when the test ends. A failed test shows
// what the processes printed last. With an archive its nodes write to it at once
// and keep little.
func start(t *testing.T, nodes int, archive string) *cluster.Cluster {
	t.Helper()
	cfg := cluster.Config{Dir: t.TempDir(), Data: nodes, Token: token}
	if archive != "" {
		cfg.Env = []string{"FASTPACA_ARCHIVE_URL=" + archive, "FASTPACA_ARCHIVE_INTERVAL=50ms", "FASTPACA_TAIL_KEEP=3"}
	}
	c, err := cluster.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for _, n := range c.Nodes() {
				lines := strings.Split(strings.TrimRight(n.Output(), "\n"), "\n")
				t.Logf("end of the output of %s:\n%s", n.Name, strings.Join(lines[max(0, len(lines)-logLines):], "\n"))
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	return c
}

// connect returns a client of the cluster's router.
func connect(t *testing.T, c *cluster.Cluster) *client.Client {
	t.Helper()
	router := client.New(c.Routers[0].URL())
	t.Cleanup(router.Close)
	return router
}

// command is a running `fastpaca cluster`.
type command struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

// order starts a verb.
func order(t *testing.T, c *cluster.Cluster, args ...string) *command {
	t.Helper()
	o := &command{t: t}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	o.cmd = exec.CommandContext(ctx, c.Binary, append(append([]string{"cluster"}, args...), "--control", c.ControlAddresses())...)
	o.cmd.Env = append(os.Environ(), "FASTPACA_TOKEN="+token)
	o.cmd.Stdout, o.cmd.Stderr = &o.stdout, &o.stderr
	require.NoError(t, o.cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = o.cmd.Wait() // it may have been waited for
	})
	return o
}

// end waits for it.
func (o *command) end() (code int, stdout, stderr string) {
	o.t.Helper()
	var exit *exec.ExitError
	if err := o.cmd.Wait(); !errors.As(err, &exit) {
		require.NoError(o.t, err)
	}
	return o.cmd.ProcessState.ExitCode(), o.stdout.String(), o.stderr.String()
}

// expect waits for it and requires an exit code, and that it says why.
func (o *command) expect(code int, says ...string) string {
	o.t.Helper()
	got, stdout, stderr := o.end()
	require.Equal(o.t, code, got, "%q: %s%s", o.cmd.Args, stdout, stderr)
	for _, s := range says {
		require.Contains(o.t, stdout+stderr, s)
	}
	return stdout
}

// run runs a verb to its end.
func run(t *testing.T, c *cluster.Cluster, code int, args []string, says ...string) string {
	t.Helper()
	return order(t, c, args...).expect(code, says...)
}

// within polls until try returns nil, and fails the test with its last error if
// that takes longer than patience.
func within(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", patience, err)
		}
	}
}

// partials are the directories of backups that are not complete.
func partials(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(dir + ".partial-*")
	require.NoError(t, err)
	return found
}

// sameReplicas makes sure that the replicas of every group have equal state.
func sameReplicas(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	within(t, func() error {
		code, stdout, stderr := order(t, c, "verify").end()
		if code != exitOK {
			return errors.New(stdout + stderr)
		}
		return nil
	})
}
