package socket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/router/stream/streamtest"
)

func expectRun(t testing.TB, l listener, from, to uint64) {
	t.Helper()
	for seq := from; seq <= to; seq++ {
		e := l.next()
		require.Equal(t, "message", e.Type, "%+v", e)
		require.Equal(t, seq, e.Seq)
	}
}

func TestReplayThenLiveThenTombstone(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, kind transport) {
		h := newHarness(t)
		h.log.Append("c", 500, 200)
		l := h.open(kind, "c", 3)
		expectRun(t, l, 3, 500)
		require.Equal(t, event{Type: "caught_up", Seq: 500}, without(l.next()))
		h.log.Append("c", 2, 200)
		expectRun(t, l, 501, 502)
		h.log.Tombstone("c")
		require.Equal(t, event{Type: "tombstone"}, without(l.next()))
		require.Equal(t, 1, h.server.Open(), "the connection stays")
		l.close()
	})
}

// without drops what only SSE has.
func without(e event) event {
	e.ID = ""
	return e
}

func TestFromNowOn(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, kind transport) {
		h := newHarness(t)
		h.log.Append("c", 5, 200)
		l := h.open(kind, "c", 0)
		require.Equal(t, event{Type: "caught_up", Seq: 5}, without(l.next()))
		h.log.Append("c", 1, 200)
		expectRun(t, l, 6, 6)
		l.close()
	})
}

func TestGaps(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, kind transport) {
		h := newHarness(t)
		h.log.Append("c", 10, 200)
		h.log.Trim("c", 7)
		l := h.open(kind, "c", 2)
		require.Equal(t, event{Type: "gap", Expected: 2, Actual: 7}, without(l.next()))
		expectRun(t, l, 7, 10)
		l.close()
	})
}

func TestMessagesOfAllSizesArriveWhole(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, kind transport) {
		h := newHarness(t)
		var want [][]byte
		for _, size := range []int{61, 120, 126, 127, 200, 1 << 10, directBytes - 100, directBytes, directBytes + 100, 65_400, 65_536, 70_000, 1 << 20, 100} {
			want = append(want, streamtest.JSON(uint64(len(want)+1), size))
		}
		h.log.AppendRaw("c", want[:5]...)
		l := h.open(kind, "c", 1)
		h.log.AppendRaw("c", want[5:]...)
		for i := range want {
			e := l.next()
			if e.Type == "caught_up" {
				e = l.next()
			}
			require.Equal(t, uint64(i+1), e.Seq)
			require.Equal(t, string(want[i]), string(e.Message))
		}
		l.close()
	})
}

func TestCompression(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.log.Append("c", 40, 3000)
	h.log.Append("c", 10, 100)
	deflating := &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover}
	l := h.dial("c", 1, deflating)
	expectRun(t, l, 1, 50)
	require.Equal(t, "caught_up", l.next().Type)
	h.log.Append("c", 3, 5000)
	expectRun(t, l, 51, 53)
	l.close()

	plain := newHarness(t, func(c *Config) { c.NoCompression = true })
	plain.log.Append("c", 1, 3000)
	conn, response, err := websocket.Dial(context.Background(), "ws://"+plain.addr+"/ws?key=c&from=1", deflating)
	require.NoError(t, err)
	require.Empty(t, response.Header.Get("Sec-WebSocket-Extensions"))
	_ = conn.CloseNow()
}

func TestEventsOnTheWire(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.log.AppendRaw("c", []byte("{\"seq\":1,\r\n\"a\":\n\r[]}"), []byte(`{"seq":2}`))
	c := h.follow("c", 1)
	defer c.close()
	require.Equal(t, "no", c.header.Get("X-Accel-Buffering"))
	require.Contains(t, c.header.Get("Cache-Control"), "no-cache")
	first := c.next()
	require.Equal(t, "1", first.ID)
	require.JSONEq(t, `{"seq":1,"a":[]}`, string(first.Message))
	require.Equal(t, "2", c.next().ID)
	require.Equal(t, "2", c.next().ID, "caught_up can be resumed from")
	require.Len(t, c.retry, 1)
	h.log.Create("empty")
	require.Equal(t, "0", h.follow("empty", 0).next().ID)
	require.Equal(t, "8", h.follow("empty", 9).next().ID)

	response, err := http.Head("http://" + h.addr + "/sse?key=c")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	require.Equal(t, 200, response.StatusCode)
}

