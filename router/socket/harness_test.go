package socket

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream"
	"github.com/fastpaca/fastpaca/router/stream/streamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// harness is a server of streams on a real socket, over a log in memory.
type harness struct {
	t      testing.TB
	log    *streamtest.Log
	hub    *stream.Hub
	server *Server
	addr   string
}

func newHarness(t testing.TB, changes ...func(*Config)) *harness {
	return newHarnessOver(t, streamtest.New(), changes...)
}

func newHarnessOver(t testing.TB, log *streamtest.Log, changes ...func(*Config)) *harness {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	hub, err := stream.NewHub(stream.Config{
		Node: log, Feed: log, Log: quiet, BackoffMin: time.Millisecond, BackoffMax: 5 * time.Millisecond, Sweep: 10 * time.Millisecond,
	})
	require.NoError(t, err)
	cfg := Config{Hub: hub, Log: quiet, Registerer: prometheus.NewRegistry(), CloseTimeout: 200 * time.Millisecond}
	for _, change := range changes {
		change(&cfg)
	}
	server, err := New(cfg)
	require.NoError(t, err)
	h := &harness{t: t, log: log, hub: hub, server: server}
	front := httptest.NewServer(http.HandlerFunc(h.route))
	h.addr = front.Listener.Addr().String()
	t.Cleanup(func() {
		server.Close()
		front.Close()
		hub.Close()
	})
	return h
}

