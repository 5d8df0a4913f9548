package api

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestConsoleIsForItsOwnPage: everything at /console is the console's to answer,
// and none of it is for the origins that may use the API.
func TestConsoleIsForItsOwnPage(t *testing.T) {
	t.Parallel()
	var asked []string
	console := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path)
		_, _ = io.WriteString(w, "console")
	})
	h := newHarness(t, func(c *Config, d *Deps) {
		c.AllowedOrigins = []string{"https://app.example.com"}
		d.Console = console
	})
	for _, target := range []string{"/console", "/console/", "/console/app.js", "/console/api/cluster"} {
		got := h.do(http.MethodGet, target, "", "Origin", "https://app.example.com").is(http.StatusOK)
		require.Equal(t, "console", string(got.body))
		require.Empty(t, got.header.Get("Access-Control-Allow-Origin"))
		require.Empty(t, got.header.Get("Access-Control-Expose-Headers"))
	}
	h.do(http.MethodPost, "/console/api/orders", `{}`).is(http.StatusOK)
	require.Equal(t, []string{"GET /console", "GET /console/", "GET /console/app.js", "GET /console/api/cluster", "POST /console/api/orders"}, asked)
	h.do(http.MethodGet, "/consoles", "").fails(http.StatusNotFound, "not_found")
	newHarness(t).do(http.MethodGet, "/console", "").fails(http.StatusNotFound, "not_found")
}
