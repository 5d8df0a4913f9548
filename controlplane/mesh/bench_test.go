package mesh

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// plainPair returns both ends of a TCP connection without the mesh.
func plainPair(tb testing.TB) (dialed, accepted net.Conn) {
	tb.Helper()
	ln, err := net.Listen("tcp", local)
	require.NoError(tb, err)
	defer ln.Close()
	dialed = rawDial(tb, ln.Addr())
	return dialed, mustAccept(tb, ln)
}

// benchmarkPairs runs bench over a plain connection and over the mesh.
func benchmarkPairs(b *testing.B, bench func(b *testing.B, from, to net.Conn)) {
	b.Run("plain", func(b *testing.B) {
		from, to := plainPair(b)
		bench(b, from, to)
	})
	b.Run("mesh", func(b *testing.B) {
		from, to := pair(b, Credentials{Token: tokenA})
		bench(b, from, to)
	})
	b.Run("mesh-tls", func(b *testing.B) {
		from, to := pair(b, newAuthority(b).credentials(b, leaf{}))
		bench(b, from, to)
	})
}

// sink reads until the sender closes.
func sink(b *testing.B, from, to net.Conn, send func()) {
	var receiver sync.WaitGroup
	receiver.Go(func() {
		buf := make([]byte, 256<<10)
		for {
			if _, err := to.Read(buf); err != nil {
				return
			}
		}
	})
	b.ReportAllocs()
	b.ResetTimer()
	send()
	_ = from.Close()
	receiver.Wait()
}

func BenchmarkWrite64K(b *testing.B) {
	benchmarkPairs(b, func(b *testing.B, from, to net.Conn) {
		block := make([]byte, 64<<10)
		b.SetBytes(int64(len(block)))
		sink(b, from, to, func() {
			for range b.N {
				if _, err := from.Write(block); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkWritev sends 64 frames of 1 KiB at once, as a transport does that
// coalesces.
func BenchmarkWritev(b *testing.B) {
	benchmarkPairs(b, func(b *testing.B, from, to net.Conn) {
		frame := make([]byte, 1<<10)
		array := make([][]byte, 64)
		b.SetBytes(int64(len(frame) * len(array)))
		sink(b, from, to, func() {
			for range b.N {
				for i := range array {
					array[i] = frame
				}
				buffers := net.Buffers(array)
				if _, err := buffers.WriteTo(from); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

func BenchmarkPingPong(b *testing.B) {
	benchmarkPairs(b, func(b *testing.B, from, to net.Conn) {
		var echo sync.WaitGroup
		echo.Go(func() {
			buf := make([]byte, 128)
			for {
				if _, err := io.ReadFull(to, buf); err != nil {
					return
				}
				if _, err := to.Write(buf); err != nil {
					return
				}
			}
		})
		buf := make([]byte, 128)
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			if _, err := from.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(from, buf); err != nil {
				b.Fatal(err)
			}
		}
		_ = from.Close()
		echo.Wait()
	})
}

func BenchmarkDial(b *testing.B) {
	for name, creds := range map[string]Credentials{
		"token": {Token: tokenA}, "tls": newAuthority(b).credentials(b, leaf{}),
	} {
		b.Run(name, func(b *testing.B) {
			l := mustListen(b, node("d1", creds))
			ln := l.Accept(KindRaft)
			d := mustDialer(b, node("d2", creds))
			b.ReportAllocs()
			for b.Loop() {
				conn, err := d.Dial(b.Context(), KindRaft, 0, l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				accepted, err := ln.Accept()
				if err != nil {
					b.Fatal(err)
				}
				_ = conn.Close()
				_ = accepted.Close()
			}
		})
	}
}
