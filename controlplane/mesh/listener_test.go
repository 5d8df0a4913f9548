package mesh

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Strangers that speak other protocols are hung up on without a word, leave
// one line in the log, and change nothing for the others.
func TestGarbageIsClosedQuietly(t *testing.T) {
	t.Parallel()
	for name, creds := range map[string]Credentials{
		"token": {Token: tokenA}, "TLS": newAuthority(t).credentials(t, leaf{}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logs logRecorder
			conf := node("d1", creds)
			conf.Logger = logs.logger(slog.LevelInfo)
			conf.limits.logEvery = time.Hour
			l := mustListen(t, conf)
			ln := l.Accept(KindRaft)

			random := rand.New(rand.NewPCG(1, 2))
			for range 100 {
				garbage := make([]byte, 16+random.IntN(2000))
				for i := range garbage {
					garbage[i] = byte(random.Uint32())
				}
				garbage[0] |= 0x80 // no TLS record, or it would be answered with an alert
				if garbage[0] == 0x80 {
					garbage[0] = 0xff
				}
				raw := rawDial(t, l.Addr())
				_, err := raw.Write(garbage)
				require.NoError(t, err)
				answer, _ := io.ReadAll(raw)
				require.Empty(t, answer)
			}
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			_, err := client.Get("http://" + l.Addr().String() + "/")
			require.Error(t, err)
			eventually(t, func() bool { return l.Stats().Refused["garbage"] == 101 })

			d := mustDialer(t, node("d2", creds))
			conn := mustDial(t, d, KindRaft, 0, l.Addr())
			requireTalk(t, conn, mustAccept(t, ln))
			require.Len(t, logs.lines(), 1)
			require.NotEmpty(t, logs.find("connection refused", "reason=garbage", "remote=127.0.0.1"))
		})
	}
}

func TestPortScannersMakeNoNoise(t *testing.T) {
	t.Parallel()
	var logs logRecorder
	conf := node("d1", Credentials{Token: tokenA})
	conf.Logger = logs.logger(slog.LevelInfo)
	l := mustListen(t, conf)
	for range 10 {
		require.NoError(t, rawDial(t, l.Addr()).Close())
	}
	eventually(t, func() bool { return l.Stats().Refused["silent"] == 10 })
	require.Equal(t, []string{""}, logs.lines())
}

// A process that is refused does not hide another one on the same host.
func TestRefusalIsLoggedWithClaim(t *testing.T) {
	t.Parallel()
	var logs logRecorder
	conf := node("d1", Credentials{Token: tokenA})
	conf.Logger = logs.logger(slog.LevelInfo)
	l := mustListen(t, conf)
	router := node("", Credentials{Token: tokenB})
	router.Role = RoleRouter
	for _, stranger := range []Config{router, node("d9", Credentials{Token: tokenB})} {
		for range 3 {
			_, err := mustDialer(t, stranger).Dial(testContext(t), KindGRPC, 0, l.Addr().String())
			require.ErrorIs(t, err, ErrUnauthorized)
		}
	}
	eventually(t, func() bool {
		return logs.find("level=WARN", "reason=unauthorized", "claimed_id=d9", "claimed_role=data") != "" &&
			logs.find("level=WARN", "reason=unauthorized", "claimed_role=router") != ""
	})
	refused := slices.DeleteFunc(logs.lines(), func(line string) bool { return !strings.Contains(line, "refused") })
	require.Len(t, refused, 2, "one line for each role")
}

// One who opens connections and says nothing holds a bounded number of them
// and keeps nobody out, long before any deadline.
func TestSilentConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	conf := node("d1", Credentials{Token: tokenA})
	conf.limits.handshakes = 4
	conf.limits.handshake = time.Hour
	l := mustListen(t, conf)
	ln := l.Accept(KindRaft)
	const strangers = 40
	var silent []net.Conn
	for range strangers {
		conn := rawDial(t, l.Addr())
		_, err := conn.Write([]byte{0xfb, 'F'}) // half open, half said
		require.NoError(t, err)
		silent = append(silent, conn)
	}
	for range 10 {
		conn := mustDial(t, mustDialer(t, node("d2", Credentials{Token: tokenA})), KindRaft, 0, l.Addr())
		requireTalk(t, conn, mustAccept(t, ln))
	}
	s := l.Stats()
	require.LessOrEqual(t, s.Handshakes, 4)
	require.GreaterOrEqual(t, s.Evicted, uint64(strangers-4))
	require.EqualValues(t, 10, s.Accepted)
	for _, conn := range silent[:strangers-4] {
		requireGone(t, conn)
	}
}

