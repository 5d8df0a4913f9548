package mesh

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every combination of credentials at both ends: connections exist exactly
// where the credentials are alike, and the dialer learns why not.
func TestCredentialsMatrix(t *testing.T) {
	t.Parallel()
	caA, caB := newAuthority(t), newAuthority(t)
	type mode struct {
		name  string
		creds Credentials
	}
	var modes []mode
	for _, token := range []Token{"", tokenA, tokenB} {
		for _, ca := range []*authority{nil, caA, caB} {
			m := mode{name: fmt.Sprintf("token %.1q", string(token))}
			switch ca {
			case caA:
				m.name += " TLS A"
			case caB:
				m.name += " TLS B"
			}
			if ca != nil {
				m.creds = ca.credentials(t, leaf{})
			}
			m.creds.Token = token
			modes = append(modes, m)
		}
	}
	sameCA := func(a, b Credentials) bool {
		pemA, _ := os.ReadFile(a.CAFile)
		pemB, _ := os.ReadFile(b.CAFile)
		return bytes.Equal(pemA, pemB)
	}
	want := func(dialer, listener Credentials) error {
		switch {
		case dialer.tls() && !listener.tls():
			return ErrTLSUnsupported
		case !dialer.tls() && listener.tls():
			return ErrTLSRequired
		case !sameCA(dialer, listener), dialer.Token != listener.Token:
			return ErrUnauthorized
		}
		return nil
	}
	for _, lm := range modes {
		t.Run(lm.name, func(t *testing.T) {
			t.Parallel()
			l := mustListen(t, node("d1", lm.creds))
			ln := l.Accept(KindRaft)
			for _, dm := range modes {
				d := mustDialer(t, node("d2", dm.creds))
				conn, err := d.Dial(testContext(t), KindRaft, 2, l.Addr().String())
				if sentinel := want(dm.creds, lm.creds); sentinel != nil {
					require.ErrorIs(t, err, sentinel, dm.name)
					require.True(t, Permanent(err))
					continue
				}
				require.NoError(t, err, dm.name)
				other := mustAccept(t, ln)
				requireTalk(t, conn, other)
				require.NoError(t, conn.Close())
			}
			require.EqualValues(t, 1, l.Stats().Accepted)
		})
	}
}

func TestPeersKnowEachOther(t *testing.T) {
	t.Parallel()
	creds := newAuthority(t).credentials(t, leaf{})
	creds.Token = tokenA
	for name, creds := range map[string]Credentials{"bare": {}, "token": {Token: tokenA}, "TLS and token": creds} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := node("d1", creds)
			server.ClusterID = "c"
			l := mustListen(t, server)
			ln := l.Accept(KindRaft)
			client := Config{Role: RoleServer, ID: "s1", Credentials: creds, Logger: server.Logger}
			conn := mustDial(t, mustDialer(t, client), KindRaft, MaxLane, l.Addr())
			accepted := mustAccept(t, ln)

			want := Peer{Kind: KindRaft, Lane: MaxLane, Token: creds.Token != "", TLS: creds.tls()}
			seen := want
			seen.Role, seen.ID, seen.ClusterID = RoleData, "d1", "c"
			got, ok := PeerOf(conn)
			require.True(t, ok)
			require.Equal(t, seen, got)
			seen.Role, seen.ID, seen.ClusterID = RoleServer, "s1", ""
			got, ok = PeerOf(accepted)
			require.True(t, ok)
			require.Equal(t, seen, got)
		})
	}
}

