package streams

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const phoenixPath = "/socket/websocket?vsn=2.0.0"

// frame is one from a client: header bytes, and a payload masked with zeros.
func frame(first byte, payload string) string {
	header := []byte{first, 0x80 | byte(len(payload))}
	switch n := len(payload); {
	case n >= 1<<16:
		header = []byte{first, 0x80 | 127, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	case n >= 126:
		header = []byte{first, 0x80 | 126, byte(n >> 8), byte(n)}
	}
	return string(header) + "\x00\x00\x00\x00" + payload
}

// closeCode reads frames of a server until its close frame.
func closeCode(t *testing.T, r io.Reader) (code int, reason string) {
	t.Helper()
	var head [10]byte
	for {
		_, err := io.ReadFull(r, head[:2])
		require.NoError(t, err, "the connection ended without a close frame")
		size := int(head[1])
		switch size {
		case 126:
			_, err = io.ReadFull(r, head[:2])
			size = int(head[0])<<8 | int(head[1])
		case 127:
			_, err = io.ReadFull(r, head[2:])
			size = int(head[6])<<24 | int(head[7])<<16 | int(head[8])<<8 | int(head[9])
		}
		require.NoError(t, err)
		closing := size < 126 && head[0] == 0x88
		payload := make([]byte, size)
		_, err = io.ReadFull(r, payload)
		require.NoError(t, err)
		if closing {
			require.GreaterOrEqual(t, size, 2)
			return int(payload[0])<<8 | int(payload[1]), string(payload[2:])
		}
	}
}

// What a client must not send ends its connection with a code that says why, and
// no other connection.
func TestBadFrames(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.filled("c", 3, 10)
	others := map[Transport]*follower{}
	for _, kind := range Transports() {
		others[kind] = s.follow(kind, "c", 1)
		others[kind].until(3)
	}
	const native = "/v1/conversations/c/stream?from=1"
	big := strings.Repeat("x", 1<<20)
	for _, tc := range []struct {
		name, path, bytes string
		code              int
	}{
		{"text on the native socket", native, frame(0x81, "hello"), 1003},
		{"JSON on the native socket", native, frame(0x81, `{"type":"message"}`), 1003},
		{"binary on the native socket", native, frame(0x82, "\x00\x01"), 1003},
		{"large on the native socket", native, frame(0x81, big), 1003},
		{"unknown opcode", native, frame(0x83, ""), 1002},
		{"reserved bits", native, frame(0xf1, ""), 1002},
		{"unmasked", native, "\x81\x02hi", 1002},
		{"long ping", native, frame(0x89, strings.Repeat("x", 200)), 1002},
		{"not JSON", phoenixPath, frame(0x81, "hello"), 1007},
		{"empty", phoenixPath, frame(0x81, ""), 1007},
		{"too short", phoenixPath, frame(0x81, `[null,"1","phoenix","heartbeat"]`), 1007},
		{"not an array", phoenixPath, frame(0x81, `"x"`), 1007},
		{"numbers for references", phoenixPath, frame(0x81, `[1,2,"phoenix","heartbeat",{}]`), 1007},
		{"a topic that is none", phoenixPath, frame(0x81, `[null,"1",5,"heartbeat",{}]`), 1007},
		{"cut off", phoenixPath, frame(0x81, `[null,"1","phoenix","heartbeat",{`), 1007},
		{"deep", phoenixPath, frame(0x81, `[null,"1","a","b",`+strings.Repeat("[", 30_000)), 1007},
		{"not UTF-8", phoenixPath, frame(0x81, "[null,\"1\",\"\xff\",\"b\",{}]"), 1007},
		{"binary too short", phoenixPath, frame(0x82, "\x00\xff\xff\xff\xff"), 1007},
		{"empty binary", phoenixPath, frame(0x82, ""), 1007},
		{"binary of no kind", phoenixPath, frame(0x82, "\x09\x00\x00\x00\x00"), 1007},
		{"oversized", phoenixPath, frame(0x81, `[null,"1","a","b","`+big+`"]`), 1009},
		{"binary in version 1", "/socket/websocket?vsn=1.0.0", frame(0x81, `{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}`) + frame(0x82, "\x00\x00\x00\x01\x01ab"), 1007},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, r := s.upgrade(tc.path)
			// Part of it may never be taken.
			_, _ = io.WriteString(conn, tc.bytes)
			code, reason := closeCode(t, r)
			require.Equal(t, tc.code, code, reason)
			require.NotEmpty(t, reason)
			_ = conn.Close()
		})
	}
	s.append("c", 1, 10)
	for _, f := range others {
		f.until(4)
	}
}

