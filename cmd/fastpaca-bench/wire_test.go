package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWire(t *testing.T) {
	t.Parallel()
	connections := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true
		switch r.URL.Path {
		case "/echo":
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write(append([]byte(r.Method+" "+r.Header.Get("Content-Type")+" "), body...))
		case "/chunked":
			for range 3 {
				_, _ = io.WriteString(w, strings.Repeat("x", 1000))
				_ = http.NewResponseController(w).Flush()
			}
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(server.Close)
	w, err := dialWire(t.Context(), strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	t.Cleanup(w.close)
	for range 2 {
		body, err := w.must(201, "POST", "/echo", []byte("{}"))
		require.NoError(t, err)
		require.Equal(t, "POST application/json {}", string(body))
		body, err = w.must(200, "GET", "/chunked", nil)
		require.NoError(t, err)
		require.Len(t, body, 3000)
		body, err = w.must(204, "DELETE", "/none", nil)
		require.NoError(t, err)
		require.Empty(t, body)
	}
	_, err = w.must(404, "GET", "/chunked", nil)
	require.ErrorContains(t, err, "200")
	require.Len(t, connections, 1, "kept alive")
}

func TestParseStatus(t *testing.T) {
	t.Parallel()
	status, err := parseStatus([]byte("HTTP/1.1 201 Created\r\n"))
	require.NoError(t, err)
	require.Equal(t, 201, status)
	for _, line := range []string{"", "HTTP/1.0 200 OK", "HTTP/1.1 x", "HTTP/1.1 abc d"} {
		_, err := parseStatus([]byte(line))
		require.Error(t, err, line)
	}
}
