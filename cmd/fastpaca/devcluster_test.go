package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/mesh"
)

func TestDevPlanIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	plan, err := loadDevPlan(dir)
	require.NoError(t, err)
	again, err := loadDevPlan(dir)
	require.NoError(t, err)
	require.Equal(t, plan, again)
	require.GreaterOrEqual(t, len(plan.Token), mesh.MinTokenBytes)

	path := filepath.Join(dir, "dev-cluster.json")
	for _, damaged := range []string{`{`, `{"controls":["127.0.0.1:1"]}`} {
		require.NoError(t, os.WriteFile(path, []byte(damaged), 0o600))
		_, err = loadDevPlan(dir)
		require.ErrorContains(t, err, path)
	}
}

// What dev-cluster tells its user to source is what `fastpaca cluster` reads.
func TestDevClusterOperatorFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b")
	plan, err := loadDevPlan(dir)
	require.NoError(t, err)
	path, err := plan.writeOperator(dir)
	require.NoError(t, err)
	require.True(t, filepath.IsAbs(path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm(), "it holds the token")
	out, err := exec.Command("sh", "-c", `. "$1" && printf '%s\n' "$FASTPACA_CONTROL" "$FASTPACA_TOKEN"`, "sh", path).Output()
	require.NoError(t, err)
	require.Equal(t, strings.Join(plan.Controls, ",")+"\n"+plan.Token+"\n", string(out))
}
