package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const file = `# About the cases.

mock_provider "aws" {
  mock_data "x" {
    defaults = { a = 1 }
  }
}

run "even" {
  # says: use 1, 3 or 5.
  # says: An even number
  command         = plan
  expect_failures = [var.members]
  variables {
    members = 2
  }
}

run "fine" {
  command = plan
}
`

func TestSplit(t *testing.T) {
	t.Parallel()
	cases, err := split(file)
	require.NoError(t, err)
	require.Len(t, cases, 1, "only what expects a failure")
	require.Equal(t, "even", cases[0].name)
	require.Equal(t, []string{"use 1, 3 or 5.", "An even number"}, cases[0].says)
	require.Contains(t, cases[0].source, `mock_provider "aws"`)
	require.Contains(t, cases[0].source, "members = 2")
	require.NotContains(t, cases[0].source, "expect_failures")
	require.NotContains(t, cases[0].source, "fine")

	cases, err = split("variables {}\n")
	require.NoError(t, err)
	require.Empty(t, cases)
	_, err = split("run \"silent\" {\n  expect_failures = [var.x]\n}\n")
	require.ErrorContains(t, err, `"silent"`)
}

func TestCompare(t *testing.T) {
	t.Parallel()
	found, err := diagnostics([]byte(`{"type":"version"}
{"type":"diagnostic","@testrun":"even","diagnostic":{"severity":"error","summary":"Invalid value","detail":"members: use 1,\n3 or 5. An even number survives no more."}}
{"type":"diagnostic","@testrun":"warned","diagnostic":{"severity":"warning","summary":"x"}}
`))
	require.NoError(t, err)
	cases, err := split(file)
	require.NoError(t, err)
	require.NoError(t, compare(cases, found), "line breaks are Terraform's")

	cases[0].says = []string{"something else"}
	require.ErrorContains(t, compare(cases, found), "does not say")
	cases[0].name = "warned"
	require.ErrorContains(t, compare(cases, found), "was not refused")

	_, err = diagnostics([]byte("no json\n"))
	require.Error(t, err)
}

// A program in the place of Terraform refuses everything with one sentence.
func TestCheck(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	tests := filepath.Join(root, "modules", "one", "tests")
	require.NoError(t, os.MkdirAll(tests, 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "observability"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tests, "inputs.tftest.hcl"), []byte(file), 0o644))
	terraform := filepath.Join(t.TempDir(), "terraform")
	script := `#!/bin/sh
[ "$2" = init ] && exit 0
for f in "${1#-chdir=}"/tests/*; do
  echo '{"type":"diagnostic","@testrun":"even","diagnostic":{"severity":"error","summary":"Invalid","detail":"use 1, 3 or 5. An even number"}}'
done
exit 1
`
	require.NoError(t, os.WriteFile(terraform, []byte(script), 0o755))

	var stdout bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-terraform", terraform, "-root", root, "one"}, &stdout))
	require.Contains(t, stdout.String(), "1 refusals")
	require.FileExists(t, filepath.Join(tests, "inputs.tftest.hcl"), "the tree is left as it is")

	require.ErrorContains(t, run(t.Context(), nil, &stdout), "usage")
	require.Error(t, run(t.Context(), []string{"-terraform", terraform, "-root", root, "two"}, &stdout))
	require.ErrorContains(t, run(t.Context(), []string{"-terraform", "true", "-root", root, "one"}, &stdout), "nothing was refused")
}
