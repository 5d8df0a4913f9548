package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// streams serves three messages of growing size after saying that it has caught
// up, over both transports.
func streams(t *testing.T) (address string) {
	t.Helper()
	sizes := []int{10, 1000, 100_000}
	payload := func(seq, size int) string {
		return fmt.Sprintf(`{"type":"message","seq":%d,"version":%d,"message":{"text":"%s"}}`, seq, seq, strings.Repeat("x", size))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/conversations/a/stream", func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = ws.CloseNow() }()
		ctx := ws.CloseRead(r.Context())
		send := func(text string) { _ = ws.Write(ctx, websocket.MessageText, []byte(text)) }
		send(`{"type":"caught_up","seq":4}`)
		for i, size := range sizes {
			if ws.Ping(ctx) != nil { // returns with the answer
				return
			}
			send(payload(5+i, size))
		}
		_ = ws.Close(websocket.StatusServiceRestart, "restarting")
	})
	mux.HandleFunc("/v1/conversations/a/events", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 1000\n\n:\n\n"+
			"event: caught_up\nid: 4\ndata: {\"type\":\"caught_up\",\"seq\":4}\n\n")
		for i, size := range sizes {
			_, _ = fmt.Fprintf(conn, "event: message\nid: %d\ndata: %s\n\n:\n\n", 5+i, payload(5+i, size))
		}
	})
	mux.HandleFunc("/v1/conversations/chunked/events", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestFeed(t *testing.T) {
	t.Parallel()
	address := streams(t)
	for _, transport := range transports {
		f, err := transport.follow(t.Context(), address, "a", 0, idleBuffer)
		require.NoError(t, err)
		t.Cleanup(f.close)
		require.EqualValues(t, 4, f.last)
		for seq := range uint64(3) {
			n, err := f.next()
			require.NoError(t, err)
			require.Equal(t, notice{seq: 5 + seq}, n)
		}
		require.Greater(t, f.bytes, int64(100_000))
		_, err = f.next()
		require.Error(t, err, "the server has ended it")

		f, err = transport.follow(t.Context(), address, "a", 5, busyBuffer)
		require.NoError(t, err)
		t.Cleanup(f.close)
		n, err := f.next()
		require.NoError(t, err)
		require.True(t, n.caughtUp)

		_, err = transport.follow(t.Context(), address, "nobody", 0, idleBuffer)
		require.ErrorContains(t, err, "404")
	}
	_, err := transports[1].follow(t.Context(), address, "chunked", 0, idleBuffer)
	require.ErrorIs(t, err, errChunked)
}

func TestAudience(t *testing.T) {
	t.Parallel()
	a, err := gather(t.Context(), overWebSocket, streams(t), []string{"a", "a", "a"}, idleBuffer)
	require.NoError(t, err)
	t.Cleanup(a.close)
	arrivals := newArrivals(len(a.feeds))
	a.listen(arrivals.heard)
	require.NoError(t, arrivals.await(t.Context(), 9))
	_, err = arrivals.when(2, 3)
	require.NoError(t, err)
	_, err = arrivals.when(2, 4)
	require.Error(t, err)
	a.wg.Wait()
	require.ErrorContains(t, a.err(), "1012 restarting")

	b, err := gather(t.Context(), overWebSocket, streams(t), []string{"a", "nobody"}, idleBuffer)
	require.Error(t, err)
	b.close()
	require.NoError(t, b.err())
}

// deaf is a connection that takes everything.
type deaf struct{ net.Conn }

func (deaf) Write(p []byte) (int, error) { return len(p), nil }
func (deaf) Close() error                { return nil }
func (deaf) SetDeadline(time.Time) error { return nil }
func feedOf(t transport, content []byte) *feed {
	return &feed{conn: deaf{}, reader: bufio.NewReaderSize(bytes.NewReader(content), 256), read: t.read}
}

func frame(first byte, payload string) string {
	header := []byte{first, byte(len(payload))}
	if len(payload) >= 126 {
		header = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(len(payload)))
	}
	return string(header) + payload
}

func TestFeedRefuses(t *testing.T) {
	t.Parallel()
	message := func(seq int) string { return fmt.Sprintf(`{"type":"message","seq":%d}`, seq) }
	for content, want := range map[string]string{
		frame(wholeText, message(1)) + frame(wholeText, message(3)):        "3 after 1",
		frame(wholeText, message(1)) + frame(wholeText, message(1)):        "1 after 1",
		frame(wholePing, "x") + frame(wholeClose, "\x03\xf4restart"):       "1012 restart",
		frame(wholeText, `{"type":"tombstone"}`):                           "tombstone",
		frame(wholeText, `{"type":"gap","expected":1,"actual":2}`):         "gap",
		frame(wholeText, `{"type":"message","seq":x}`):                     "no number",
		frame(0x01, message(1)):                                            "frame 0x1",
		"\x81\xff":                                                         "masks",
		"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff":                         "bytes",
		frame(wholeText, message(1)) + "\x81\x7e\x01\x00" + `{"type":"mes`: "EOF",
	} {
		requireEnds(t, feedOf(transports[0], []byte(content)), want)
	}
	for content, want := range map[string]string{
		"event: message\nid: 1\ndata: {}\n\nevent: message\nid: 3\ndata: {}\n\n": "3 after 1",
		"event: tombstone\ndata: {}\n\n":                                         "tombstone",
		"event: message\nid: x\n":                                                "no number",
		":\n\nid: 1\n\n":                                                         "EOF",
		"data: " + strings.Repeat("x", 1000):                                     "EOF",
	} {
		requireEnds(t, feedOf(transports[1], []byte(content)), want)
	}
}

func requireEnds(t *testing.T, f *feed, want string) {
	t.Helper()
	for range 5 {
		if _, err := f.next(); err != nil {
			require.ErrorContains(t, err, want)
			return
		}
	}
	require.Fail(t, "no error", want)
}

func FuzzFeed(f *testing.F) {
	f.Add([]byte(frame(wholeText, `{"type":"message","seq":1}`) + frame(wholePing, "x") + frame(wholeText, strings.Repeat("x", 300))))
	f.Add([]byte("\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x02{}"))
	f.Add([]byte("event: message\nid: 1\ndata: {}\n\n:\n\nevent: caught_up\nid: 1\ndata: " + strings.Repeat("x", 600) + "\n\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, transport := range transports {
			feed := feedOf(transport, content)
			for last, err := uint64(0), error(nil); err == nil; last = feed.last {
				if _, err = feed.next(); err == nil && feed.last < last {
					t.Fatal("went back")
				}
			}
			require.LessOrEqual(t, feed.bytes, int64(len(content))+maxFrame)
		}
	})
}

func TestRaiseOpenFiles(t *testing.T) {
	t.Parallel()
	require.NoError(t, raiseOpenFiles(-sparedFiles))
	require.ErrorContains(t, raiseOpenFiles(1<<40), "hard limit")
}

func TestCrowdKnowsTheSlowest(t *testing.T) {
	t.Parallel()
	c := newCrowd(&audience{}, 2, nil)
	c.last = 7
	c.heard(0, 7)
	require.Zero(t, c.slowest())
	c.heard(1, 5)
	require.EqualValues(t, 5, c.slowest())
	require.NoError(t, c.await(t.Context(), 5))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.await(ctx, 6), context.Canceled)
	c.fail(io.ErrUnexpectedEOF)
	require.ErrorIs(t, c.await(t.Context(), 6), io.ErrUnexpectedEOF)
}