// Frames in order that make no sense are answered, and change nothing.
func TestSenselessFrames(t *testing.T) {
	t.Parallel()
	s := serve(t)
	ctx := s.ctx()
	socket, err := DialSocket(ctx, s.URL(), "2.0.0", Options{})
	require.NoError(t, err)
	defer socket.Close()
	long := strings.Repeat("x", 513)
	for i, tc := range []struct{ topic, event, payload, reason string }{
		{"", "phx_join", `{}`, "unmatched topic"},
		{"conversation", "phx_join", `{}`, "unmatched topic"},
		{"Conversation:x", "phx_join", `{}`, "unmatched topic"},
		{"phoenix", "phx_join", `{}`, "unmatched topic"},
		{"nope:1", "phx_join", `{}`, "unmatched topic"},
		{"conversation:", "phx_join", `{}`, "invalid conversation id"},
		{"conversation:a\x00b", "phx_join", `{}`, "invalid conversation id"},
		{"conversation:" + long, "phx_join", `{}`, "invalid conversation id"},
		{"conversation:x", "phx_join", `{"from":"x"}`, "invalid from"},
		{"conversation:x", "phx_join", `{"from":1.5}`, "invalid from"},
		{"conversation:x", "phx_join", `{"from":{}}`, "invalid from"},
		{"conversation:x", "phx_join", `{"cursor":true}`, "invalid from"},
		{"conversation:x", "phx_join", `[]`, "invalid from"},
		{"conversation:x", "phx_join", `"x"`, "invalid from"},
		{"conversation:x", "message", `{}`, "unmatched topic"},
		{"phoenix", "nothing", `{}`, "unmatched topic"},
		{"conversation:a:b/c é\n", "phx_join", `{}`, ""},
		{"conversation:n", "phx_join", `{"from":-7}`, ""},
		{"conversation:h", "phx_join", `{"from":99999999999999999999999999}`, ""},
		{"conversation:o", "phx_join", `{"other":[1,{"a":null}],"from":null}`, ""},
		{"conversation:o", "message", `{}`, "unsupported event"},
		{"conversation:never", "phx_leave", `{}`, ""},
		{"phoenix", "heartbeat", `[1]`, ""},
	} {
		ref := fmt.Sprint(i + 1)
		require.NoError(t, socket.Push(ctx, "", ref, tc.topic, tc.event, tc.payload))
		var f *Frame
		for f == nil || f.Event == "caught_up" {
			f, err = socket.Read(ctx)
			require.NoError(t, err, "%+v", tc)
		}
		require.Equal(t, ref, *f.Ref, "%+v: %s", tc, f.Text)
		require.Equal(t, tc.topic, f.Topic)
		require.Equal(t, tc.reason, f.Reply().Reason(), "%+v", tc)
		require.Equal(t, tc.reason == "", f.Reply().Status == "ok", "%+v", tc)
	}
	// Binary frames are read: a push to a topic that is not joined.
	require.NoError(t, socket.SendBinary(ctx, []byte("\x00\x01\x02\x01\x01122tedata")))
	f, err := socket.Read(ctx)
	require.NoError(t, err)
	require.Equal(t, "unmatched topic", f.Reply().Reason(), f.Text)
}

// Bytes that a client of Server-Sent Events sends are read and dropped, until it
// is too much.
func TestEventsClientThatSends(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.filled("c", 3, 10)
	other := s.follow(SSE, "c", 1)
	conn, _, code := s.raw("GET /v1/conversations/c/events?from=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 200, code)
	junk := strings.Repeat("GET / HTTP/1.1\r\n\r\n", 4096)
	for {
		if _, err := io.WriteString(conn, junk); err != nil {
			timeout, ok := err.(net.Error)
			require.False(t, ok && timeout.Timeout(), "it is still read from")
			break
		}
	}
	s.awaitMetric(`fastpaca_stream_closed_total{cause="protocol"}`, 1)
	other.until(3)
}

// Silence on a stream of events is broken by comments every 15 seconds, so that
// nobody on the way closes it.
func TestEventsHeartbeat(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.filled("c", 0, 0)
	events, err := OpenEvents(s.ctx(), s.URL(), "c", Options{})
	require.NoError(t, err)
	defer events.Close()
	heard, cancel := context.WithCancel(s.ctx())
	defer cancel()
	comments := 0
	events.OnComment = func() { comments++; cancel() }
	e, err := events.Next(heard)
	require.NoError(t, err)
	require.Equal(t, "caught_up", e.Type)
	_, err = events.Next(heard)
	require.Error(t, err, "nothing but a comment comes")
	require.Equal(t, 1, comments)
}
