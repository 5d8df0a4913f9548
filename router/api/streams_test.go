package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/router/socket"
	"github.com/fastpaca/fastpaca/router/stream"
	"github.com/fastpaca/fastpaca/router/stream/streamtest"
)

const patience = 10 * time.Second

// streaming is a surface with streams on a real socket. Its conversations are
// in two doubles: those of requests, and those of streams.
type streaming struct {
	*harness
	log    *streamtest.Log
	server *Server
	addr   string
}

func newStreaming(t *testing.T, changes ...func(*Config, *Deps)) *streaming {
	t.Helper()
	log, quiet := streamtest.New(), slog.New(slog.DiscardHandler)
	hub, err := stream.NewHub(stream.Config{Node: log, Feed: log, Log: quiet})
	require.NoError(t, err)
	sockets, err := socket.New(socket.Config{Hub: hub, Log: quiet})
	require.NoError(t, err)
	changes = append([]func(*Config, *Deps){func(_ *Config, d *Deps) { d.Streams = sockets }}, changes...)
	s := &streaming{harness: newHarness(t, changes...), log: log}
	s.server = NewServer(s.api)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(l) }()
	t.Cleanup(func() {
		_ = s.server.Close()
		require.NoError(t, <-served)
		hub.Close()
	})
	return s
}

// get sends a request and returns the answer, whose body is a stream.
func (s *streaming) get(path string, header ...string) (*http.Response, *bufio.Reader) {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+s.addr+path, nil)
	require.NoError(s.t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r.WithContext(ctx))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = response.Body.Close() })
	return response, bufio.NewReader(response.Body)
}

// ids reads the ids of n events.
func ids(t *testing.T, r *bufio.Reader, n int) (got []string) {
	t.Helper()
	for len(got) < n {
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			got = append(got, strings.TrimSpace(id))
		}
	}
	return got
}

func (s *streaming) dial(path string, options *websocket.DialOptions) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, response, err := websocket.Dial(ctx, "ws://"+s.addr+path, options)
	if err == nil {
		s.t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, response, err
}

func readText(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, text, err := conn.Read(ctx)
	require.NoError(t, err)
	return string(text)
}

func TestWhereEventsBegin(t *testing.T) {
	t.Parallel()
	s := newStreaming(t)
	s.log.Append("c", 5, 100)
	const path = "/v1/conversations/c/events"
	for query, want := range map[string][]string{
		"":                   {"5"},
		"?from=4":            {"4", "5", "5"},
		"?from=0":            {"1", "2"},
		"?from_seq=2":        {"2"},
		"?from=2&from_seq=1": {"2"},
		"?from=-9":           {"1", "2"},
		"?from=99":           {"98"},
	} {
		response, r := s.get(path + query)
		require.Equal(t, 200, response.StatusCode)
		require.NotEmpty(t, response.Header.Get("X-Request-Id"))
		require.Equal(t, want, ids(t, r, len(want)), query)
	}
	for last, want := range map[string][]string{"3": {"4", "5"}, "0": {"1", "2"}, "5": {"5"}} {
		_, r := s.get(path+"?from=2", "Last-Event-ID", last)
		require.Equal(t, want, ids(t, r, len(want)), last)
	}
}

func TestStreamsRefused(t *testing.T) {
	t.Parallel()
	s := newStreaming(t)
	s.log.Append("c", 1, 100)
	fails := func(status int, code, path string, header ...string) {
		t.Helper()
		response, r := s.get(path, header...)
		body, err := io.ReadAll(r)
		require.NoError(t, err)
		got := &reply{t: t, status: response.StatusCode, header: response.Header, body: body}
		got.fails(status, code)
		request, err := http.NewRequest(http.MethodGet, path, nil)
		require.NoError(t, err)
		s.checkDocumented(request, got)
	}
	fails(404, "conversation_not_found", "/v1/conversations/nope/events")
	fails(404, "conversation_not_found", "/v1/conversations/nope/stream", upgrading...)
	for _, query := range []string{"?from=x", "?from=", "?from=1.5", "?from=1&from=2", "?from=%zz"} {
		fails(400, "invalid_parameter", "/v1/conversations/c/events"+query)
		fails(400, "invalid_parameter", "/v1/conversations/c/stream"+query, upgrading...)
	}
	fails(400, "invalid_parameter", "/v1/conversations/c/events", "Last-Event-ID", "x")
	fails(400, "invalid_parameter", "/v1/conversations/c/events", "Last-Event-ID", "-1")
	fails(400, "invalid_id", "/v1/conversations/%00/events")
	fails(426, "upgrade_required", "/v1/conversations/c/stream")
	fails(400, "invalid_handshake", "/v1/conversations/c/stream", append(upgrading[:4:4], "Sec-WebSocket-Version", "8")...)
	fails(400, "invalid_handshake", "/socket/websocket")
	fails(403, "unsupported_protocol", "/socket/websocket?vsn=3.0.0", upgrading...)
	for _, path := range []string{"/v1/conversations/c/stream", "/v1/conversations/c/events", "/socket/websocket"} {
		fails(403, "origin_not_allowed", path, append(upgrading, "Origin", "https://evil.example")...)
	}
	s.api.Drain()
	fails(503, "unavailable", "/v1/conversations/c/events")
	fails(503, "unavailable", "/socket/websocket", upgrading...)

	none := newHarness(t)
	none.do("GET", "/v1/conversations/c/events", "").fails(503, "unavailable")
	none.do("GET", "/v1/conversations/c/stream", "").fails(503, "unavailable")
	none.do("GET", "/socket/websocket", "").fails(503, "unavailable")
}

