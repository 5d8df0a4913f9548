package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// Dialer opens connections to the listeners of other processes. It starts no
// goroutines and is safe for concurrent use.
type Dialer struct {
	certs    *certificates // nil without TLS
	conf     Config
	conns    *connSet
	failures *failureLog // of connections that gRPC asked for
	keys     keyring
	limits   limits
	net      net.Dialer
}

// NewDialer returns a Dialer, or all problems of the configuration and the
// certificates, joined.
func NewDialer(conf Config) (*Dialer, error) {
	certs, certErr := loadCertificates(conf.Credentials, conf.Logger, time.Now)
	keys, keyErr := newKeyring(conf.Credentials.Token)
	if err := errors.Join(conf.Validate(), certErr, keyErr); err != nil {
		return nil, err
	}
	d := &Dialer{
		certs:    certs,
		conf:     conf,
		keys:     keys,
		limits:   conf.limits.withDefaults(),
		failures: newFailureLog(conf.limits.withDefaults().logEvery, time.Now),
	}
	d.conns = newConnSet(d.limits.conns, conf.ClusterID)
	return d, nil
}

// SetClusterID makes the id of the cluster known once the process has learned
// it, and breaks connections to listeners that said they belong to another. It
// fails with ErrWrongCluster when another id is known already.
func (d *Dialer) SetClusterID(id string) error {
	if err := d.conns.setCluster(id); err != nil {
		return fmt.Errorf("mesh: set cluster id: %w", err)
	}
	return nil
}

// Dial connects to whichever process listens at addr. The connection is a Conn;
// see DialNode for the rest.
func (d *Dialer) Dial(ctx context.Context, kind Kind, lane Lane, addr string) (net.Conn, error) {
	return d.DialNode(ctx, kind, lane, "", addr)
}

// DialNode connects to the node with that id, which is expected at addr, and
// fails with ErrWrongNode when another one answers. The handshake is complete
// when it returns: the peer has proven itself and serves the kind. ctx and the
// handshake's own limit of five seconds bound the call, not the connection,
// which the caller owns. Errors wrap the sentinels of this package, ctx's error,
// or what the network said.
func (d *Dialer) DialNode(ctx context.Context, kind Kind, lane Lane, id, addr string) (net.Conn, error) {
	conn, err := d.dial(ctx, kind, lane, id, addr)
	if err != nil {
		return nil, fmt.Errorf("mesh: dial %v at %s: %w", kind, addr, err)
	}
	return conn, nil
}

func (d *Dialer) dial(ctx context.Context, kind Kind, lane Lane, id, addr string) (net.Conn, error) {
	known, ok := kinds[kind]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: %v", ErrUnknownKind, kind)
	case !kind.allows(d.conf.Role):
		return nil, fmt.Errorf("%w: %v for %v", ErrForbidden, kind, d.conf.Role)
	case lane > known.lanes:
		return nil, fmt.Errorf("lane %d of %v is out of range", lane, kind)
	}
	if err := checkName(id); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, d.limits.handshake)
	defer cancel()
	raw, err := d.net.DialContext(limited, "tcp", addr)
	if err != nil {
		return nil, preferCause(ctx, err)
	}
	tune(raw)
	// Ends blocking I/O when ctx does; the limit is among its deadlines.
	stop := context.AfterFunc(limited, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	conn, err := d.establish(raw, kind, lane, id, addr)
	if !stop() && err == nil {
		err = limited.Err()
		conn.abandon()
	}
	if err != nil {
		_ = raw.Close()
		return nil, preferCause(ctx, err)
	}
	return conn, nil
}

// preferCause returns the end of ctx instead of the I/O error it led to.
func preferCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// establish takes a new connection through TLS and the handshake.
func (d *Dialer) establish(raw net.Conn, kind Kind, lane Lane, id, addr string) (established, error) {
	p := party{role: d.conf.Role, id: d.conf.ID, cluster: d.conns.clusterID(), keys: d.keys}
	inner := raw
	var session *tls.Conn
	if d.certs != nil {
		var err error
		if session, err = d.certs.dial(raw, addr); err != nil {
			return nil, err
		}
		inner = session
		if p.binding, err = bindingOf(session); err != nil {
			return nil, err
		}
	}
	w, err := p.dial(inner, kind, lane, id)
	if err != nil {
		if session != nil {
			err = tlsError(err) // a refused certificate shows at the first read
		}
		return nil, err
	}
	if _, ok := roleNames[w.role]; !ok {
		return nil, fmt.Errorf("%w: unknown %v", ErrProtocol, w.role)
	}
	if id != "" && w.id != id {
		return nil, fmt.Errorf("%w: it is %q, not %q", ErrWrongNode, w.id, id)
	}
	if err := checkNames(session, w.role, w.id); err != nil {
		return nil, err
	}
	peer := Peer{Role: w.role, ID: w.id, ClusterID: w.cluster, Kind: kind, Lane: lane,
		Token: d.conf.Credentials.Token != "", TLS: session != nil}
	return wrap(inner, raw, peer, d.conns)
}
