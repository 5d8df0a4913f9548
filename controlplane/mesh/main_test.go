package mesh

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tokenA Token = "0123456789abcdef0123456789abcdef"
	tokenB Token = "fedcba9876543210fedcba9876543210"
	local        = "127.0.0.1:0"
)

// patience bounds waiting for what must happen.
const patience = 20 * time.Second

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// leaf says how a certificate differs from a good one.
type leaf struct {
	hosts   []string // besides 127.0.0.1
	noIP    bool
	uris    []string
	usages  []x509.ExtKeyUsage
	expires time.Time
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	return newAuthorityUnder(tb, nil)
}

// subordinate returns an authority below a, and its certificate as PEM.
func (a *authority) subordinate(tb testing.TB) (*authority, []byte) {
	tb.Helper()
	sub := newAuthorityUnder(tb, a)
	return sub, sub.pem
}

func newAuthorityUnder(tb testing.TB, above *authority) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: "test authority " + rand.Text()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	issuer, issuerKey := template, key
	if above != nil {
		issuer, issuerKey = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
	require.NoError(tb, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(tb, err)
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func serial(tb testing.TB) *big.Int {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(tb, err)
	return n
}

// issue returns the certificate and the key as PEM.
func (a *authority) issue(tb testing.TB, l leaf) (cert, key []byte) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: "test process"}, DNSNames: l.hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: l.expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: l.usages,
	}
	if l.expires.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if l.usages == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if !l.noIP {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	for _, raw := range l.uris {
		u, err := url.Parse(raw)
		require.NoError(tb, err)
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	require.NoError(tb, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(tb, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// credentials writes a certificate into files of their own.
func (a *authority) credentials(tb testing.TB, l leaf) Credentials {
	tb.Helper()
	dir := tb.TempDir()
	c := Credentials{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), CAFile: filepath.Join(dir, "ca.pem"),
	}
	cert, key := a.issue(tb, l)
	mustWrite(tb, c.CertFile, cert)
	mustWrite(tb, c.KeyFile, key)
	mustWrite(tb, c.CAFile, a.pem)
	return c
}

func mustWrite(tb testing.TB, path string, data []byte) {
	tb.Helper()
	require.NoError(tb, os.WriteFile(path, data, 0o600))
}

// node is the configuration of a data node.
func node(id string, creds Credentials) Config {
	return Config{Role: RoleData, ID: id, Credentials: creds, Logger: slog.New(slog.DiscardHandler)}
}

func mustListen(tb testing.TB, conf Config) *Listener {
	tb.Helper()
	l, err := Listen(local, conf)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, l.Close()) })
	return l
}

func mustDialer(tb testing.TB, conf Config) *Dialer {
	tb.Helper()
	d, err := NewDialer(conf)
	require.NoError(tb, err)
	return d
}

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

func mustDial(tb testing.TB, d *Dialer, kind Kind, lane Lane, addr net.Addr) net.Conn {
	tb.Helper()
	conn, err := d.Dial(testContext(tb), kind, lane, addr.String())
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

func mustAccept(tb testing.TB, ln net.Listener) net.Conn {
	tb.Helper()
	conn, err := ln.Accept()
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// rawDial opens a plain TCP connection, as a stranger does.
func rawDial(tb testing.TB, addr net.Addr) net.Conn {
	tb.Helper()
	conn, err := net.Dial("tcp", addr.String())
	require.NoError(tb, err)
	require.NoError(tb, conn.SetDeadline(time.Now().Add(patience)))
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// requireTalk sends bytes both ways.
func requireTalk(tb testing.TB, a, b net.Conn) {
	tb.Helper()
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		_, err := pair[0].Write([]byte("hello"))
		require.NoError(tb, err)
		got := make([]byte, 5)
		_, err = io.ReadFull(pair[1], got)
		require.NoError(tb, err)
		require.Equal(tb, "hello", string(got))
	}
}

// requireGone waits until the other end has closed or reset conn.
func requireGone(tb testing.TB, conn net.Conn) {
	tb.Helper()
	require.NoError(tb, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.Copy(io.Discard, conn)
	require.NotErrorIs(tb, err, os.ErrDeadlineExceeded)
}

// eventually polls a condition on state that has no event to wait for.
func eventually(tb testing.TB, condition func() bool) {
	tb.Helper()
	require.Eventually(tb, condition, patience, time.Millisecond)
}

// logRecorder keeps log lines.
type logRecorder struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (r *logRecorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *logRecorder) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSuffix(r.buf.String(), "\n"), "\n")
}

// find returns the first line that contains all words.
func (r *logRecorder) find(words ...string) string {
search:
	for _, line := range r.lines() {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue search
			}
		}
		return line
	}
	return ""
}

func (r *logRecorder) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: level}))
}