// The rules that hold after both ends have proven themselves.
func TestAdmission(t *testing.T) {
	t.Parallel()
	type attempt struct {
		role    Role
		id      string
		cluster string
		kind    Kind
		lane    Lane
		target  string
	}
	good := attempt{RoleData, "d2", "c", KindRaft, 1, "d1"}
	tests := map[string]struct {
		change func(*attempt)
		want   error
	}{
		"another cluster":           {func(a *attempt) { a.cluster = "x" }, ErrWrongCluster},
		"another cluster and kind":  {func(a *attempt) { a.cluster, a.kind = "x", KindGRPC }, ErrWrongCluster},
		"another node meant":        {func(a *attempt) { a.target = "d3" }, ErrWrongNode},
		"any node meant":            {func(a *attempt) { a.target = "" }, nil},
		"cluster unknown":           {func(a *attempt) { a.cluster = "" }, nil},
		"good":                      {func(*attempt) {}, nil},
		"gRPC has no lanes":         {func(a *attempt) { a.kind = KindGRPC }, ErrProtocol},
		"kind not claimed":          {func(a *attempt) { a.kind, a.lane, a.role = KindGRPC, 0, RoleRouter }, ErrUnknownKind},
		"kind of the future":        {func(a *attempt) { a.kind = 99 }, ErrUnknownKind},
		"lane out of range":         {func(a *attempt) { a.lane = MaxLane + 1 }, ErrProtocol},
		"no id":                     {func(a *attempt) { a.id = "" }, ErrForbidden},
		"role of the future":        {func(a *attempt) { a.role = 99 }, ErrForbidden},
		"router on the Raft lanes":  {func(a *attempt) { a.role = RoleRouter }, ErrForbidden},
		"control on the Raft lanes": {func(a *attempt) { a.role = RoleControl }, ErrForbidden},
	}
	conf := node("d1", Credentials{Token: tokenA})
	conf.ClusterID = "c"
	keys, err := newKeyring(tokenA)
	require.NoError(t, err)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := mustListen(t, conf)
			ln := l.Accept(KindRaft)
			a := good
			test.change(&a)
			// Not through a Dialer, which would refuse some of these itself.
			raw := rawDial(t, l.Addr())
			p := party{role: a.role, id: a.id, cluster: a.cluster, keys: keys}
			w, err := p.dial(raw, a.kind, a.lane, a.target)
			if test.want != nil {
				require.ErrorIs(t, err, test.want)
				requireGone(t, raw)
				eventually(t, func() bool { return l.Stats().Established == 0 })
				return
			}
			require.NoError(t, err)
			require.Equal(t, "d1", w.id)
			requireTalk(t, raw, mustAccept(t, ln))
		})
	}
}

func TestDialerRefusesItself(t *testing.T) {
	t.Parallel()
	d := mustDialer(t, Config{Role: RoleRouter, Logger: node("", Credentials{}).Logger})
	ctx := testContext(t)
	_, err := d.Dial(ctx, KindRaft, 0, "127.0.0.1:1")
	require.ErrorIs(t, err, ErrForbidden)
	_, err = d.Dial(ctx, Kind(99), 0, "127.0.0.1:1")
	require.ErrorIs(t, err, ErrUnknownKind)
	_, err = d.Dial(ctx, KindGRPC, 1, "127.0.0.1:1")
	require.ErrorContains(t, err, "out of range")
	_, err = d.DialNode(ctx, KindGRPC, 0, "a b", "127.0.0.1:1")
	require.ErrorContains(t, err, "printable")
}

func TestErrorsNameTheReason(t *testing.T) {
	t.Parallel()
	conf := node("d1", Credentials{Token: tokenA})
	conf.ClusterID = "ours"
	l := mustListen(t, conf)
	l.Accept(KindRaft)
	client := node("d2", Credentials{Token: tokenA})
	client.ClusterID = "theirs"
	_, err := mustDialer(t, client).Dial(testContext(t), KindRaft, 0, l.Addr().String())
	require.EqualError(t, err, "mesh: dial raft at "+l.Addr().String()+
		`: the peer belongs to another cluster: the listener's is "ours", the dialer's "theirs"`)

	client.ClusterID = ""
	_, err = mustDialer(t, client).DialNode(testContext(t), KindRaft, 0, "d7", l.Addr().String())
	require.ErrorContains(t, err, `another node answers at this address: it is "d1", not "d7"`)
}

