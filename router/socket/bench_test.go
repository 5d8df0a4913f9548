package socket

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cpu is what the process has used.
func cpu() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// upgrade opens a WebSocket without a library, so that the client costs next to
// nothing.
func (h *harness) upgrade(path string) net.Conn {
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(h.t, err)
	_, err = io.WriteString(conn, handshake(path))
	require.NoError(h.t, err)
	return conn
}

// handshake is a request for a WebSocket.
func handshake(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// discard reads all there is and counts the bytes.
func discard(conn net.Conn, total *atomic.Int64) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		total.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// BenchmarkFanOut appends to a conversation that 1,000 WebSockets follow: each
// append when all have got the last one, and eight ahead of that. The CPU includes
// the reading of the clients, which are in the same process.
func BenchmarkFanOut(b *testing.B) {
	for _, ahead := range []int{1, 8} {
		b.Run(fmt.Sprintf("ahead=%d", ahead), func(b *testing.B) { benchmarkFanOut(b, ahead) })
	}
}

func benchmarkFanOut(b *testing.B, ahead int) {
	const clients = 1000
	h := newHarness(b)
	h.log.Create("c")
	var wg sync.WaitGroup
	var bytes atomic.Int64
	var conns []net.Conn
	for range clients {
		conn := h.upgrade("/ws?key=c")
		conns = append(conns, conn)
		wg.Go(func() { discard(conn, &bytes) })
	}
	require.Eventually(b, func() bool { return h.server.Open() == clients }, patience, time.Millisecond)
	pause := time.NewTicker(100 * time.Microsecond)
	defer pause.Stop()
	before := cpu()
	n := 0
	for b.Loop() {
		h.log.Append("c", 1, 300)
		n++
		for h.sent(transportWebSocket) < float64((n-ahead+1)*clients) {
			<-pause.C
		}
	}
	for h.sent(transportWebSocket) < float64(n*clients) {
		<-pause.C
	}
	b.ReportMetric(float64(n*clients)/(cpu()-before).Seconds(), "frames/cpu-s")
	for _, conn := range conns {
		_ = conn.Close()
	}
	wg.Wait()
}

// BenchmarkReplay reads a conversation of 100,000 messages over one connection.
func BenchmarkReplay(b *testing.B) {
	const messages = 100_000
	for kind, path := range []string{"/ws?key=c&from=1", "/sse?key=c&from=1"} {
		b.Run(transportNames[kind], func(b *testing.B) {
			h := newHarness(b)
			for range messages / 1000 {
				h.log.Append("c", 1000, 300)
			}
			pause := time.NewTicker(time.Millisecond)
			defer pause.Stop()
			b.ReportAllocs()
			before := cpu()
			n := 0
			for b.Loop() {
				conn := h.upgrade(path)
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				n++
				for h.sent(transport(kind)) < float64(n*messages) {
					<-pause.C
				}
				_ = conn.Close()
			}
			b.ReportMetric(float64(n*messages)/(cpu()-before).Seconds(), "messages/cpu-s")
		})
	}
}