func TestBeforeTheUpgrade(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.MaxConnections = 1 })
	h.log.Create("c")
	request := func(path string, header ...string) int {
		r, err := http.NewRequest(http.MethodGet, "http://"+h.addr+path, nil)
		require.NoError(t, err)
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, response.Body)
		require.NoError(t, response.Body.Close())
		http.DefaultClient.CloseIdleConnections()
		return response.StatusCode
	}
	upgrade := []string{"Connection", "keep-alive, Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	require.Equal(t, 404, request("/ws?key=nope", upgrade...))
	require.Equal(t, 404, request("/sse?key=nope"))
	require.Equal(t, 426, request("/ws?key=c"))
	require.Equal(t, 400, request("/socket/websocket?vsn=2.0.0"))
	require.Equal(t, 403, request("/socket/websocket?vsn=3.0.0", upgrade...))
	bad := func(at int, value string) []string {
		changed := append([]string{}, upgrade...)
		changed[at] = value
		return changed
	}
	require.Equal(t, 426, request("/ws?key=c", bad(1, "close")...))
	require.Equal(t, 400, request("/ws?key=c", bad(5, "8")...))
	require.Equal(t, 400, request("/ws?key=c", bad(7, "short")...))
	require.Equal(t, 400, request("/ws?key=c", append(upgrade, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")...))

	require.Equal(t, 0, h.server.Open())
	l := h.follow("c", 0)
	require.Equal(t, 503, request("/sse?key=c"))
	require.Equal(t, 503, request("/ws?key=c", upgrade...))
	require.Equal(t, 503, request("/socket/websocket", upgrade...))
	l.close()
	require.Eventually(t, func() bool { return h.server.Open() == 0 }, patience, time.Millisecond)
	l = h.follow("c", 0)
	l.close()
	h.server.Drain()
	require.Equal(t, 503, request("/sse?key=c"))
}

func TestDrainTellsClientsToComeBack(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, kind transport) {
		h := newHarness(t)
		h.log.Create("c")
		var all []listener
		for range 20 {
			l := h.open(kind, "c", 0)
			require.Equal(t, "caught_up", l.next().Type)
			all = append(all, l)
		}
		done := make(chan error, 1)
		go func() {
			ctx, cancel := h.deadline()
			defer cancel()
			done <- h.server.Shutdown(ctx)
		}()
		for _, l := range all {
			e := l.next()
			require.True(t, e.Closed)
			if kind != transportEvents {
				require.Equal(t, websocket.StatusServiceRestart, e.Code)
				require.NotEmpty(t, e.Reason)
			} else {
				require.Len(t, l.(*sseClient).retry, 2)
			}
			l.close()
		}
		require.NoError(t, <-done)
		require.Zero(t, h.server.Open())
	})
}

// Events have no close frame that a client could answer: they end at once, and
// so does the wait for a client that then leaves.
func TestDrainedEventsEndAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.CloseTimeout = time.Hour })
	h.log.Create("c")
	l := h.follow("c", 0)
	require.Equal(t, "caught_up", l.next().Type)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := h.deadline()
		defer cancel()
		done <- h.server.Shutdown(ctx)
	}()
	require.True(t, l.next().Closed)
	l.close()
	require.NoError(t, <-done)
}

func TestShutdownCutsOffThoseThatDoNotLeave(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.CloseTimeout = time.Hour })
	h.log.Create("c")
	conn, err := net.Dial("tcp", h.addr) // never answers anything
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, handshake("/socket/websocket"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return h.server.Open() == 1 }, patience, time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, h.server.Shutdown(ctx), context.DeadlineExceeded)
	require.Zero(t, h.server.Open())
}

func TestTheNativeSocketTakesNoMessages(t *testing.T) {
	t.Parallel()
	for kind, data := range map[websocket.MessageType][]byte{websocket.MessageText: []byte("ping"), websocket.MessageBinary: make([]byte, 1<<20)} {
		h := newHarness(t)
		h.log.Create("c")
		l := h.dial("c", 0)
		require.Equal(t, "caught_up", l.next().Type)
		_ = l.conn.Write(context.Background(), kind, data)
		e := l.next()
		require.True(t, e.Closed)
		require.Equal(t, websocket.StatusUnsupportedData, e.Code)
		require.Contains(t, e.Reason, "takes no messages")
		l.close()
	}
}

func TestPingsAreAnsweredAndCloseIsEchoed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.log.Create("c")
	l := h.dial("c", 0)
	require.Equal(t, "caught_up", l.next().Type)
	reading := l.conn.CloseRead(context.Background())
	ctx, cancel := h.deadline()
	defer cancel()
	require.NoError(t, l.conn.Ping(ctx))
	require.NoError(t, l.conn.Close(websocket.StatusNormalClosure, "bye"))
	<-reading.Done()
	require.Eventually(t, func() bool { return h.server.Open() == 0 }, patience, time.Millisecond)
}

func TestHeader(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]int{0: 2, 125: 2, 126: 4, 65535: 4, 65536: 10} {
		require.Len(t, appendHeader(nil, frameText, size), want, size)
		o := &output{buf: []byte("before")}
		text := bytes.Repeat([]byte("x"), size)
		o.text(func(dst []byte) []byte { return append(dst, text...) })
		require.Equal(t, "before"+string(appendHeader(nil, frameText, size))+string(text), string(o.buf), size)
	}
	require.Equal(t, append([]byte{frameClose, 5, 1012 >> 8, 1012 & 0xff}, "bye"...), appendClose(nil, 1012, "bye"))
	require.Len(t, appendClose(nil, 1012, strings.Repeat("x", 500)), 2+125)
}

func TestServerConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := New(Config{MaxJoinRate: -1})
	require.ErrorContains(t, err, "required")
	require.ErrorContains(t, err, "MaxJoinRate")
	require.Contains(t, fmt.Sprint(&HandshakeError{400, "why"}), "why")
}
