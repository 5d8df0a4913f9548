package readme

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

func TestReadme(t *testing.T) {
	root, err := process.ModuleRoot()
	require.NoError(t, err)
	file, err := os.Open(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	steps, err := Parse(file)
	require.NoError(t, err)
	require.NotEmpty(t, steps, "README.md marks nothing for testing")

	dir := t.TempDir()
	server := process.MustStart(t, process.Config{DataDir: dir})
	for _, step := range steps {
		name := fmt.Sprintf("%s at line %d", step.Name, step.Line)
		if step.Restart {
			server.Kill()
			server = process.MustStart(t, process.Config{DataDir: dir})
			continue
		}
		// Later steps build on earlier ones: the first failure ends the test.
		output := run(t, server, name, step.Script)
		for _, want := range step.Expect {
			require.Contains(t, output, want, name)
		}
	}
}

// run runs a script as a user's shell would, but stops at the first failure.
func run(t *testing.T, s *process.Server, name, script string) string {
	t.Helper()
	script = strings.NewReplacer("http://localhost:4000", s.URL(), "http://127.0.0.1:4000", s.URL()).Replace(script)
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = t.TempDir()
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s:\n%s", name, output)
	return string(output)
}
