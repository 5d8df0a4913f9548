package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// issuer is a certificate authority.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	a := &issuer{}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return a
}

// environment issues a certificate and returns what makes a process use it, and
// trust the given authority.
func (a *issuer) environment(t *testing.T, trusted *issuer) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "member of a cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	var env []string
	for _, f := range []struct {
		variable, kind string
		der            []byte
	}{
		{"FASTPACA_TLS_CERT", "CERTIFICATE", der},
		{"FASTPACA_TLS_KEY", "PRIVATE KEY", pkcs8},
		{"FASTPACA_TLS_CA", "CERTIFICATE", trusted.cert.Raw},
	} {
		path := filepath.Join(dir, f.variable+".pem")
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600))
		env = append(env, f.variable+"="+path)
	}
	return env
}

// TestMutualTLS runs a cluster whose processes prove with certificates that they
// belong to it, and lets strangers without one, with one of another authority,
// and with a token only, knock at it.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	skipShort(t)
	ours, theirs := newIssuer(t), newIssuer(t)
	c := start(t, Config{Control: 3, Env: ours.environment(t, ours)})
	l := startLoad(t, c, "tls", 8, 100*time.Millisecond)
	l.awaitAppends(t)
	watch := watchMachine(t)
	began := l.history.now()

	for name, test := range map[string]struct {
		env   []string
		says  string
		exits bool
	}{
		"no certificate":                      {nil, "the listener requires TLS", false},
		"a token instead":                     {[]string{"FASTPACA_TOKEN=" + token}, "the listener requires TLS", false},
		"the certificate of another one":      {theirs.environment(t, theirs), "credentials were not accepted", false},
		"another one, which trusts this here": {append(theirs.environment(t, theirs), ours.environment(t, ours)[2]), "own certificate would be refused by its peers", true},
	} {
		t.Run(name, func(t *testing.T) {
			data := stranger(t, c, test.env, "data", "--id", "d8", "--data-dir", t.TempDir(), "--control", c.ControlAddresses())
			member := stranger(t, c, test.env, "control", "--id", "c9", "--data-dir", t.TempDir(), "--peers", c.peersWith("c9"))
			router := stranger(t, c, test.env, "router", "--control", c.ControlAddresses())
			for _, n := range []*Node{data, member, router} {
				if test.exits {
					refuses(t, n, test.says)
					continue
				}
				says(t, n, test.says)
				notReady(t, n)
			}
		})
	}
	// A client that has a certificate of nobody, and speaks nothing of ours.
	for _, n := range []*Node{c.Control[0], c.Data[0]} {
		conn, err := net.Dial("tcp", n.Address())
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(process.ReadyTimeout)))
		// The client may have finished its part before it is refused.
		_, err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		_ = conn.Close()
	}

	if troubles := l.history.troubles(began); len(troubles) > 0 {
		watch.blame(t, "%d operations failed, such as %s", len(troubles), troubles[0])
	}
	l.finish(t)
	sameReplicas(t, c)
	require.NoError(t, c.CheckRunning())
}
