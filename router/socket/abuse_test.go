package socket

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// causes counts the ended connections by cause.
func (h *harness) ended(cause string) int {
	return int(counted(h.t, h.server.metrics.closed.WithLabelValues(cause)))
}

// Bad frames end the connection that sent them, with a code that says why, and
// no other.
func TestBadFrames(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.log.Create("c")
	other := h.joined("c", 1)
	defer other.close()
	require.Equal(t, "caught_up", other.next().Type)
	for name, tc := range map[string]struct {
		kind websocket.MessageType
		data string
		code websocket.StatusCode
	}{
		"empty":     {websocket.MessageText, "", websocket.StatusInvalidFramePayloadData},
		"no JSON":   {websocket.MessageText, "hello", websocket.StatusInvalidFramePayloadData},
		"too short": {websocket.MessageText, `[null,null,"phoenix","heartbeat"]`, websocket.StatusInvalidFramePayloadData},
		"no UTF-8":  {websocket.MessageText, "[null,null,\"\xff\",\"x\",{}]", websocket.StatusInvalidFramePayloadData},
		"deep":      {websocket.MessageText, `[null,null,"a","b",` + strings.Repeat("[", 30_000), websocket.StatusInvalidFramePayloadData},
		"binary":    {websocket.MessageBinary, "\x00\xff\xff\xff\xffx", websocket.StatusInvalidFramePayloadData},
		"oversized": {websocket.MessageText, `[null,null,"a","b","` + strings.Repeat("x", 1<<20) + `"]`, websocket.StatusMessageTooBig},
	} {
		p := h.phoenix("2.0.0")
		before := h.ended(causeProtocol)
		_ = p.conn.Write(context.Background(), tc.kind, []byte(tc.data))
		e := p.next()
		require.True(t, e.Closed, name)
		require.Equal(t, tc.code, e.Code, name)
		require.NotEmpty(t, e.Reason, name)
		p.close()
		require.Eventually(t, func() bool { return h.ended(causeProtocol) == before+1 }, patience, time.Millisecond, name)
	}
	h.log.Append("c", 1, 100)
	require.Equal(t, uint64(1), other.next().Seq)
}

// Frames that no library sends.
func TestBrokenFraming(t *testing.T) {
	t.Parallel()
	for name, frame := range map[string]string{
		"unmasked":            "\x81\x02[]",
		"unknown opcode":      "\x83\x80\x00\x00\x00\x00",
		"reserved bits":       "\xf1\x80\x00\x00\x00\x00",
		"long control frame":  "\x89\xfe\x01\x00\x00\x00\x00\x00",
		"split control frame": "\x09\x80\x00\x00\x00\x00",
		"lone continuation":   "\x80\x80\x00\x00\x00\x00",
		"bad close":           "\x88\x81\x00\x00\x00\x00x",
		"huge":                "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
	} {
		for _, path := range []string{"/ws?key=c", "/socket/websocket?vsn=2.0.0"} {
			h := newHarness(t)
			h.log.Create("c")
			conn := h.upgrade(path)
			_, err := io.WriteString(conn, frame)
			require.NoError(t, err)
			if name == "huge" { // its reading goes on until the limit
				_, _ = conn.Write(make([]byte, 200<<10))
			}
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			said, err := io.ReadAll(conn)
			require.False(t, isTimeout(err), "%s: the connection stays", name)
			if name != "huge" && name != "bad close" { // the library's own answers
				require.Contains(t, string(said), "\x03\xea", "%s: no close frame with 1002", name)
			}
			require.NoError(t, conn.Close())
			require.Eventually(t, func() bool { return h.server.Open() == 0 }, patience, time.Millisecond, name)
		}
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

func TestManyJoinsOnOneSocket(t *testing.T) {
	t.Parallel()
	const joins = 10_000
	h := newHarness(t, func(c *Config) { c.MaxSubscriptions, c.MaxJoinRate = 20, 1 })
	p := h.phoenix("2.0.0")
	defer p.close()
	go func() {
		for i := range joins {
			frame := fmt.Sprintf(`["%d","%d","conversation:c%d","phx_join",{}]`, i+1, i+1, i)
			if p.conn.Write(context.Background(), websocket.MessageText, []byte(frame)) != nil {
				return
			}
		}
	}()
	accepted, refused := 0, 0
	for accepted+refused < joins {
		text, code, _ := p.read()
		require.NotNil(t, text, code)
		switch s := string(text); {
		case strings.Contains(s, `"status":"ok"`):
			accepted++
		case strings.Contains(s, "too many channels joined"):
			refused++
		default:
			require.Contains(t, s, "caught_up")
		}
	}
	require.Equal(t, 20, accepted)
	require.LessOrEqual(t, h.hub.Topics(), 20)
	// Joining and leaving does not get around the rate.
	for i := range 5 {
		p.send(fmt.Sprintf(`[null,"a","conversation:c%d","phx_leave",{}]`, i))
		_, _, _ = p.read()
		_, _, _ = p.read()
	}
	for range 30 {
		p.send(`["x","x","conversation:x","phx_join",{}]`)
	}
	for {
		text, code, _ := p.read()
		require.NotNil(t, text, code)
		if strings.Contains(string(text), "too many joins") {
			break
		}
	}
}

// A client that does not read is closed; the others do not notice.
func TestAClientThatNeverReads(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/ws?key=c&from=1", "/sse?key=c&from=1"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			// Long enough for the one that reads, on a machine that is busy.
			h := newHarness(t, func(c *Config) { c.WriteTimeout, c.SendBuffer = 2*time.Second, 64<<10 })
			h.log.Append("c", 40, 100_000)
			never := h.upgrade(path)
			require.NoError(t, never.(*net.TCPConn).SetReadBuffer(4<<10))
			reader := h.dial("c", 1)
			expectRun(t, reader, 1, 40)
			require.Eventually(t, func() bool { return h.ended(causeSlow) == 1 }, patience, time.Millisecond)
			h.log.Append("c", 1, 100)
			require.Equal(t, "caught_up", reader.next().Type)
			expectRun(t, reader, 41, 41)
			_ = never.Close()
			reader.close()
		})
	}
}