var upgrading = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}

// Streams have bounds of their own: they neither count as requests nor end with
// the time that an answer may take.
func TestStreamsOutliveRequests(t *testing.T) {
	t.Parallel()
	s := newStreaming(t, func(c *Config, _ *Deps) {
		c.MaxInFlight, c.ReadTimeout, c.RequestTimeout, c.WriteTimeout = 1, 50*time.Millisecond, time.Second, 1050*time.Millisecond
	})
	s.log.Append("c", 1, 100)
	_, r := s.get("/v1/conversations/c/events?from=2")
	require.Equal(t, []string{"1"}, ids(t, r, 1))
	conn, _, err := s.dial("/v1/conversations/c/stream?from=2", nil)
	require.NoError(t, err)
	require.Contains(t, readText(t, conn), "caught_up")
	phoenix, _, err := s.dial("/socket/websocket?vsn=2.0.0", nil)
	require.NoError(t, err)
	require.NoError(t, phoenix.Write(context.Background(), websocket.MessageText, []byte(`["1","1","conversation:c","phx_join",{}]`)))
	require.Contains(t, readText(t, phoenix), `"status":"ok"`)
	require.Contains(t, readText(t, phoenix), "caught_up")
	require.Zero(t, s.api.InFlight())
	seq := 1
	for end := time.Now().Add(2 * s.api.cfg.WriteTimeout); time.Now().Before(end); {
		s.log.Append("c", 1, 100)
		seq++
		require.Equal(t, []string{fmt.Sprint(seq)}, ids(t, r, 1))
		require.Contains(t, readText(t, conn), fmt.Sprintf(`"seq":%d,`, seq))
		require.Contains(t, readText(t, phoenix), fmt.Sprintf(`"seq":%d,`, seq))
	}
}

