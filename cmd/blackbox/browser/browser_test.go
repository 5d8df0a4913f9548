package browser

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newestPhoenix is the version that runs everywhere; the others run in one Node.
const newestPhoenix = "1.8.16"

// TestSuites runs every suite in every engine, one after the other: they share
// a cluster, and break it.
func TestSuites(t *testing.T) {
	tools := findTools(t)
	t.Parallel()
	sdk := packSDK(t, tools)
	h := startHarness(t)
	for _, version := range []string{"1.7.21", "1.8.0", newestPhoenix} {
		t.Run("phoenix-"+version+"/"+tools.node.name, func(t *testing.T) {
			env := []string{"PHOENIX=" + version}
			if version != newestPhoenix {
				env = append(env, "WITHOUT=hundreds of sockets|killed leader") // of the server, not of the client
			}
			h.run(t, tools.node, "phoenix", env...)
		})
	}
	for _, e := range tools.engines() {
		if e != tools.node {
			t.Run("phoenix-"+newestPhoenix+"/"+e.name, func(t *testing.T) {
				h.run(t, e, "phoenix", "PHOENIX="+newestPhoenix)
			})
		}
		t.Run("native/"+e.name, func(t *testing.T) { h.run(t, e, "native") })
		t.Run("sdk/"+e.name, func(t *testing.T) { h.run(t, e, "sdk", "SDK="+filepath.Join(sdk, "import.mjs")) })
	}
	// Of the same code in the other format, what breaks nothing.
	t.Run("sdk-commonjs/"+tools.node.name, func(t *testing.T) {
		h.run(t, tools.node, "sdk", "SDK="+filepath.Join(sdk, "require.cjs"), "WITHOUT=^subscribe")
	})
	for _, e := range tools.engines() {
		if e != tools.chromium {
			t.Run("readme/"+e.name, func(t *testing.T) { runReadme(t, h.cluster.Routers[0].URL(), e, sdk) })
		}
	}
}

// TestExamples starts what is under sdk/examples as its README says, and uses it.
func TestExamples(t *testing.T) {
	tools := findTools(t)
	t.Parallel()
	server := process.MustStart(t, process.Config{DataDir: t.TempDir()})
	examples := filepath.Join(tools.root, "sdk", "examples")
	agent := filepath.Join(t.TempDir(), "agent")
	must(t, command(filepath.Join(examples, "agent"), "go", "vet", "."))
	must(t, command(filepath.Join(examples, "agent"), "go", "build", "-o", agent, "."))
	env := []string{"BASE=" + server.URL(), "EXAMPLES=" + examples, "AGENT=" + agent}
	if tools.newest == nil || tools.chromium == nil {
		missing(t.Name(), "the chat example takes the newest Node and Chromium")
	} else {
		env = append(env, "NEWEST="+tools.newest.node, "CHROMIUM="+tools.chromium.chromium)
	}
	report(t, runProgram(t, tools.node.node, []string{"suite/examples.mjs"}, env))
}

// suiteTimeout bounds a suite in one engine. It is a bound against hanging for
// ever: a browser that died does not say so.
const suiteTimeout = 5 * time.Minute

// result is what a suite tells of one of its tests.
type result struct {
	Name    string
	Failure string
	Skipped string
}

// run runs one suite in an engine, and makes a subtest of each of its tests.
func (h *harness) run(t *testing.T, e *engine, suite string, env ...string) {
	t.Helper()
	env = append(env, "BASE="+h.cluster.Routers[0].URL(), "CONTROL="+h.control.URL, "CHROMIUM="+e.chromium)
	report(t, runProgram(t, e.node, []string{filepath.Join("suite", e.script), suite}, env))
}

// runProgram runs a program of ours that prints results.
func runProgram(t *testing.T, program string, args, env []string) []result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), suiteTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	// Not killed at once: it has a browser to end.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	require.NoError(t, err, "%s\n%s", out, &said)
	var results []result
	require.NoError(t, json.Unmarshal(out, &results), "%s\n%s", out, &said)
	require.NotEmpty(t, results)
	return results
}

func report(t *testing.T, results []result) {
	t.Helper()
	for _, one := range results {
		t.Run(one.Name, func(t *testing.T) {
			if one.Skipped != "" {
				t.Skip(one.Skipped)
			}
			require.Empty(t, one.Failure)
		})
	}
}
