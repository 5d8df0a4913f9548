package streams

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// How much a server may grow while somebody tries to fill it. These bounds are
// generous; without bounds of its own it would grow by a multiple.
const (
	joinsMayTake   = 64 << 20
	readersMayTake = 256 << 20
	halfMayTake    = 64 << 20
)

// Ten thousand joins on one socket are all answered, and few are accepted.
func TestManyJoinsOnOneSocket(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.filled("c", 3, 10)
	other := s.follow(Phoenix, "c", 1)
	const joins, limit = 10_000, 256
	s.boundedMemory(joinsMayTake, func() {
		ctx := s.ctx()
		socket, err := DialSocket(ctx, s.URL(), "2.0.0", Options{})
		require.NoError(t, err)
		defer socket.Close()
		var sending sync.WaitGroup
		defer sending.Wait()
		sending.Go(func() {
			for i := range joins {
				if err := socket.Join(ctx, fmt.Sprint(i+1), Topic(fmt.Sprintf("many-%d", i)), `{"from":1}`); err != nil {
					t.Errorf("join %d: %v", i, err)
					return
				}
			}
		})
		accepted, refused := 0, 0
		for accepted+refused < joins {
			f, err := socket.Read(ctx)
			require.NoError(t, err)
			switch r := f.Reply(); {
			case r.Status == "ok":
				accepted++
			case r.Status == "error":
				require.Contains(t, []string{"too many channels joined", "too many joins, try later"}, r.Reason())
				refused++
			default:
				require.Equal(t, "caught_up", f.Event)
			}
		}
		require.Equal(t, limit, accepted)
	})
	s.append("c", 1, 10)
	other.until(4)
}

// Clients that follow a conversation and never read are cut off in the end. What
// they leave unread is no burden, and others who follow it see all of it.
func TestClientsThatNeverRead(t *testing.T) {
	t.Parallel()
	const each, messages, size = 10, 200, 200_000
	s := serve(t)
	s.filled("c", 1, 10)
	requests := []string{"GET /v1/conversations/c/events?from=1 HTTP/1.1\r\nHost: x\r\n\r\n"}
	s.boundedMemory(readersMayTake, func() {
		for range each {
			for _, request := range requests {
				conn, _, code := s.raw(request)
				require.Equal(t, http.StatusOK, code)
				require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(64<<10))
			}
			s.upgrade("/v1/conversations/c/stream?from=1")
			conn, _ := s.upgrade(phoenixPath)
			_, err := io.WriteString(conn, frame(0x81, `["1","1","conversation:c","phx_join",{"from":1}]`))
			require.NoError(t, err)
		}
		var reading sync.WaitGroup
		for _, kind := range Transports() {
			f := s.follow(kind, "c", 1)
			reading.Go(func() { f.until(messages + 1) })
		}
		s.append("c", messages, size)
		reading.Wait()
		s.awaitMetric(`fastpaca_stream_closed_total{cause="slow"}`, each*float64(len(Transports())))
	})
	s.append("c", 1, 10)
	for _, kind := range Transports() {
		s.follow(kind, "c", messages).until(messages + 2)
	}
}

// A client that sends frames and reads no answers stops itself.
func TestClientThatOnlySends(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.boundedMemory(joinsMayTake, func() {
		conn, _ := s.upgrade(phoenixPath)
		refused := frame(0x81, `[null,"1","`+strings.Repeat("x", 60_000)+`","e",{}]`)
		for {
			if _, err := io.WriteString(conn, refused); err != nil {
				timeout, ok := err.(net.Error)
				require.False(t, ok && timeout.Timeout(), "it is still served")
				break
			}
		}
	})
	s.awaitMetric(`fastpaca_stream_closed_total{cause="slow"}`, 1)
}