// Clients that vanish while they are written to have done nothing wrong.
func TestClientsThatVanish(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/ws?key=c&from=1", "/sse?key=c&from=1"} {
		h := newHarness(t)
		h.log.Append("c", 100, 100_000)
		const clients = 20
		for range clients {
			conn := h.upgrade(path)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
			_, err := io.ReadFull(conn, make([]byte, 10_000)) // it is served
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).SetLinger(0)) // a reset
			require.NoError(t, conn.Close())
		}
		require.Eventually(t, func() bool { return h.server.Open() == 0 }, patience, time.Millisecond)
		require.Equal(t, clients, h.ended(causeClient), path)
	}
}

// What comes in one packet with the request is read behind it.
func TestFramesBehindTheRequest(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, handshake("/socket/websocket?vsn=2.0.0")+"\x81\xa4\x00\x00\x00\x00"+beat2)
	require.NoError(t, err)
	r := bufio.NewReader(conn)
	for said := ""; !strings.HasSuffix(said, beaten2); {
		b, err := r.ReadByte()
		require.NoError(t, err)
		said += string(rune(b))
	}
	_, err = io.WriteString(conn, "\x88\x80\x00\x00\x00\x00")
	require.NoError(t, err)
	said, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "\x88\x00", string(said), "its close frame is answered")
	require.Eventually(t, func() bool { return h.ended(causeClient) == 1 }, patience, time.Millisecond)
}

// A client that sends and does not read stops itself: what waits for it is
// bounded.
func TestAClientThatOnlySends(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config) { c.WriteTimeout, c.SendBuffer = 200*time.Millisecond, 8<<10 })
	conn := h.upgrade("/socket/websocket?vsn=2.0.0")
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	topic := strings.Repeat("x", 60_000)
	text := `[null,"1","` + topic + `","e",{}]`
	frame := append([]byte{frameText, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}, text...)
	require.NoError(t, conn.SetWriteDeadline(time.Now().Add(patience)))
	for {
		if _, err := conn.Write(frame); err != nil {
			require.False(t, isTimeout(err))
			break
		}
	}
	_ = conn.Close()
	require.Eventually(t, func() bool { return h.server.Open() == 0 }, patience, time.Millisecond)
	require.Equal(t, 1, h.ended(causeSlow))
}

// beat lets so many seconds pass and turns the wheel of all connections once.
func (h *harness) beat(seconds int64) {
	h.server.clock.Add(seconds)
	links := h.server.links()
	for _, l := range links {
		l.tick()
	}
	for _, l := range links {
		require.Eventually(h.t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return !l.beat || l.cause != ""
		}, patience, time.Millisecond)
	}
}

func TestSilentClients(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.log.Create("c")
	dead := h.upgrade("/ws?key=c") // answers no ping
	defer func() { _ = dead.Close() }()
	alive := h.dial("c", 0)
	defer alive.close()
	require.Equal(t, "caught_up", alive.next().Type)
	reading := alive.conn.CloseRead(context.Background())
	idle := h.phoenix("2.0.0")
	defer idle.close()
	idle.send(beat2)
	idle.says(beaten2)
	require.Eventually(t, func() bool { return h.server.Open() == 3 }, patience, time.Millisecond)
	for range 3 {
		h.beat(beatSeconds)
		h.beat(beatSeconds) // pings
		require.Eventually(t, func() bool {
			for _, l := range h.server.links() {
				if l.kind == transportWebSocket && l.conn.heard.Load() == h.server.clock.Load() {
					return true
				}
			}
			return false
		}, patience, time.Millisecond, "the one that is alive answers")
	}
	require.Eventually(t, func() bool { return h.server.Open() == 2 && h.ended(causeSilent) == 1 }, patience, time.Millisecond)
	require.NoError(t, reading.Err())
	h.beat(120)
	e := idle.next()
	require.Equal(t, websocket.StatusGoingAway, e.Code)
	require.Contains(t, e.Reason, "heartbeat")
}

func TestEventsHaveHeartbeats(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.log.Create("c")
	c := h.follow("c", 0)
	defer c.close()
	require.Equal(t, "caught_up", c.next().Type)
	h.beat(1)
	line, err := c.r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, ":\n", line)
}

// The data plane goes away and comes back, and the router is full: streams that
// are open stay open, and new ones are told to try later.
func TestTheDataPlaneGoesAway(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, kind transport) {
		h := newHarness(t)
		h.log.Append("c", 3, 100)
		l := h.open(kind, "c", 1)
		defer l.close()
		expectRun(t, l, 1, 3)
		require.Equal(t, "caught_up", l.next().Type)
		h.log.Fail(10)
		h.log.Break(rpc.ErrClosed)
		h.log.Append("c", 300, 100)
		expectRun(t, l, 4, 303)
	})
}
