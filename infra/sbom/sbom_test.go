package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	sum := "h1:RC2vgPmEDvVb9Xlq6LZqDBIIFqAgQZaBWVoK8jMkjWc="
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8",
		Main:      debug.Module{Path: "example.com/app", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "example.com/z", Version: "v1.0.0+incompatible", Sum: sum},
			{Path: "example.com/old", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/new", Version: "v2.0.0"}},
		},
		Settings: []debug.BuildSetting{{Key: "-trimpath", Value: "true"}, {Key: "vcs.time", Value: "x"}},
	}
	got := describe(info, "abc")
	require.Equal(t, "pkg:golang/example.com/app", got.Metadata.Component.PURL)
	require.Equal(t, []hash{{"SHA-256", "abc"}}, got.Metadata.Component.Hashes)
	require.Equal(t, []property{{"go:build:-trimpath", "true"}}, got.Metadata.Component.Properties)
	var purls []string
	for _, c := range got.Components {
		require.Equal(t, c.PURL, c.Ref)
		purls = append(purls, c.PURL)
	}
	require.Equal(t, []string{"pkg:golang/example.com/new@v2.0.0", "pkg:golang/example.com/z@v1.0.0+incompatible", "pkg:golang/std@1.26.8"}, purls)
	require.Equal(t, []property{{"go:sum", sum}}, got.Components[1].Properties)
}

// The test itself is a binary with modules in it.
func TestRun(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	var first, second bytes.Buffer
	require.NoError(t, run([]string{self}, &first))
	require.NoError(t, run([]string{self}, &second))
	require.Equal(t, first.String(), second.String())
	var got bill
	require.NoError(t, json.Unmarshal(first.Bytes(), &got))
	require.Equal(t, "CycloneDX", got.Format)
	require.NotEmpty(t, got.Components)
	require.Contains(t, first.String(), "std@"+runtime.Version()[2:])

	require.ErrorContains(t, run(nil, &first), "usage")
	require.Error(t, run([]string{filepath.Join(t.TempDir(), "none")}, &first))
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("no binary"), 0o644))
	require.Error(t, run([]string{text}, &first))
}
