package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a container engine goes by: 0 well, 1 not well, 2 asked wrongly.
func TestHealth(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/health/ready", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"status":"starting","reason":"groups: no group is placed here yet"}`)
	})
	mux.HandleFunc("/health/live", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"ok"}`) })
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/health/live", http.StatusFound) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	gone := httptest.NewServer(nil)
	gone.Close()
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(stuck.Close)

	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"live":           {[]string{"--url", server.URL + "/health/live"}, exitOK, "ok\n"},
		"no path":        {[]string{"--url", server.URL}, exitFailed, "no group is placed here yet"},
		"slash":          {[]string{"--url", server.URL + "/"}, exitFailed, "answered 503"},
		"redirect":       {[]string{"--url", server.URL + "/redirect"}, exitOK, "ok\n"},
		"another page":   {[]string{"--url", server.URL + "/nowhere"}, exitFailed, "404 page not found"},
		"nobody there":   {[]string{"--url", gone.URL}, exitFailed, "refused"},
		"no answer":      {[]string{"--url", stuck.URL, "--timeout", "20ms"}, exitFailed, "deadline"},
		"not a URL":      {[]string{"--url", "127.0.0.1:4000"}, exitUsage, "want http://HOST:PORT"},
		"no time":        {[]string{"--timeout", "0s"}, exitUsage, "--timeout"},
		"stray":          {[]string{"now"}, exitUsage, "takes no arguments"},
		"unknown flag":   {[]string{"--host", "x"}, exitUsage, "host"},
		"another scheme": {[]string{"--url", "ftp://127.0.0.1"}, exitUsage, "want http://HOST:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"fastpaca", "health"}, c.args...), &stdout, &stderr)
			require.Equal(t, c.code, code, stderr.String())
			require.Contains(t, stdout.String()+stderr.String(), c.want)
		})
	}
}