// A listener of another version says so; a dialer of another version is told.
func TestVersionMismatch(t *testing.T) {
	t.Parallel()
	l := mustListen(t, node("d1", Credentials{}))
	raw := rawDial(t, l.Addr())
	future := (&hello{kind: KindRaft, role: RoleData, id: "d2"}).encode()
	future[4] = protocolVersion + 1
	_, err := raw.Write(append(future, make([]byte, 100)...))
	require.NoError(t, err)
	f, err := readFrame(raw)
	require.NoError(t, err)
	require.Equal(t, frameReject, f.kind())
	require.EqualValues(t, protocolVersion, f.version())
	reject, err := decodeReject(f.body())
	require.NoError(t, err)
	require.Equal(t, codeVersion, reject.code)
	requireGone(t, raw)

	for _, answer := range []rawFrame{refuse(codeVersion, "").encode(), (&challenge{}).encode()} {
		answer[4] = 9
		addr := fakePeer(t, func(conn net.Conn) { _, _ = conn.Write(answer) })
		_, err = mustDialer(t, node("d2", Credentials{})).Dial(testContext(t), KindRaft, 0, addr)
		require.ErrorIs(t, err, ErrVersion)
		require.ErrorContains(t, err, "version 9")
	}
}

// fakePeer listens in place of a mesh listener. Each connection gets one call
// of behave and is closed when the dialer hangs up.
func fakePeer(t *testing.T, behave func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", local)
	require.NoError(t, err)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				behave(conn)
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		tasks.Wait()
	})
	return ln.Addr().String()
}

func TestDialerMeetsOthers(t *testing.T) {
	t.Parallel()
	creds := newAuthority(t).credentials(t, leaf{})
	web, err := tls.LoadX509KeyPair(creds.CertFile, creds.KeyFile)
	require.NoError(t, err)
	peers := map[string]struct {
		behave     func(net.Conn)
		plain, tls error
	}{
		"HTTP": {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, ErrNotMesh, ErrNotMesh},
		"SSH":  {func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n") }, ErrNotMesh, ErrNotMesh},
		"HTTPS": {func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{web}}).Handshake()
		}, nil, ErrNotMesh},
		"mute": {func(c net.Conn) {
			_, _ = readFrame(c)
			_ = c.(*net.TCPConn).CloseWrite()
		}, io.ErrUnexpectedEOF, nil},
		"oversized": {func(c net.Conn) { _, _ = c.Write([]byte{0xfb, 'F', 'P', 'M', 1, 2, 255, 255}) }, ErrProtocol, nil},
		"a hello":   {func(c net.Conn) { _, _ = c.Write((&hello{}).encode()) }, ErrProtocol, nil},
		"bad body":  {func(c net.Conn) { _, _ = c.Write(newFrame(frameChallenge).frame()) }, ErrProtocol, nil},
		"unknown code": {func(c net.Conn) {
			_, _ = c.Write((&refusal{code: 200}).encode())
		}, ErrProtocol, nil},
	}
	for name, peer := range peers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := fakePeer(t, peer.behave)
			for _, mode := range []struct {
				creds Credentials
				want  error
			}{{Credentials{Token: tokenA}, peer.plain}, {creds, peer.tls}} {
				if mode.want == nil {
					continue
				}
				_, err := mustDialer(t, node("d2", mode.creds)).Dial(testContext(t), KindRaft, 0, addr)
				require.ErrorIs(t, err, mode.want)
			}
		})
	}
}

// tap relays connections to a listener and records what passes, frame by
// frame, with a chance to change it.
type tap struct {
	mu       sync.Mutex // guards the fields below
	up, down bytes.Buffer
}

