package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// A wrong call exits 2, names every problem at once and says where to look; it
// starts nothing.
func TestWrongCalls(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"unknown command":     {[]string{"serv"}, []string{`unknown command "serv"`, "--help"}},
		"unknown flag":        {[]string{"serve", "--port", "1"}, []string{"port", "--help"}},
		"stray argument":      {[]string{"serve", "now"}, []string{"takes no arguments", "now"}},
		"several problems":    {[]string{"serve", "--listen", "4000", "--log-level", "loud", "--shutdown-timeout", "0s"}, []string{"--listen", "--log-level", "--shutdown-timeout"}},
		"control without id":  {[]string{"control"}, []string{"--id is required"}},
		"two control members": {[]string{"control", "--id", "a", "--peers", "a=h:1,b=h:2"}, []string{"want 1, 3 or 5"}},
		"a stranger's peers":  {[]string{"control", "--id", "x", "--peers", "a=h:1,b=h:2,c=h:3"}, []string{`does not name this member "x"`}},
		"malformed peers":     {[]string{"control", "--id", "a", "--peers", "a,b=h:2,c=nowhere"}, []string{`"a": want ID=HOST:PORT`, "nowhere"}},
		"data without all":    {[]string{"data"}, []string{"--id is required", "--control is required"}},
		"data, odd control":   {[]string{"data", "--id", "d", "--control", "a:1,b"}, []string{`"b": want HOST:PORT`}},
		"short token":         {[]string{"router", "--control", "a:1", "--token", "x"}, []string{"token is shorter"}},
		"half of TLS":         {[]string{"router", "--control", "a:1", "--tls-cert", "x"}, []string{"TLS needs"}},
		"odd factor":          {[]string{"control", "--id", "a", "--replication-factor", "2", "--bootstrap-expect", "0"}, []string{"--replication-factor 2", "--bootstrap-expect 0"}},
		"router alone":        {[]string{"router"}, []string{"--control is required"}},
		"odd format":          {[]string{"openapi", "--format", "xml"}, []string{`"xml"`}},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"fastpaca"}, c.args...), &stdout, &stderr)
			require.Equal(t, exitUsage, code, stderr.String())
			for _, want := range c.want {
				require.Contains(t, stderr.String(), want)
			}
		})
	}
}

func TestPrintingCommands(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"help":         {nil, "serve"},
		"verb help":    {[]string{"serve", "--help"}, "Example:"},
		"version":      {[]string{"version"}, "fastpaca "},
		"yaml":         {[]string{"openapi"}, "openapi: 3.1.0"},
		"json":         {[]string{"openapi", "--format", "json"}, `"openapi": "3.1.0"`},
		"old json":     {[]string{"openapi", "--format", "json30"}, `"openapi": "3.0`},
		"cluster help": {[]string{"dev-cluster", "--help"}, "3 data nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"fastpaca"}, c.args...), &stdout, &stderr)
			require.Equal(t, exitOK, code, stderr.String())
			require.Contains(t, stdout.String(), c.want)
		})
	}
}

// A port in use is the commonest mistake; the answer says what to do.
func TestAddressInUse(t *testing.T) {
	taken, err := freeAddresses(1)
	require.NoError(t, err)
	first := make(chan int, 1)
	ctx, cancel := contextWithCancel(t)
	dir := t.TempDir()
	go func() {
		var out bytes.Buffer
		first <- run(ctx, []string{"fastpaca", "serve", "--data-dir", dir, "--listen", taken[0], "--log-level", "error"}, &out, &out)
	}()
	waitReady(t, taken[0])
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"fastpaca", "serve", "--data-dir", t.TempDir(), "--listen", taken[0], "--log-level", "error"}, &stdout, &stderr)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr.String(), "--listen")
	code = run(t.Context(), []string{"fastpaca", "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--log-level", "error"}, &stdout, &stderr)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr.String(), dir)
	cancel()
	require.Equal(t, exitOK, <-first)
}