// Connections on which a request begins and does not go on, and streams whose
// clients have gone without a word, are no burden either.
func TestHalfOpenConnections(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.filled("c", 3, 10)
	const each = 200
	s.boundedMemory(halfMayTake, func() {
		for _, begun := range []string{
			"", "GET", "GET /v1/conversations/c/stream HTTP/1.1\r\nHost: x\r\nUpgrade: webso",
			"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: x\r\n",
		} {
			for range each {
				conn, err := net.Dial("tcp", s.Address())
				require.NoError(t, err)
				t.Cleanup(func() { _ = conn.Close() })
				_, err = io.WriteString(conn, begun)
				require.NoError(t, err)
			}
		}
		for _, kind := range Transports() {
			s.follow(kind, "c", 1).until(3)
		}
	})
	if *runFor == 0 {
		t.Log("whether silent streams are given up is left to the long run: it takes 90 s")
		return
	}
	for range each {
		s.upgrade("/v1/conversations/c/stream") // answers no ping
	}
	withinBound(t, 2*patience, func() error {
		if open := s.metric(`fastpaca_stream_connections{transport="websocket"}`); open > 0 {
			return fmt.Errorf("%v streams are open", open)
		}
		return nil
	})
}

// Beyond the limit of connections, requests are answered before they become
// streams, and one that ends makes room.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	const limit = 7
	s := serve(t, fmt.Sprintf("FASTPACA_MAX_STREAMS=%d", limit))
	s.filled("c", 3, 10)
	var open []*follower
	for i := range limit {
		open = append(open, s.follow(Transports()[i%3], "c", 1))
	}
	for _, kind := range Transports() {
		_, err := Open(s.ctx(), kind, s.URL(), "c", Options{From: 1})
		var answered *RefusedError
		require.ErrorAs(t, err, &answered, kind)
		require.Equal(t, http.StatusServiceUnavailable, answered.Reply.Status)
		require.Equal(t, "overloaded", answered.Reply.Fault().Code)
		_, ok := answered.Reply.RetryAfter()
		require.True(t, ok, kind)
	}
	for i, kind := range Transports() {
		open[i].stream.Close()
		within(t, func() error {
			stream, err := Open(s.ctx(), kind, s.URL(), "c", Options{From: 1})
			if err == nil {
				stream.Close()
			}
			return err
		})
	}
	s.append("c", 1, 10)
	for _, f := range open[3:] {
		f.until(4)
	}
}

// Pages of other origins are refused before anything is streamed.
func TestOrigins(t *testing.T) {
	t.Parallel()
	s := serve(t, "FASTPACA_ALLOWED_ORIGINS=https://app.example.com,https://*.example.org")
	s.filled("c", 1, 10)
	for origin, allowed := range map[string]bool{
		"https://app.example.com":              true,
		"https://a.b.example.org":              true,
		s.URL():                                true,
		"http://localhost:5173":                true, // both are this machine
		"https://app.example.com.":             false,
		"http://app.example.com":               false,
		"https://example.org":                  false,
		"https://evil.example.com":             false,
		"null":                                 false,
		"https://example.com:443@evil.example": false,
	} {
		for _, kind := range Transports() {
			stream, err := Open(s.ctx(), kind, s.URL(), "c", Options{Headers: []client.Header{{Name: "Origin", Value: origin}}})
			if allowed {
				require.NoError(t, err, "%s on %s", origin, kind)
				stream.Close()
				continue
			}
			code, fault := status(err)
			require.Equal(t, http.StatusForbidden, code, "%s on %s: %v", origin, kind, err)
			require.Equal(t, "origin_not_allowed", fault.Code)
		}
	}
}

// A server that is told to stop sends its clients away. Those that come back to
// the next one have missed nothing.
func TestDrain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	address, err := process.FreeAddress()
	require.NoError(t, err)
	start := func() *single {
		server := process.MustStart(t, process.Config{DataDir: dir, Listen: address})
		return &single{Server: server, t: t, client: connect(t, server.URL())}
	}
	s := start()
	s.filled("c", 20, 10)
	const each = 20
	var all []*follower
	for range each {
		for _, kind := range Transports() {
			f := s.follow(kind, "c", 1)
			f.until(20)
			all = append(all, f)
		}
	}
	require.NoError(t, s.Signal(syscall.SIGTERM))
	for _, f := range all {
		ended := f.closing()
		if events, ok := f.stream.(*EventSource); ok {
			require.ErrorIs(t, ended, io.EOF)
			require.Positive(t, events.Retry)
			continue
		}
		require.Equal(t, 1012, ended.Code, ended)
		require.Contains(t, ended.Reason, "restart")
	}
	s.MustExit(t, 0)
	s = start()
	s.append("c", 5, 10)
	for i, f := range all {
		again := s.follow(Transports()[i%3], "c", f.place.Next)
		again.until(25)
		require.Equal(t, 5, again.place.Seen)
	}
}