func (p *tap) start(t *testing.T, target string, edit func(up bool, frame []byte) []byte) (addr string) {
	return fakePeer(t, func(client net.Conn) {
		server, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer server.Close()
		var tasks sync.WaitGroup
		relay := func(from, to net.Conn, up bool, record *bytes.Buffer) {
			buf := make([]byte, maxFrame)
			for {
				n, err := from.Read(buf) // frames of a handshake never run together
				if err != nil {
					_ = to.Close()
					return
				}
				frame := buf[:n]
				if edit != nil {
					frame = edit(up, frame)
				}
				p.mu.Lock()
				record.Write(frame)
				p.mu.Unlock()
				if _, err := to.Write(frame); err != nil {
					return
				}
			}
		}
		tasks.Go(func() { relay(client, server, true, &p.up) })
		tasks.Go(func() { relay(server, client, false, &p.down) })
		tasks.Wait()
	})
}

func (p *tap) recorded() (up, down []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.up.Bytes()), bytes.Clone(p.down.Bytes())
}

// A recorded handshake opens nothing, neither towards the listener nor towards
// a dialer.
func TestReplayIsRefused(t *testing.T) {
	t.Parallel()
	conf := node("d1", Credentials{Token: tokenA})
	l := mustListen(t, conf)
	ln := l.Accept(KindRaft)
	d := mustDialer(t, node("d2", Credentials{Token: tokenA}))
	var p tap
	addr := p.start(t, l.Addr().String(), nil)
	conn, err := d.Dial(testContext(t), KindRaft, 0, addr)
	require.NoError(t, err)
	_ = mustAccept(t, ln)
	up, down := p.recorded()
	require.NotContains(t, string(up), string(tokenA))
	require.NotContains(t, string(down), string(tokenA))
	require.NoError(t, conn.Close())

	raw := rawDial(t, l.Addr())
	_, err = raw.Write(up)
	require.NoError(t, err)
	f, err := readFrame(raw)
	require.NoError(t, err)
	require.Equal(t, frameChallenge, f.kind())
	f, err = readFrame(raw)
	require.NoError(t, err)
	require.Equal(t, frameReject, f.kind())
	reject, err := decodeReject(f.body())
	require.NoError(t, err)
	require.ErrorIs(t, reject, ErrUnauthorized)
	requireGone(t, raw)
	eventually(t, func() bool { return l.Stats().Refused["unauthorized"] == 1 })
	require.EqualValues(t, 1, l.Stats().Accepted)

	imposter := fakePeer(t, func(c net.Conn) { _, _ = c.Write(down) })
	_, err = d.Dial(testContext(t), KindRaft, 0, imposter)
	require.ErrorIs(t, err, ErrUnauthorized)
}

// Sending a dialer's own proof back to it proves nothing.
func TestReflectionIsRefused(t *testing.T) {
	t.Parallel()
	addr := fakePeer(t, func(c net.Conn) {
		_, _ = readFrame(c)
		_, _ = c.Write((&challenge{}).encode())
		f, err := readFrame(c)
		if err != nil {
			return
		}
		w := welcome{role: RoleData, id: "d1", mac: [macBytes]byte(f.body())}
		_, _ = c.Write(w.encode())
	})
	_, err := mustDialer(t, node("d2", Credentials{Token: tokenA})).Dial(testContext(t), KindRaft, 0, addr)
	require.ErrorIs(t, err, ErrUnauthorized)
}

