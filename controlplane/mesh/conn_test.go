package mesh

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// pair returns both ends of a connection over the mesh.
func pair(tb testing.TB, creds Credentials) (dialed, accepted net.Conn) {
	tb.Helper()
	l := mustListen(tb, node("d1", creds))
	ln := l.Accept(KindRaft)
	dialed = mustDial(tb, mustDialer(tb, node("d2", creds)), KindRaft, 0, l.Addr())
	return dialed, mustAccept(tb, ln)
}

func TestUnderlyingConnIsExposed(t *testing.T) {
	t.Parallel()
	a, b := pair(t, Credentials{Token: tokenA})
	for _, conn := range []net.Conn{a, b} {
		require.IsType(t, &net.TCPConn{}, conn.(Conn).NetConn())
		require.Implements(t, (*io.ReaderFrom)(nil), conn)
		require.Implements(t, (*io.WriterTo)(nil), conn)
		require.Implements(t, (*interface{ CloseWrite() error })(nil), conn)
	}
	a, b = pair(t, newAuthority(t).credentials(t, leaf{}))
	for _, conn := range []net.Conn{a, b} {
		session, ok := conn.(Conn).NetConn().(*tls.Conn)
		require.True(t, ok)
		require.EqualValues(t, tls.VersionTLS13, session.ConnectionState().Version)
	}
}

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

type ring struct{ net.Conn }

func (r ring) NetConn() net.Conn { return r }

func TestPeerOfLooksThroughWrappers(t *testing.T) {
	t.Parallel()
	conn, _ := pair(t, Credentials{})
	peer, ok := PeerOf(wrapped{wrapped{conn}})
	require.True(t, ok)
	require.Equal(t, "d1", peer.ID)
	for _, foreign := range []net.Conn{nil, &net.TCPConn{}, ring{}, wrapped{&net.TCPConn{}}} {
		_, ok := PeerOf(foreign)
		require.False(t, ok)
	}
}

// writeCalls returns the write system calls of this thread so far.
func writeCalls(t *testing.T) int {
	data, err := os.ReadFile("/proc/thread-self/io")
	if err != nil {
		t.Skip("no I/O accounting on this system")
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "syscw: "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			require.NoError(t, err)
			return n
		}
	}
	t.Skip("no count of writes on this system")
	return 0
}

// Many buffers leave in one writev, as on a plain TCP connection.
func TestVectoredWrites(t *testing.T) {
	t.Parallel()
	a, b := pair(t, Credentials{Token: tokenA})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var buffers net.Buffers
	var want []byte
	for i := range 256 {
		buffers = append(buffers, []byte{byte(i)})
		want = append(want, byte(i))
	}
	before := writeCalls(t)
	n, err := buffers.WriteTo(a)
	after := writeCalls(t)
	require.NoError(t, err)
	require.EqualValues(t, 256, n)
	require.LessOrEqual(t, after-before, 2)
	got := make([]byte, len(want))
	_, err = io.ReadFull(b, got)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// Files leave by sendfile, which makes no write system call.
func TestReadFromFile(t *testing.T) {
	t.Parallel()
	a, b := pair(t, Credentials{Token: tokenA})
	data := bytes.Repeat([]byte("snapshot"), 1<<17)
	path := filepath.Join(t.TempDir(), "f")
	mustWrite(t, path, data)
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var sender sync.WaitGroup
	sender.Go(func() {
		defer a.Close()
		_, err := io.Copy(a, f)
		require.NoError(t, err)
	})
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	sender.Wait()
	require.Equal(t, data, got)
}

func TestTalkInEveryMode(t *testing.T) {
	t.Parallel()
	for name, creds := range map[string]Credentials{"token": {Token: tokenA}, "TLS": newAuthority(t).credentials(t, leaf{})} {
		a, b := pair(t, creds)
		requireTalk(t, a, b)
		require.NoError(t, a.Close(), name)
		_, err := b.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, name)
		require.NoError(t, b.Close(), name)
		require.ErrorIs(t, b.Close(), net.ErrClosed, name)
	}
}