func TestShutdownSendsStreamsAway(t *testing.T) {
	t.Parallel()
	s := newStreaming(t)
	s.log.Create("c")
	_, r := s.get("/v1/conversations/c/events")
	require.Equal(t, []string{"0"}, ids(t, r, 1))
	conn, _, err := s.dial("/v1/conversations/c/stream", nil)
	require.NoError(t, err)
	require.Contains(t, readText(t, conn), "caught_up")
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() { done <- s.server.Shutdown(ctx) }()
	_, _, err = conn.Read(ctx)
	require.Equal(t, websocket.StatusServiceRestart, websocket.CloseStatus(err))
	_, err = io.Copy(io.Discard, r)
	require.NoError(t, err, "the answer ends with the connection")
	require.NoError(t, <-done)
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := newStreaming(t, func(c *Config, _ *Deps) { c.AllowedOrigins = []string{"https://app.example.com"} })
	s.log.Create("c")
	path := s.create("c")

	got := s.do("GET", path, "", "Origin", "https://app.example.com").is(200)
	require.Equal(t, "https://app.example.com", got.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, got.header.Get("Access-Control-Expose-Headers"), "X-Fastpaca-Last-Seq")
	require.Equal(t, "Origin", got.header.Get("Vary"))
	got = s.do("GET", path+"/nope", "", "Origin", "https://app.example.com").is(404)
	require.Equal(t, "https://app.example.com", got.header.Get("Access-Control-Allow-Origin"), "failures can be read too")
	got = s.do("GET", path, "", "Origin", "https://evil.example").is(200)
	require.Empty(t, got.header.Get("Access-Control-Allow-Origin"))
	require.Empty(t, s.do("GET", path, "").header.Get("Vary"))

	ask := func(origin string, header ...string) *reply {
		return s.do("OPTIONS", path+"/messages", "", append(header, "Origin", origin, "Access-Control-Request-Method", "POST")...)
	}
	got = ask("https://app.example.com").is(204)
	require.Contains(t, got.header.Get("Access-Control-Allow-Methods"), "POST")
	for _, header := range []string{"Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Fastpaca-Min-Seq"} {
		require.Contains(t, got.header.Get("Access-Control-Allow-Headers"), header)
	}
	ask("https://evil.example").fails(403, "origin_not_allowed")
	s.do("OPTIONS", path+"/messages", "", "Origin", "https://app.example.com").fails(405, "method_not_allowed")

	for origin, ok := range map[string]bool{"": true, "https://app.example.com": true, "http://localhost:3000": true, "https://evil.example": false, "null": false} {
		options := &websocket.DialOptions{HTTPHeader: http.Header{}}
		if origin != "" {
			options.HTTPHeader.Set("Origin", origin)
		}
		for _, path := range []string{"/v1/conversations/c/stream", "/socket/websocket?vsn=2.0.0"} {
			_, response, err := s.dial(path, options)
			require.Equal(t, ok, err == nil, "%s %s", origin, path)
			if !ok {
				require.Equal(t, 403, response.StatusCode)
			}
		}
	}
	response, _ := s.get("/v1/conversations/c/events", "Origin", "http://127.0.0.1:3000")
	require.Equal(t, "http://127.0.0.1:3000", response.Header.Get("Access-Control-Allow-Origin"))
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		allowed      []string
		origin, host string
		want         bool
	}{
		{nil, "https://api.example.com", "api.example.com", true},
		{nil, "HTTPS://API.example.com", "api.Example.com", true},
		{nil, "https://api.example.com:8443", "api.example.com:8443", true},
		{nil, "https://api.example.com:8443", "api.example.com", false},
		{nil, "http://localhost:3000", "localhost:4000", true},
		{nil, "http://127.0.0.1:3000", "localhost:4000", true},
		{nil, "http://[::1]:3000", "127.0.0.1:4000", true},
		{nil, "http://localhost:3000", "api.example.com", false},
		{nil, "http://localhost.evil.example", "localhost:4000", false},
		{nil, "http://127.0.0.1.evil.example", "127.0.0.1:4000", false},
		{nil, "null", "localhost:4000", false},
		{nil, "file://", "localhost:4000", false},
		{nil, "", "localhost:4000", false},
		{nil, "http://%zz", "localhost", false},
		{[]string{"*"}, "null", "x", true},
		{[]string{"https://app.example.com"}, "https://app.example.com", "x", true},
		{[]string{"https://app.example.com"}, "https://app.example.com:443", "x", true},
		{[]string{"https://app.example.com"}, "http://app.example.com", "x", false},
		{[]string{"https://app.example.com"}, "https://app.example.com:444", "x", false},
		{[]string{"https://app.example.com"}, "https://xapp.example.com", "x", false},
		{[]string{"https://*.example.com"}, "https://a.b.example.com", "x", true},
		{[]string{"https://*.example.com"}, "https://example.com", "x", false},
		{[]string{"https://*.example.com"}, "https://evilexample.com", "x", false},
		{[]string{"http://host:*"}, "http://host:123", "x", true},
		{[]string{"http://[fe80::1]:81"}, "http://[fe80::1]:81", "x", true},
		{[]string{"http://[fe80::1]"}, "http://[fe80::1]", "x", true},
	} {
		o, err := parseOrigins(tc.allowed)
		require.NoError(t, err)
		require.Equal(t, tc.want, o.allows(tc.origin, tc.host), "%v %s %s", tc.allowed, tc.origin, tc.host)
	}
	for _, bad := range []string{"", "example.com", "ftp://x", "https://", "https://*", "https://a.*.com", "https://x:", "https://x:y", "https://x/y", "https://a,b", "https://*.*.x"} {
		_, err := parseOrigins([]string{bad})
		require.ErrorContains(t, err, "want *", bad)
	}
	cfg := DefaultConfig()
	cfg.AllowedOrigins = []string{"nope"}
	_, err := New(cfg, newStore(), Deps{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	require.ErrorContains(t, err, "nope")
}

// What is allowed is an origin and nothing else, of a host that was named.
func FuzzOrigins(f *testing.F) {
	f.Add("https://a.example.com", "api.example.com")
	f.Add("http://[::1]:3000", "[::1]")
	f.Add("https://a.example.com@evil.example", "x")
	o, err := parseOrigins([]string{"https://*.example.com", "http://host:*"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, origin, host string) {
		if !o.allows(origin, host) {
			return
		}
		require.NotContains(t, origin, "@")
		_, authority, _ := strings.Cut(strings.ToLower(origin), "://")
		require.NotContains(t, authority, "/")
		name := hostname(authority)
		require.True(t, strings.EqualFold(authority, host) || isLoopback(name) || strings.HasSuffix(name, ".example.com") || name == "host", "%q %q", origin, host)
	})
}
