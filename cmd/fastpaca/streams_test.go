package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStreamFlagsAreChecked(t *testing.T) {
	for _, verb := range []string{"serve", "router"} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"fastpaca", verb, "--allowed-origins", "https://a.example, nope", "--max-streams", "0", "--max-join-rate", "-1"}, &stdout, &stderr)
		require.Equal(t, exitUsage, code)
		for _, want := range []string{"--allowed-origins", `"nope"`, "--max-streams 0", "--max-join-rate -1"} {
			require.Contains(t, stderr.String(), want, verb)
		}
	}
	c := streamConfig{AllowedOrigins: " https://a.example ,, * "}
	require.Equal(t, []string{"https://a.example", "*"}, c.origins())
}
