package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// running is a harness behind a real server.
type running struct {
	*harness
	server  *Server
	address string
	served  chan error
}

func newRunning(t *testing.T, changes ...func(*Config, *Deps)) *running {
	t.Helper()
	h := newHarness(t, changes...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &running{harness: h, server: NewServer(h.api), address: l.Addr().String(), served: make(chan error, 1)}
	go func() { r.served <- r.server.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, r.server.Close())
		require.NoError(t, <-r.served)
	})
	return r
}

// dial opens a connection whose reads and writes cannot hang the test.
func (r *running) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", r.address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn
}

// raw sends bytes and reads one answer.
func (r *running) raw(t *testing.T, request string) *reply {
	t.Helper()
	conn := r.dial(t)
	_, err := io.WriteString(conn, request)
	require.NoError(t, err)
	return readReply(t, bufio.NewReader(conn))
}

func readReply(t *testing.T, from *bufio.Reader) *reply {
	t.Helper()
	response, err := http.ReadResponse(from, nil)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	if response.Close { // taken out of the header
		response.Header.Set("Connection", "close")
	}
	return &reply{t: t, status: response.StatusCode, header: response.Header, body: body}
}

func post(path, body string, header ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), strings.Join(header, ""), body)
}

func TestServeOverANetwork(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	path := r.create("c")
	r.raw(t, post(path+"/messages", hello)).is(201).says(`{"seq":1,"version":1,"token_count":1}`)
	// Several requests on one connection, an escaped id among them.
	conn := r.dial(t)
	from := bufio.NewReader(conn)
	for _, id := range []string{"a%2Fb", "a+b", "a%20b", "100%25", "%E2%98%83", "..", "a%2E%2Fb;c=d,e", "*"} {
		_, err := fmt.Fprintf(conn, "PUT /v1/conversations/%s HTTP/1.1\r\nHost: h\r\n\r\n", id)
		require.NoError(t, err)
		got := readReply(t, from).is(200)
		require.NotContains(t, string(got.body), `%`+id[1:], id)
	}
	require.Equal(t, "a/b", string(r.store.byKey["a/b"].conv.Key))
	for _, id := range []string{"a+b", "a b", "100%", "☃", "..", "a./b;c=d,e", "*"} {
		require.NotNil(t, r.store.byKey[rpc.Key(id)], id)
	}
}

func TestMalformedRequestsGetAJSONBody(t *testing.T) {
	t.Parallel()
	r := newRunning(t, func(c *Config, _ *Deps) { c.MaxHeaderBytes = 4 << 10 })
	for _, tc := range []struct {
		request string
		status  int
		code    string
	}{
		{"nonsense\r\n\r\n", 400, "bad_request"},
		{"GET /v1/conversations/%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"GET /v1/conversations/% HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad_request"},
		{"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"},
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"},
		{"GET / HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n", 400, "bad_request"},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400, "bad_request"},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"},
		{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: magic\r\n\r\n", 501, "not_implemented"},
		{"GET / HTTP/3.7\r\nHost: h\r\n\r\n", 505, "http_version_not_supported"},
		{"POST / HTTP/1.1\r\nHost: h\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\n", 417, "expectation_failed"},
		{"GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", 431, "header_too_large"},
	} {
		got := r.raw(t, tc.request).fails(tc.status, tc.code)
		require.Equal(t, "application/json", got.header.Get("Content-Type"), tc.code)
		require.Equal(t, "close", got.header.Get("Connection"))
		require.Contains(t, string(got.body), `"message":"`)
	}
	require.Zero(t, r.store.state())
}

func TestOtherWritesPassThrough(t *testing.T) {
	t.Parallel()
	for _, b := range []string{
		"", "H", "HTTP/1.1 ", "HTTP/1.1 4", "HTTP/1.1 400", "HTTP/1.1 400 Bad Request", "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nok",
		"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\r\n{}", "HTTP/1.1 4xx\r\n", "HTTP/1.1 499 What\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n",
	} {
		require.Nil(t, plainErrorKind([]byte(b)), b)
	}
}

func TestALongBodyIsRefusedBeforeItArrives(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	path := r.create("c")
	got := r.raw(t, fmt.Sprintf("POST %s/messages HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", path, 9<<20))
	got.fails(413, "payload_too_large")
	require.Equal(t, "close", got.header.Get("Connection"))
}

func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	r := newRunning(t, func(c *Config, _ *Deps) {
		c.ReadHeaderTimeout, c.ReadTimeout = 50*time.Millisecond, 100*time.Millisecond
	})
	path := r.create("c")
	t.Run("in the body", func(t *testing.T) {
		t.Parallel()
		got := r.raw(t, fmt.Sprintf("POST %s/messages HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", path))
		got.fails(408, "request_timeout")
	})
	t.Run("in the header", func(t *testing.T) {
		t.Parallel()
		conn := r.dial(t)
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost:")
		require.NoError(t, err)
		answer, err := io.ReadAll(conn)
		require.NoError(t, err, "the server closes the connection")
		require.Empty(t, answer)
	})
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	r := newRunning(t, func(c *Config, _ *Deps) { c.DrainDelay = time.Millisecond })
	path := r.create("c")
	entered, release := make(chan struct{}), make(chan struct{})
	r.store.setFault(func(context.Context, string) error { close(entered); <-release; return nil })

	conn := r.dial(t)
	_, err := io.WriteString(conn, post(path+"/messages", hello))
	require.NoError(t, err)
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- r.server.Shutdown(t.Context()) }()
	require.Eventually(t, func() bool {
		probe := r.do("GET", "/health/ready", "")
		return probe.status == 503 && strings.Contains(string(probe.body), "draining")
	}, 10*time.Second, time.Millisecond)
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a request in flight: %v", err)
	default:
	}
	close(release)
	readReply(t, bufio.NewReader(conn)).is(201)
	require.NoError(t, <-stopped)
}

func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	path := r.create("c")
	entered := make(chan struct{})
	r.store.setFault(func(ctx context.Context, _ string) error { close(entered); <-ctx.Done(); return ctx.Err() })
	conn := r.dial(t)
	_, err := io.WriteString(conn, post(path+"/messages", hello))
	require.NoError(t, err)
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.server.Shutdown(ctx), context.DeadlineExceeded)
	require.NoError(t, r.server.Shutdown(t.Context()), "a second call closes")
	// The cut connection ends the request's context.
	require.Eventually(t, func() bool { return r.api.InFlight() == 0 }, 10*time.Second, time.Millisecond)
}

func TestServeReportsABrokenListener(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.ErrorContains(t, NewServer(h.api).Serve(l), "serve http on 127.0.0.1")
}
