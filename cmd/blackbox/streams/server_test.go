package streams

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// single is a server of one process, and a client of it.
type single struct {
	*process.Server
	t      *testing.T
	client *client.Client
}

// serve starts a server with settings from the environment.
func serve(t *testing.T, env ...string) *single {
	t.Helper()
	server := process.MustStart(t, process.Config{DataDir: t.TempDir(), Env: env})
	return &single{Server: server, t: t, client: connect(t, server.URL())}
}

// filled returns a conversation of n messages whose texts have a size.
func (s *single) filled(id string, n, size int) {
	s.t.Helper()
	require.NoError(s.t, s.client.Create(s.t.Context(), id))
	s.append(id, n, size)
}

func (s *single) append(id string, n, size int) {
	s.t.Helper()
	for range n {
		_, err := s.client.Append(s.t.Context(), id, client.TextBody("", strings.Repeat("x", size)))
		require.NoError(s.t, err)
	}
}

// ctx ends when the test should have been over for long.
func (s *single) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	return ctx
}

// follower is a client in good order, at a place of a conversation.
type follower struct {
	stream Stream
	place  *Position
	s      *single
}

// follow opens a stream, from the place that is given.
func (s *single) follow(kind Transport, id string, from uint64, headers ...client.Header) *follower {
	s.t.Helper()
	stream, err := Open(s.ctx(), kind, s.URL(), id, Options{From: from, Headers: headers})
	require.NoError(s.t, err)
	s.t.Cleanup(stream.Close)
	f := &follower{stream, NewPosition(NewRecord(), from), s}
	f.place.Begin(kind)
	return f
}

// until reads until the sequence was seen and the end that there was is passed.
func (f *follower) until(seq uint64) {
	f.s.t.Helper()
	ctx := f.s.ctx()
	for f.place.Next <= seq || f.place.CaughtUp == nil {
		e, err := f.stream.Next(ctx)
		require.NoError(f.s.t, err)
		require.NoError(f.s.t, f.place.Take(&e))
	}
}

// closing reads until the server ends the stream.
func (f *follower) closing() *ClosedError {
	f.s.t.Helper()
	ctx := f.s.ctx()
	for {
		e, err := f.stream.Next(ctx)
		if err == nil {
			require.NoError(f.s.t, f.place.Take(&e))
			continue
		}
		var ended *ClosedError
		require.ErrorAs(f.s.t, err, &ended)
		require.NoError(f.s.t, ctx.Err(), "nobody closed the stream")
		return ended
	}
}

// raw sends a request on a connection of its own, and returns that with the
// status of the answer.
func (s *single) raw(request string) (net.Conn, *bufio.Reader, int) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Address())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(s.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Write([]byte(request))
	require.NoError(s.t, err)
	r := bufio.NewReader(conn)
	reply, err := http.ReadResponse(r, nil)
	require.NoError(s.t, err)
	if reply.StatusCode != http.StatusSwitchingProtocols && reply.Header.Get("Content-Type") != "text/event-stream" {
		_ = reply.Body.Close()
	}
	return conn, r, reply.StatusCode
}

// upgrade opens a WebSocket without a client for it.
func (s *single) upgrade(target string) (net.Conn, *bufio.Reader) {
	s.t.Helper()
	conn, r, status := s.raw("GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	require.Equal(s.t, http.StatusSwitchingProtocols, status)
	return conn, r
}

// metric returns the value of a sample of /metrics, named with its labels.
func (s *single) metric(sample string) float64 {
	s.t.Helper()
	reply, err := s.client.Do(s.t.Context(), http.MethodGet, "/metrics", nil)
	require.NoError(s.t, err)
	for line := range strings.Lines(string(reply.Body)) {
		if value, found := strings.CutPrefix(line, sample+" "); found {
			var v float64
			_, err := fmt.Sscan(value, &v)
			require.NoError(s.t, err)
			return v
		}
	}
	return 0
}

func (s *single) awaitMetric(sample string, want float64) {
	s.t.Helper()
	within(s.t, func() error {
		if got := s.metric(sample); got != want {
			return fmt.Errorf("%s is %v, want %v", sample, got, want)
		}
		return nil
	})
}

// resident returns the most memory that the server has had resident since it was
// last asked, in bytes. It returns 0 where the system does not tell.
func (s *single) resident() int {
	s.t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	require.NoError(s.t, err)
	_, rest, found := strings.Cut(string(status), "VmHWM:")
	require.True(s.t, found)
	var kilobytes int
	_, err = fmt.Sscan(rest, &kilobytes)
	require.NoError(s.t, err)
	// An error only means that the peak is that of all time.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.PID()), []byte("5"), 0)
	return kilobytes << 10
}

// boundedMemory runs what must not make the server grow by more than a bound.
func (s *single) boundedMemory(bound int, what func()) {
	s.t.Helper()
	s.resident()
	before := s.resident()
	what()
	grown := s.resident() - before
	s.t.Logf("resident: %d MiB before, at most %d MiB more", before>>20, grown>>20)
	require.Less(s.t, grown, bound, "the server has grown")
}

// status returns that of the answer that came in place of a stream.
func status(err error) (int, client.Fault) {
	var answered *RefusedError
	if !errors.As(err, &answered) {
		return 0, client.Fault{}
	}
	return answered.Reply.Status, answered.Reply.Fault()
}