// The limit on a handshake is on all of it: who sends a byte now and then does
// not extend it.
func TestSlowHandshakeEnds(t *testing.T) {
	t.Parallel()
	for name, creds := range map[string]Credentials{
		"token": {Token: tokenA}, "TLS": newAuthority(t).credentials(t, leaf{}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := node("d1", creds)
			conf.limits.handshake = 100 * time.Millisecond
			l := mustListen(t, conf)
			raw := rawDial(t, l.Addr())
			first := []byte((&hello{kind: KindRaft, role: RoleData, id: strings.Repeat("x", 200)}).encode())
			if creds.tls() {
				first = append([]byte{tlsHandshake, 3, 1, 1, 0}, make([]byte, 256)...)
			}
			var b [1]byte
			for i := 0; ; i++ {
				if _, err := raw.Write(first[i%len(first):][:1]); err != nil {
					break
				}
				require.NoError(t, raw.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
				if _, err := raw.Read(b[:]); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
			}
			eventually(t, func() bool { return l.Stats().Refused["timeout"] == 1 })
			require.Zero(t, l.Stats().Handshakes)
		})
	}
}

func TestDialerGivesUpOnMutePeer(t *testing.T) {
	t.Parallel()
	addr := fakePeer(t, func(net.Conn) {})
	creds := newAuthority(t).credentials(t, leaf{})
	for _, creds := range []Credentials{{}, creds} {
		conf := node("d2", creds)
		conf.limits.handshake = 20 * time.Millisecond
		_, err := mustDialer(t, conf).Dial(testContext(t), KindRaft, 0, addr)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.False(t, Permanent(err))

		ctx, cancel := context.WithCancelCause(context.Background())
		cause := errors.New("no longer wanted")
		go cancel(cause)
		_, err = mustDialer(t, node("d2", creds)).Dial(ctx, KindRaft, 0, addr)
		require.ErrorIs(t, err, cause)
	}
}

func TestVirtualListeners(t *testing.T) {
	t.Parallel()
	conf := Config{Role: RoleServer, ID: "s1", Logger: slog.New(slog.DiscardHandler)}
	l := mustListen(t, conf)
	d := mustDialer(t, conf)
	kinds := []Kind{KindGRPC, KindRaft, KindControlRaft}
	listeners := map[Kind]net.Listener{}
	for _, kind := range kinds {
		_, err := d.Dial(testContext(t), kind, 0, l.Addr().String())
		require.ErrorIs(t, err, ErrUnknownKind)
		require.False(t, Permanent(err)) // it may come
		listeners[kind] = l.Accept(kind)
		require.Equal(t, l.Addr(), listeners[kind].Addr())
		require.Same(t, listeners[kind], l.Accept(kind))
	}
	for _, kind := range kinds {
		conn := mustDial(t, d, kind, 0, l.Addr())
		accepted := mustAccept(t, listeners[kind])
		peer, _ := PeerOf(accepted)
		require.Equal(t, kind, peer.Kind)
		requireTalk(t, conn, accepted)

		waiting := mustDial(t, d, kind, 0, l.Addr())
		eventually(t, func() bool { return len(listeners[kind].(*virtualListener).queue) == 1 })
		require.NoError(t, listeners[kind].Close())
		require.NoError(t, listeners[kind].Close())
		requireGone(t, waiting)        // nobody had accepted it
		requireTalk(t, conn, accepted) // somebody had
		_, err := listeners[kind].Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = d.Dial(testContext(t), kind, 0, l.Addr().String())
		require.ErrorIs(t, err, ErrUnknownKind)

		again := l.Accept(kind)
		conn = mustDial(t, d, kind, 0, l.Addr())
		requireTalk(t, conn, mustAccept(t, again))
	}

	_, err := l.Accept(Kind(99)).Accept()
	require.ErrorIs(t, err, ErrForbidden)
	router := mustListen(t, Config{Role: RoleRouter, Logger: conf.Logger})
	_, err = router.Accept(KindRaft).Accept()
	require.ErrorIs(t, err, ErrForbidden)
}

// A connection whose handshake ends after its kind was given up is closed.
func TestDeliveryAfterClose(t *testing.T) {
	t.Parallel()
	l := mustListen(t, node("d1", Credentials{}))
	v := l.Accept(KindRaft).(*virtualListener)
	require.True(t, v.reserve())
	require.NoError(t, v.Close())
	ours, theirs := net.Pipe()
	conn, err := wrap(theirs, theirs, Peer{}, l.conns)
	require.NoError(t, err)
	v.deliver(conn)
	_, err = ours.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.Zero(t, l.Stats().Established)
	require.Empty(t, v.places)
	require.NoError(t, ours.Close())
}

func TestBacklogAndConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	conf := node("d1", Credentials{})
	conf.limits.backlog = 2
	conf.limits.conns = 3
	l := mustListen(t, conf)
	ln := l.Accept(KindRaft)
	d := mustDialer(t, node("d2", Credentials{}))
	dial := func() (net.Conn, error) { return d.Dial(testContext(t), KindRaft, 0, l.Addr().String()) }
	var conns []net.Conn
	for range 2 {
		conn, err := dial()
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	_, err := dial()
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorContains(t, err, "backlog")
	first := mustAccept(t, ln)
	eventually(t, func() bool { return l.Stats().Established == 2 })
	conn, err := dial()
	require.NoError(t, err)
	conns = append(conns, conn)
	_ = mustAccept(t, ln)
	_ = mustAccept(t, ln)
	_, err = dial()
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorContains(t, err, "3 connections are open")

	require.NoError(t, first.Close())
	_ = first.Close() // counts once
	eventually(t, func() bool { return l.Stats().Established == 2 })
	conn, err = dial()
	require.NoError(t, err)
	for _, conn := range append(conns, conn) {
		require.NoError(t, conn.Close())
	}
}

func TestCloseWithEverythingInProgress(t *testing.T) {
	t.Parallel()
	for name, creds := range map[string]Credentials{
		"token": {Token: tokenA}, "TLS": newAuthority(t).credentials(t, leaf{}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := Listen(local, node("d1", creds))
			require.NoError(t, err)
			d := mustDialer(t, node("d2", creds))
			ln := l.Accept(KindRaft)
			live := mustDial(t, d, KindRaft, 0, l.Addr())
			accepted := mustAccept(t, ln)
			queued := mustDial(t, d, KindRaft, 1, l.Addr())
			half := rawDial(t, l.Addr())
			_, err = half.Write([]byte{tlsHandshake})
			require.NoError(t, err)
			eventually(t, func() bool { return l.Stats().Handshakes == 1 })

			// A writer that is stuck because nobody reads does not hold it up.
			var writer, acceptor sync.WaitGroup
			writer.Go(func() { _, _ = io.Copy(accepted, neverEnding{}) })
			acceptor.Go(func() { _, _ = ln.Accept() }) // takes the queued one
			acceptor.Wait()
			acceptor.Go(func() {
				_, err := ln.Accept()
				require.ErrorIs(t, err, net.ErrClosed)
			})
			require.NoError(t, l.Close())
			writer.Wait()
			acceptor.Wait()
			for _, conn := range []net.Conn{live, queued, half} {
				requireGone(t, conn)
			}
			require.NoError(t, l.Close())
			_, err = l.Accept(KindRaft).Accept()
			require.ErrorIs(t, err, net.ErrClosed)
			_, err = d.Dial(testContext(t), KindRaft, 0, l.Addr().String())
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		})
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

func TestCloseDuringAStorm(t *testing.T) {
	t.Parallel()
	conf := node("d1", Credentials{Token: tokenA})
	conf.limits.handshakes, conf.limits.backlog = 2, 2
	l, err := Listen(local, conf)
	require.NoError(t, err)
	ln := l.Accept(KindRaft)
	d := mustDialer(t, node("d2", Credentials{Token: tokenA}))
	var dialers sync.WaitGroup
	for range 8 {
		dialers.Go(func() {
			for {
				conn, err := d.Dial(context.Background(), KindRaft, 0, l.Addr().String())
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				if err == nil {
					_ = conn.Close()
				}
			}
		})
	}
	for range 20 {
		conn, err := ln.Accept()
		require.NoError(t, err)
		_ = conn.Close()
	}
	require.NoError(t, l.Close())
	dialers.Wait()
	require.Zero(t, l.Stats().Handshakes)
	require.Zero(t, d.conns.len())
}

func TestClusterIDLearnedLater(t *testing.T) {
	t.Parallel()
	creds := Credentials{Token: tokenA}
	l := mustListen(t, node("d1", creds))
	ln := l.Accept(KindRaft)
	connect := func(id, cluster string) (*Dialer, net.Conn) {
		conf := node(id, creds)
		conf.ClusterID = cluster
		d := mustDialer(t, conf)
		conn := mustDial(t, d, KindRaft, 0, l.Addr())
		_ = mustAccept(t, ln)
		return d, conn
	}
	_, ours := connect("d2", "ours")
	_, theirs := connect("d3", "theirs")
	dNew, unknown := connect("d4", "")

	require.NoError(t, l.SetClusterID("ours"))
	requireGone(t, theirs)
	for _, conn := range []net.Conn{ours, unknown} {
		require.NoError(t, conn.SetReadDeadline(time.Unix(1, 0)))
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	require.NoError(t, l.SetClusterID("ours"))
	require.ErrorIs(t, l.SetClusterID("theirs"), ErrWrongCluster)
	require.ErrorIs(t, l.SetClusterID(""), ErrWrongCluster)
	require.ErrorContains(t, l.SetClusterID("a b"), "printable")

	conn := mustDial(t, dNew, KindRaft, 0, l.Addr())
	peer, _ := PeerOf(conn)
	require.Equal(t, "ours", peer.ClusterID)
	require.NoError(t, dNew.SetClusterID("theirs"))
	_, err := conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, dNew.SetClusterID("ours"), ErrWrongCluster)
	_, err = dNew.Dial(testContext(t), KindRaft, 0, l.Addr().String())
	require.ErrorIs(t, err, ErrWrongCluster)
}

// scripted is a net.Listener that returns what it is told to.
type scripted struct {
	results chan func() (net.Conn, error)
	done    chan struct{}
	once    sync.Once
}

func (s *scripted) Accept() (net.Conn, error) {
	select {
	case result := <-s.results:
		return result()
	case <-s.done:
		return nil, net.ErrClosed
	}
}
func (s *scripted) Close() error   { s.once.Do(func() { close(s.done) }); return nil }
func (s *scripted) Addr() net.Addr { return &net.UnixAddr{Name: "scripted", Net: "unix"} }

// Listeners other than TCP work, and an accept that fails is not the end.
func TestServeForeignListener(t *testing.T) {
	t.Parallel()
	var logs logRecorder
	conf := node("d1", Credentials{Token: tokenA})
	conf.Logger = logs.logger(slog.LevelInfo)
	s := &scripted{results: make(chan func() (net.Conn, error), 3), done: make(chan struct{})}
	l, err := Serve(s, conf)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	ln := l.Accept(KindRaft)

	ours, theirs := net.Pipe()
	s.results <- func() (net.Conn, error) { return nil, syscall.EMFILE }
	s.results <- func() (net.Conn, error) { return nil, syscall.EMFILE }
	s.results <- func() (net.Conn, error) { return theirs, nil }
	keys, err := newKeyring(tokenA)
	require.NoError(t, err)
	p := party{role: RoleData, id: "d2", keys: keys}
	_, err = p.dial(ours, KindRaft, 0, "d1")
	require.NoError(t, err)
	accepted := mustAccept(t, ln)
	require.IsType(t, &otherConn{}, accepted)
	require.Equal(t, theirs, accepted.(Conn).NetConn())
	go func() { _, _ = ours.Write([]byte("x")) }()
	_, err = io.ReadFull(accepted, make([]byte, 1))
	require.NoError(t, err)
	require.NotEmpty(t, logs.find("accepting fails", "too many open files"))
	require.NoError(t, accepted.Close())
	require.NoError(t, ours.Close())

	// Somebody else closes what we listen on: nobody waits for ever.
	require.NoError(t, s.Close())
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.NotEmpty(t, logs.find("closed from outside"))
}

func TestFailureLogIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	f := newFailureLog(10*time.Second, func() time.Time { return now })
	check := func(key string, wantSuppressed int, wantOK bool) {
		t.Helper()
		suppressed, ok := f.allow(key)
		require.Equal(t, wantOK, ok)
		require.Equal(t, wantSuppressed, suppressed)
	}
	check("a", 0, true)
	check("a", 0, false)
	check("b", 0, true)
	check("a", 0, false)
	now = now.Add(10 * time.Second)
	check("a", 2, true)
	check("a", 0, false)

	lines := 0
	for i := range 10 * maxFailureKeys {
		if _, ok := f.allow(strings.Repeat("x", i+1)); ok {
			lines++
		}
	}
	// "b" made room; the many that found none shared one line.
	require.Equal(t, maxFailureKeys, lines)
	require.LessOrEqual(t, len(f.keys), maxFailureKeys+1)
	now = now.Add(10 * time.Second)
	check("new", 0, true)
	require.Len(t, f.keys, 1)
}