func (h *harness) route(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
	key := rpc.Key(r.URL.Query().Get("key"))
	var err error
	switch r.URL.Path {
	case "/ws":
		err = h.server.WebSocket(w, r, key, from)
	case "/sse":
		err = h.server.Events(w, r, key, from)
	default:
		err = h.server.Phoenix(w, r)
	}
	if err == nil {
		return
	}
	var handshake *HandshakeError
	switch {
	case errors.As(err, &handshake):
		http.Error(w, handshake.Reason, handshake.Status)
	case errors.Is(err, rpc.ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// listener is a client that is told events, on any transport.
type listener interface {
	// next returns the next event: its type, and its payload.
	next() event
	// gone returns once the connection has ended.
	close()
}

type event struct {
	Type             string
	Seq              uint64
	Version          uint64
	Message          json.RawMessage
	Expected, Actual uint64
	ID               string `json:"-"` // of SSE
	Closed           bool   `json:"-"`
	Code             websocket.StatusCode
	Reason           string
}

func (h *harness) deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// wsClient speaks the native protocol.
type wsClient struct {
	t    testing.TB
	conn *websocket.Conn
}

func (h *harness) dial(key string, from uint64, options ...*websocket.DialOptions) *wsClient {
	h.t.Helper()
	ctx, cancel := h.deadline()
	defer cancel()
	var opts *websocket.DialOptions
	if len(options) > 0 {
		opts = options[0]
	}
	conn, response, err := websocket.Dial(ctx, fmt.Sprintf("ws://%s/ws?key=%s&from=%d", h.addr, key, from), opts)
	require.NoError(h.t, err)
	if response.Body != nil {
		_ = response.Body.Close()
	}
	conn.SetReadLimit(16 << 20)
	return &wsClient{h.t, conn}
}

func (c *wsClient) read() (text []byte, code websocket.StatusCode, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, text, err := c.conn.Read(ctx)
	if err != nil {
		require.NoError(c.t, ctx.Err(), "nothing came")
		var closed websocket.CloseError
		_ = errors.As(err, &closed)
		return nil, closed.Code, closed.Reason
	}
	return text, 0, ""
}

func (c *wsClient) next() event {
	c.t.Helper()
	text, code, reason := c.read()
	if text == nil {
		return event{Closed: true, Code: code, Reason: reason}
	}
	var e event
	require.NoError(c.t, json.Unmarshal(text, &e), "%s", text)
	return e
}

func (c *wsClient) close() { _ = c.conn.CloseNow() }

// sseClient speaks Server-Sent Events.
type sseClient struct {
	t      testing.TB
	conn   net.Conn
	r      *bufio.Reader
	header http.Header
	retry  []string
}

func (h *harness) follow(key string, from uint64) *sseClient {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(h.t, err)
	_, err = fmt.Fprintf(conn, "GET /sse?key=%s&from=%d HTTP/1.1\r\nHost: x\r\n\r\n", key, from)
	require.NoError(h.t, err)
	c := &sseClient{t: h.t, conn: conn, r: bufio.NewReader(conn)}
	request, err := http.NewRequest(http.MethodGet, "/", nil)
	require.NoError(h.t, err)
	response, err := http.ReadResponse(c.r, request)
	require.NoError(h.t, err)
	require.Equal(h.t, 200, response.StatusCode)
	require.Equal(h.t, "text/event-stream", response.Header.Get("Content-Type"))
	c.header = response.Header
	c.r = bufio.NewReader(response.Body)
	return c
}

func (c *sseClient) next() event {
	c.t.Helper()
	require.NoError(c.t, c.conn.SetReadDeadline(time.Now().Add(patience)))
	var e event
	var name string
	var data []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			require.True(c.t, errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset") || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
			return event{Closed: true}
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "event":
			name = value
		case "id":
			e.ID = value
		case "data":
			data = append(data, value)
		case "retry":
			c.retry = append(c.retry, value)
		case "":
			if line != "" || data == nil {
				continue // a comment, or the end of nothing
			}
			text := strings.Join(data, "\n")
			require.NoError(c.t, json.Unmarshal([]byte(text), &e), "%s", text)
			require.Equal(c.t, name, e.Type)
			return e
		case ":":
		default:
			require.Fail(c.t, "unknown field", "%q", line)
		}
	}
}

func (c *sseClient) close() { _ = c.conn.Close() }

// channelClient follows one conversation as a Phoenix channel.
type channelClient struct{ *phoenixClient }

// phoenixClient speaks Phoenix Channels in raw frames.
type phoenixClient struct {
	wsClient
}

func (h *harness) phoenix(vsn string) *phoenixClient {
	h.t.Helper()
	ctx, cancel := h.deadline()
	defer cancel()
	conn, response, err := websocket.Dial(ctx, "ws://"+h.addr+"/socket/websocket?token=x&vsn="+vsn, nil)
	require.NoError(h.t, err)
	if response.Body != nil {
		_ = response.Body.Close()
	}
	conn.SetReadLimit(16 << 20)
	return &phoenixClient{wsClient{h.t, conn}}
}

func (c *phoenixClient) send(frame string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(c.t, c.conn.Write(ctx, websocket.MessageText, []byte(frame)))
}

func (c *phoenixClient) says(frames ...string) {
	c.t.Helper()
	for _, want := range frames {
		got, code, reason := c.read()
		require.Equal(c.t, want, string(got), "%d %s", code, reason)
	}
}

func (h *harness) joined(key string, from uint64) *channelClient {
	h.t.Helper()
	c := h.phoenix("2.0.0")
	params := "{}"
	if from > 0 {
		params = fmt.Sprintf(`{"from":%d}`, from)
	}
	c.send(fmt.Sprintf(`["1","1","conversation:%s","phx_join",%s]`, key, params))
	return &channelClient{c}
}

// next skips the answer to the join.
func (c *channelClient) next() event {
	c.t.Helper()
	for {
		text, code, reason := c.read()
		if text == nil {
			return event{Closed: true, Code: code, Reason: reason}
		}
		var frame [5]json.RawMessage
		require.NoError(c.t, json.Unmarshal(text, &frame), "%s", text)
		if string(frame[3]) == `"phx_reply"` {
			require.Contains(c.t, string(frame[4]), `"status":"ok"`)
			continue
		}
		require.Equal(c.t, `"1"`, string(frame[0]))
		var e event
		require.NoError(c.t, json.Unmarshal(frame[4], &e))
		require.Equal(c.t, strconv.Quote(e.Type), string(frame[3]))
		return e
	}
}

// open begins to follow on each transport.
func (h *harness) open(kind transport, key string, from uint64) listener {
	switch kind {
	case transportWebSocket:
		return h.dial(key, from)
	case transportEvents:
		return h.follow(key, from)
	}
	return h.joined(key, from)
}

func eachTransport(t *testing.T, test func(t *testing.T, kind transport)) {
	for kind := range transports {
		t.Run(transportNames[kind], func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// sent is how many messages the server has sent on a transport.
func (h *harness) sent(kind transport) float64 {
	return counted(h.t, h.server.metrics.of[kind].sent)
}

func counted(t testing.TB, c prometheus.Counter) float64 {
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}
