package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBadCertificatesStopTheStart(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	good := ca.credentials(t, leaf{})
	foreign := other.credentials(t, leaf{})
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	mustWrite(t, garbage, []byte("not PEM"))
	tests := map[string]struct {
		creds Credentials
		want  string
	}{
		"another key":  {Credentials{CertFile: good.CertFile, KeyFile: foreign.KeyFile, CAFile: good.CAFile}, "private key"},
		"another CA":   {Credentials{CertFile: good.CertFile, KeyFile: good.KeyFile, CAFile: foreign.CAFile}, "refused by its peers"},
		"CA not PEM":   {Credentials{CertFile: good.CertFile, KeyFile: good.KeyFile, CAFile: garbage}, "no certificate in"},
		"cert not PEM": {Credentials{CertFile: garbage, KeyFile: good.KeyFile, CAFile: good.CAFile}, "PEM"},
		"expired":      {ca.credentials(t, leaf{expires: time.Now().Add(-time.Minute)}), "expired"},
		"no file":      {Credentials{CertFile: "/nonexistent", KeyFile: good.KeyFile, CAFile: good.CAFile}, "/nonexistent"},
		"no CA file":   {Credentials{CertFile: good.CertFile, KeyFile: good.KeyFile, CAFile: "/nonexistent"}, "/nonexistent"},
		"only client":  {ca.credentials(t, leaf{usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), "key usage"},
		"only server":  {ca.credentials(t, leaf{usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), "key usage"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Listen(local, node("d1", test.creds))
			require.ErrorContains(t, err, test.want)
			_, err = NewDialer(node("d1", test.creds))
			require.ErrorContains(t, err, test.want)
		})
	}
}

// A certificate may descend from the authority through others.
func TestIntermediateAuthority(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	middle, chain := ca.subordinate(t)
	creds := middle.credentials(t, leaf{})
	mustWrite(t, creds.CAFile, ca.pem)
	_, err := NewDialer(node("d1", creds))
	require.ErrorContains(t, err, "refused by its peers") // the file lacks the intermediate
	cert, err := os.ReadFile(creds.CertFile)
	require.NoError(t, err)
	mustWrite(t, creds.CertFile, append(cert, chain...))
	l := mustListen(t, node("d1", creds))
	ln := l.Accept(KindRaft)
	for _, client := range []Credentials{creds, ca.credentials(t, leaf{})} {
		conn := mustDial(t, mustDialer(t, node("d2", client)), KindRaft, 0, l.Addr())
		requireTalk(t, conn, mustAccept(t, ln))
	}
}

func TestListenerNameIsChecked(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	server := ca.credentials(t, leaf{noIP: true, hosts: []string{"mesh.fastpaca"}})
	l := mustListen(t, node("d1", server))
	drain(t, l.Accept(KindRaft))
	client := ca.credentials(t, leaf{})
	dial := func() error {
		conn, err := mustDialer(t, node("d2", client)).Dial(testContext(t), KindRaft, 0, l.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	require.ErrorIs(t, dial(), ErrUnauthorized) // dialed by IP, certificate for a name
	client.ServerName = "other.fastpaca"
	require.ErrorIs(t, dial(), ErrUnauthorized)
	client.ServerName = "mesh.fastpaca"
	require.NoError(t, dial())
}

// A client without a certificate, or with one of another authority, gets no
// further than TLS, and neither does one with an old version or another ALPN.
func TestTLSIsMutual(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	l := mustListen(t, node("d1", ca.credentials(t, leaf{})))
	l.Accept(KindRaft)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	stranger := other.credentials(t, leaf{})
	foreign, err := tls.LoadX509KeyPair(stranger.CertFile, stranger.KeyFile)
	require.NoError(t, err)
	mine := ca.credentials(t, leaf{})
	own, err := tls.LoadX509KeyPair(mine.CertFile, mine.KeyFile)
	require.NoError(t, err)
	old := ca.credentials(t, leaf{}) // its file is swapped for an expired one
	expired, key := ca.issue(t, leaf{expires: time.Now().Add(-time.Minute)})
	mustWrite(t, old.CertFile, expired)
	mustWrite(t, old.KeyFile, key)
	outdated, err := tls.LoadX509KeyPair(old.CertFile, old.KeyFile)
	require.NoError(t, err)
	present := func(c tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	tests := map[string]*tls.Config{
		"another ALPN":    {GetClientCertificate: present(own), NextProtos: []string{"h2"}},
		"expired":         {GetClientCertificate: present(outdated), NextProtos: []string{alpn}},
		"no certificate":  {NextProtos: []string{alpn}},
		"other authority": {GetClientCertificate: present(foreign), NextProtos: []string{alpn}},
		"TLS 1.2":         {GetClientCertificate: present(own), NextProtos: []string{alpn}, MaxVersion: tls.VersionTLS12},
	}
	silent := tls.Client(rawDial(t, l.Addr()), &tls.Config{
		RootCAs: roots, ServerName: "127.0.0.1", GetClientCertificate: present(own),
	})
	require.NoError(t, silent.Handshake()) // without ALPN
	_, err = silent.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	var refused uint64
	for name, conf := range tests {
		conf.RootCAs, conf.ServerName = roots, "127.0.0.1"
		conn := tls.Client(rawDial(t, l.Addr()), conf)
		_, err := conn.Write((&hello{kind: KindRaft, role: RoleData, id: "d2"}).encode())
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		require.ErrorContains(t, err, "remote error: tls", name)
		refused++
	}
	eventually(t, func() bool { return l.Stats().Refused["tls"] == refused })
	require.Zero(t, l.Stats().Accepted)
}

func TestCertificateNamesBindIdentity(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	listenerFor := func(uris ...string) *Listener {
		l := mustListen(t, node("d1", ca.credentials(t, leaf{uris: uris})))
		drain(t, l.Accept(KindRaft))
		drain(t, l.Accept(KindGRPC))
		return l
	}
	open := listenerFor()
	tests := map[string]struct {
		uris []string
		role Role
		id   string
		ok   bool
	}{
		"another id":     {[]string{"fastpaca://data/d3"}, RoleData, "d2", false},
		"another role":   {[]string{"fastpaca://router/d2"}, RoleData, "d2", false},
		"any id":         {[]string{"fastpaca://data"}, RoleData, "d2", true},
		"any id, slash":  {[]string{"fastpaca://data/"}, RoleData, "d2", true},
		"exact":          {[]string{"fastpaca://data/d2"}, RoleData, "d2", true},
		"foreign scheme": {[]string{"spiffe://x/y"}, RoleData, "d2", true},
		"nested":         {[]string{"fastpaca://data/d2/x"}, RoleData, "d2", false},
		"one of several": {[]string{"https://x", "fastpaca://control/c1", "fastpaca://data/d2"}, RoleData, "d2", true},
		"router as data": {[]string{"fastpaca://router"}, RoleData, "d2", false},
		"unbound":        {nil, RoleData, "d2", true},
	}
	for name, test := range tests {
		t.Run("dialer "+name, func(t *testing.T) {
			t.Parallel()
			conf := node(test.id, ca.credentials(t, leaf{uris: test.uris}))
			conf.Role = test.role
			conn, err := mustDialer(t, conf).Dial(testContext(t), KindRaft, 0, open.Addr().String())
			if !test.ok {
				require.ErrorIs(t, err, ErrForbidden)
				return
			}
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		})
	}
	d := mustDialer(t, node("d2", ca.credentials(t, leaf{})))
	_, err := d.Dial(testContext(t), KindRaft, 0, listenerFor("fastpaca://data/d7").Addr().String())
	require.ErrorIs(t, err, ErrForbidden)
	conn, err := d.Dial(testContext(t), KindRaft, 0, listenerFor("fastpaca://data/d1").Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

// New files are used from the next handshake on; files that make no sense are
// reported and the old ones stay in use.
func TestCertificatesReload(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	creds := ca.credentials(t, leaf{})
	var logs logRecorder
	now := time.Now()
	c, err := loadCertificates(creds, logs.logger(slog.LevelInfo), func() time.Time { return now })
	require.NoError(t, err)
	first, _ := c.current()
	again, _ := c.current()
	require.Same(t, first, again)

	cert, key := ca.issue(t, leaf{hosts: []string{"renewed"}})
	replace := func(path string, data []byte) {
		mustWrite(t, path+".new", data)
		require.NoError(t, os.Rename(path+".new", path))
	}
	replace(creds.CertFile, cert) // the key does not fit yet
	server, _ := c.current()
	require.Same(t, first, server) // looked at once per interval
	now = now.Add(reloadEvery)
	server, _ = c.current()
	require.Same(t, first, server)
	require.NotEmpty(t, logs.find("level=WARN", "not taken over", "private key"))
	now = now.Add(reloadEvery)
	_, _ = c.current()
	require.Len(t, logs.lines(), 1) // once per change

	replace(creds.KeyFile, key)
	now = now.Add(reloadEvery)
	server, client := c.current()
	require.NotSame(t, first, server)
	require.Equal(t, []string{"renewed"}, server.Certificates[0].Leaf.DNSNames)
	require.Equal(t, []string{"renewed"}, client.Certificates[0].Leaf.DNSNames)
	require.NotEmpty(t, logs.find("reloaded"))

	require.NoError(t, os.Remove(creds.CAFile))
	now = now.Add(reloadEvery)
	kept, _ := c.current()
	require.Same(t, server, kept)
}

// A running listener moves to another authority without a restart.
func TestAuthorityIsReplacedLive(t *testing.T) {
	t.Parallel()
	before, after := newAuthority(t), newAuthority(t)
	creds := before.credentials(t, leaf{})
	l := mustListen(t, node("d1", creds))
	ln := l.Accept(KindRaft)
	conn := mustDial(t, mustDialer(t, node("d2", before.credentials(t, leaf{}))), KindRaft, 0, l.Addr())
	accepted := mustAccept(t, ln)

	cert, key := after.issue(t, leaf{})
	mustWrite(t, creds.CertFile, cert)
	mustWrite(t, creds.KeyFile, key)
	mustWrite(t, creds.CAFile, after.pem)
	l.certs.mu.Lock()
	l.certs.checked = time.Time{} // the next handshake looks
	l.certs.mu.Unlock()

	late := mustDial(t, mustDialer(t, node("d3", after.credentials(t, leaf{}))), KindRaft, 0, l.Addr())
	requireTalk(t, late, mustAccept(t, ln))
	requireTalk(t, conn, accepted) // established ones stay
	_, err := mustDialer(t, node("d4", before.credentials(t, leaf{}))).Dial(testContext(t), KindRaft, 0, l.Addr().String())
	require.ErrorIs(t, err, ErrUnauthorized)
}