// Whatever byte of the handshake is changed on the way, the dialer notices.
func TestTamperingIsNoticed(t *testing.T) {
	t.Parallel()
	l := mustListen(t, node("d1", Credentials{Token: tokenA}))
	drain(t, l.Accept(KindRaft))
	client := node("d2", Credentials{Token: tokenA})
	attempt := func(d *Dialer, edit func(up bool, frame []byte) []byte) (p *tap, err error) {
		p = &tap{}
		conn, err := d.Dial(testContext(t), KindRaft, 3, p.start(t, l.Addr().String(), edit))
		if err == nil {
			err = conn.Close()
		}
		return p, err
	}
	p, err := attempt(mustDialer(t, client), nil)
	require.NoError(t, err)
	up, down := p.recorded()

	client.limits.handshake = 300 * time.Millisecond // a changed length makes an end wait
	d := mustDialer(t, client)
	for _, direction := range []struct {
		up    bool
		bytes int
	}{{true, len(up)}, {false, len(down)}} {
		require.Greater(t, direction.bytes, 2*headerBytes+nonceBytes+macBytes-1)
		for offset := range direction.bytes {
			passed := 0 // owned by the goroutine that relays in this direction
			_, err := attempt(d, func(isUp bool, frame []byte) []byte {
				if isUp != direction.up {
					return frame
				}
				if at := offset - passed; at >= 0 && at < len(frame) {
					frame[at] ^= 0x01
				}
				passed += len(frame)
				return frame
			})
			require.Error(t, err, "upwards %v, offset %d", direction.up, offset)
		}
	}
}

// drain accepts and closes for the rest of the test.
func drain(t *testing.T, ln net.Listener) {
	var task sync.WaitGroup
	task.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		task.Wait()
	})
}

// One who holds a certificate of the cluster but not the token cannot put
// himself between two who have both: the proof holds for one TLS session only.
func TestProofIsBoundToTheSession(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	creds := ca.credentials(t, leaf{})
	creds.Token = tokenA
	l := mustListen(t, node("d1", creds))
	l.Accept(KindRaft)

	middle, err := loadCertificates(ca.credentials(t, leaf{}), node("", Credentials{}).Logger, time.Now)
	require.NoError(t, err)
	addr := fakePeer(t, func(raw net.Conn) {
		client, err := middle.serve(raw)
		if err != nil {
			return
		}
		upstream, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return
		}
		defer upstream.Close()
		server, err := middle.dial(upstream, l.Addr().String())
		if err != nil {
			return
		}
		var tasks sync.WaitGroup
		tasks.Go(func() { _, _ = io.Copy(server, client); _ = upstream.Close() })
		_, _ = io.Copy(client, server)
		_ = raw.Close()
		tasks.Wait()
	})
	_, err = mustDialer(t, node("d2", creds)).Dial(testContext(t), KindRaft, 0, addr)
	require.ErrorIs(t, err, ErrUnauthorized)
	eventually(t, func() bool { return l.Stats().Refused["unauthorized"] == 1 })
	require.Zero(t, l.Stats().Accepted)
}

func TestKeysDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, token := range []Token{"", tokenA, tokenB, "there is no secret here"} {
		k, err := newKeyring(token)
		require.NoError(t, err)
		for name, key := range map[string][]byte{"dialer": k.dialer, "listener": k.listener} {
			require.Empty(t, seen[string(key)])
			seen[string(key)] = name
		}
	}
	// Known answer: a change here would cut off every running process.
	k, err := newKeyring(tokenA)
	require.NoError(t, err)
	mac := seal(k.dialer, binding{}, []byte("a"), []byte("b"))
	require.Equal(t, mac, seal(k.dialer, binding{}, []byte("ab")))
	require.NotEqual(t, mac, seal(k.dialer, binding{tls: true}, []byte("ab")))
	require.NotEqual(t, mac, seal(k.listener, binding{}, []byte("ab")))
	require.Equal(t, knownMAC, fmt.Sprintf("%x", mac))
}

// knownMAC was computed by another implementation of RFC 5869 and RFC 2104.
const knownMAC = "20af263eddd5b4035f3c1d35dbddabe80c890dff006ced92b4438b911c44581d"

func TestErrorsAreNotConfused(t *testing.T) {
	t.Parallel()
	require.NotErrorIs(t, refuse(codeBusy, ""), ErrUnauthorized)
	var r *refusal
	require.True(t, errors.As(fmt.Errorf("x: %w", refuse(codeBusy, "why")), &r))
	require.Equal(t, ErrBusy.Error()+": why", r.Error())
	require.Equal(t, ErrBusy.Error(), refuse(codeBusy, "").Error())
}
