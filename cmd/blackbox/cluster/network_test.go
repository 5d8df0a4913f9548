package cluster

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// echo is a server behind a proxy of it, and a connection to it; the network
// knows them as "server" and "client".
func echo(t *testing.T, n *Network) (dial func() net.Conn) {
	t.Helper()
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = backend.Close() })
	go func() {
		for {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	p, err := startProxy("server", "127.0.0.1:0", backend.Addr().String(), n, func(context.Context, net.Addr, net.Addr) string { return "client" })
	require.NoError(t, err)
	t.Cleanup(p.close)
	return func() net.Conn {
		conn, err := net.Dial("tcp", p.address())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
}

func exchange(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := io.WriteString(conn, "ping")
	require.NoError(t, err)
	answer := make([]byte, 4)
	_, err = io.ReadFull(conn, answer)
	require.NoError(t, err)
	require.Equal(t, "ping", string(answer))
}

func TestProxyPasses(t *testing.T) {
	t.Parallel()
	conn := echo(t, newNetwork())()
	exchange(t, conn)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	rest, err := io.ReadAll(conn)
	require.NoError(t, err, "the end of one side reaches the other and comes back")
	require.Empty(t, rest)
}

func TestProxyHolds(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]direction{"there": {"client", "server"}, "back": {"server", "client"}} {
		n := newNetwork()
		conn := echo(t, n)()
		exchange(t, conn)
		n.Set(way.from, way.to, Rule{Hold: true})
		_, err := io.WriteString(conn, "late")
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, err = conn.Read(make([]byte, 4))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, name)
		require.NoError(t, conn.SetReadDeadline(time.Time{}))
		n.Heal()
		answer := make([]byte, 4)
		_, err = io.ReadFull(conn, answer)
		require.NoError(t, err, name)
		require.Equal(t, "late", string(answer), "held, not lost")
	}
}

func TestProxyCuts(t *testing.T) {
	t.Parallel()
	n := newNetwork()
	dial := echo(t, n)
	conn := dial()
	exchange(t, conn)
	n.Between("server", "client", Rule{Cut: true})
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = dial().Read(make([]byte, 1))
	require.Error(t, err)
	n.Heal()
	exchange(t, dial())
}

func TestProxyDelays(t *testing.T) {
	t.Parallel()
	n := newNetwork()
	conn := echo(t, n)()
	const delay = 20 * time.Millisecond
	n.Set("server", "client", Rule{Delay: delay})
	began := time.Now()
	exchange(t, conn)
	require.GreaterOrEqual(t, time.Since(began), delay)
}

// A proxy that is closed leaves nothing behind, whatever is held.
func TestProxyCloses(t *testing.T) {
	t.Parallel()
	n := newNetwork()
	conn := echo(t, n)()
	exchange(t, conn)
	n.Between("server", "client", Rule{Hold: true})
	_, err := io.WriteString(conn, "held")
	require.NoError(t, err)
}

func TestOwnerOfASocket(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	listen := func() net.Addr {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		return l.Addr()
	}
	here, there := listen(), listen()
	conn, err := net.Dial("tcp", here.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	self := []int{1, os.Getpid()}
	require.Equal(t, os.Getpid(), ownerOf(conn.LocalAddr(), here, self))
	require.Zero(t, ownerOf(conn.LocalAddr(), there, self), "the port may serve several connections")
	require.Zero(t, ownerOf(conn.LocalAddr(), here, nil))
	require.Zero(t, ownerOf(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, here, self))
}

func TestFreeAddressesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	all, err := freeAddresses(50)
	require.NoError(t, err)
	for _, address := range all {
		require.False(t, seen[address])
		seen[address] = true
	}
}

// A process that is not there has none of what a running one has.
func TestNodeThatWasNeverStarted(t *testing.T) {
	t.Parallel()
	binary, err := process.Binary()
	require.NoError(t, err)
	c, err := New(Config{Binary: binary, Dir: t.TempDir(), Control: 3, Routers: 2})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.Len(t, c.Nodes(), 8)
	for _, n := range c.Nodes() {
		require.False(t, n.Running())
		require.Zero(t, n.PID())
		require.Empty(t, n.Output())
	}
	require.ErrorIs(t, c.CheckRunning(), errGone)
}
