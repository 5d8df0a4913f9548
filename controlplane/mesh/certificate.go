package mesh

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// alpn keeps connections of other TLS services away from ours.
	alpn = "fastpaca-mesh"
	// exportLabel names the keying material that ties the handshake to its TLS
	// session.
	exportLabel = "EXPERIMENTAL fastpaca mesh binding"
	// reloadEvery is how often the files are looked at, at most.
	reloadEvery = time.Second
	// nameScheme starts the URI names that bind a certificate to an identity.
	nameScheme = "fastpaca"
)

// certificates holds this process' TLS configurations and renews them when
// the content of their files changes. A set of files that does not load is
// reported once and the one in use stays.
type certificates struct {
	creds Credentials
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex // guards the fields below
	checked time.Time
	seen    [sha256.Size]byte // of the files tried last
	server  *tls.Config
	client  *tls.Config // without ServerName
}

// loadCertificates returns nil without an error when creds has no TLS files.
func loadCertificates(creds Credentials, log *slog.Logger, now func() time.Time) (*certificates, error) {
	if !creds.tls() {
		return nil, nil
	}
	c := &certificates{creds: creds, log: log, now: now, checked: now()}
	files := readPEM(creds)
	c.seen = files.sum()
	if err := c.load(files); err != nil {
		return nil, fmt.Errorf("mesh TLS: %w", err)
	}
	return c, nil
}

// pemFiles is the content of the files at one time, or why they have none.
type pemFiles struct {
	cert, key, ca []byte
	err           error
}

func readPEM(creds Credentials) (f pemFiles) {
	var errs [3]error
	f.cert, errs[0] = os.ReadFile(creds.CertFile)
	f.key, errs[1] = os.ReadFile(creds.KeyFile)
	f.ca, errs[2] = os.ReadFile(creds.CAFile)
	f.err = errors.Join(errs[:]...)
	return f
}

// sum tells one content from another. Times of files are too coarse for that.
func (f *pemFiles) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, content := range [][]byte{f.cert, f.key, f.ca} {
		part := sha256.Sum256(content)
		h.Write(part[:])
	}
	h.Sum(sum[:0])
	return sum
}

// load makes configurations of the files. Callers hold mu or own c.
func (c *certificates) load(files pemFiles) error {
	if files.err != nil {
		return files.err
	}
	pair, err := tls.X509KeyPair(files.cert, files.key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.creds.CertFile, c.creds.KeyFile, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(files.ca) {
		return fmt.Errorf("no certificate in %s", c.creds.CAFile)
	}
	if err := checkOwn(&pair, pool, c.now()); err != nil {
		return err
	}
	common := tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{alpn},
		Time:         c.now,
		// Resumption would skip what a renewed CA file no longer vouches for.
		SessionTicketsDisabled: true,
		// Small first records are for browsers.
		DynamicRecordSizingDisabled: true,
	}
	c.server, c.client = common.Clone(), common.Clone()
	c.server.ClientAuth = tls.RequireAndVerifyClientCert
	c.server.ClientCAs = pool
	c.client.RootCAs = pool
	return nil
}

// checkOwn verifies this process' own certificate as its peers will, so that a
// mistake shows at start and in one place.
func checkOwn(pair *tls.Certificate, pool *x509.CertPool, now time.Time) error {
	intermediates := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("intermediate certificate: %w", err)
		}
		intermediates.AddCert(cert)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{
			Roots: pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return fmt.Errorf("own certificate would be refused by its peers: %w", err)
		}
	}
	return nil
}

// current returns the configurations to use for a handshake that starts now.
func (c *certificates) current() (server, client *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.checked) >= reloadEvery {
		c.checked = now
		files := readPEM(c.creds)
		if sum := files.sum(); sum != c.seen {
			c.seen = sum
			if err := c.load(files); err != nil {
				c.log.Warn("mesh: changed TLS files were not taken over", "error", err)
			} else {
				c.log.Info("mesh: TLS files reloaded")
			}
		}
	}
	return c.server, c.client
}

