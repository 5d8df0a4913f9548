package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompletion(t *testing.T) {
	before := os.Args
	defer func() { os.Args = before }()
	for args, want := range map[[3]string]string{
		{"fastpaca", completionFlag}:               "cluster",
		{"fastpaca", "cluster", completionFlag}:    "transfer-leader",
		{"fastpaca", "completion", completionFlag}: "fish",
	} {
		var all []string
		for _, arg := range args {
			if arg != "" {
				all = append(all, arg)
			}
		}
		var stdout, stderr bytes.Buffer
		os.Args = all // where the library looks for a flag that was begun
		require.Equal(t, exitOK, run(t.Context(), all, &stdout, &stderr), stderr.String())
		require.Contains(t, stdout.String(), want)
	}
	var stdout, stderr bytes.Buffer
	require.Equal(t, exitUsage, run(t.Context(), []string{"fastpaca", "completion", "tcsh"}, &stdout, &stderr))
}

// The scripts are ones that their shells accept.
func TestCompletionScripts(t *testing.T) {
	for shell, check := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, exitOK, run(t.Context(), []string{"fastpaca", "completion", shell}, &stdout, &stderr))
		path := filepath.Join(t.TempDir(), "script")
		require.NoError(t, os.WriteFile(path, stdout.Bytes(), 0o600))
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		out, err := exec.Command(shell, append(check, path)...).CombinedOutput()
		require.NoError(t, err, "%s: %s", shell, out)
	}
}