// serve performs the listener's TLS handshake under the deadline of raw.
func (c *certificates) serve(raw net.Conn) (*tls.Conn, error) {
	server, _ := c.current()
	conn := tls.Server(raw, server)
	if err := conn.Handshake(); err != nil {
		var header tls.RecordHeaderError
		if errors.As(err, &header) && header.Conn != nil {
			if [4]byte(header.RecordHeader[:4]) == magic {
				return nil, refuse(codeTLSRequired, "")
			}
			return nil, errNotMagic
		}
		return nil, ioOrTLS(err)
	}
	if conn.ConnectionState().NegotiatedProtocol != alpn {
		return nil, errNotMagic // a client of another service
	}
	return conn, nil
}

// errTLS marks a handshake that TLS itself ended, with an alert.
var errTLS = errors.New("TLS handshake failed")

// ioOrTLS marks errors of TLS and leaves those of the network.
func ioOrTLS(err error) error {
	var op *net.OpError
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) ||
		(errors.As(err, &op) && op.Op != alertOp) {
		return err
	}
	return fmt.Errorf("%w: %w", errTLS, err)
}

// alertOp is the net.OpError.Op by which crypto/tls reports the peer's alert.
const alertOp = "remote error"

// dial performs the dialer's TLS handshake under the deadline of raw. Errors
// wrap a sentinel, or an I/O error.
func (c *certificates) dial(raw net.Conn, addr string) (*tls.Conn, error) {
	_, client := c.current()
	client = client.Clone()
	client.ServerName = c.creds.ServerName
	if client.ServerName == "" {
		client.ServerName = addr
		if host, _, err := net.SplitHostPort(addr); err == nil {
			client.ServerName = host
		}
	}
	conn := tls.Client(raw, client)
	err := conn.Handshake()
	if err == nil && conn.ConnectionState().NegotiatedProtocol != alpn {
		err = fmt.Errorf("%w: it is another TLS service", ErrNotMesh)
	}
	if err != nil {
		return nil, tlsError(err)
	}
	return conn, nil
}

// tlsError gives an error of a dialer's TLS connection its sentinel.
func tlsError(err error) error {
	var header tls.RecordHeaderError
	var verification *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &header) && [4]byte(header.RecordHeader[:4]) == magic:
		return ErrTLSUnsupported
	case errors.As(err, &header):
		return fmt.Errorf("%w: %w", ErrNotMesh, err)
	case errors.As(err, &verification):
		return fmt.Errorf("%w: the listener's certificate: %w", ErrUnauthorized, err)
	case errors.As(err, &op) && op.Op == alertOp:
		return fmt.Errorf("%w: the listener refused the TLS handshake: %w", ErrUnauthorized, err)
	}
	return err
}

// bindingOf returns what the mesh handshake is tied to.
func bindingOf(conn *tls.Conn) (binding, error) {
	state := conn.ConnectionState()
	key, err := state.ExportKeyingMaterial(exportLabel, nil, len(binding{}.export))
	if err != nil {
		return binding{}, fmt.Errorf("export keying material: %w", err)
	}
	b := binding{tls: true}
	copy(b.export[:], key)
	return b, nil
}

// checkNames compares what a peer says it is with its certificate. A
// certificate that carries URI names of the form fastpaca://<role>/<id> or
// fastpaca://<role> is good for those identities only; one without any is good
// for all. conn may be nil.
func checkNames(conn *tls.Conn, role Role, id string) error {
	if conn == nil {
		return nil
	}
	leaf := conn.ConnectionState().PeerCertificates[0]
	bound := false
	for _, uri := range leaf.URIs {
		if uri.Scheme != nameScheme {
			continue
		}
		bound = true
		name := strings.TrimPrefix(uri.Path, "/")
		if uri.Host == role.String() && (name == "" || name == id) {
			return nil
		}
	}
	if bound {
		return refuse(codeForbidden, "the certificate is not for %v %q", role, id)
	}
	return nil
}
