package mesh

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"
)

// outcome is what a handshake on the listener's side came to.
type outcome struct {
	hello *hello // what the dialer said, nil when it never got to say it
	conn  established
	place *virtualListener // has a place for conn reserved
}

// establish takes a new connection through TLS and the handshake. On success
// the connection is in the set and has no deadline.
func (l *Listener) establish(raw net.Conn) (o outcome, err error) {
	tune(raw)
	if err := raw.SetDeadline(time.Now().Add(l.limits.handshake)); err != nil {
		return o, err
	}
	inner, session, err := l.secure(raw)
	if err != nil {
		return o, err
	}
	p := party{role: l.conf.Role, id: l.conf.ID, cluster: l.conns.clusterID(), keys: l.keys}
	if session != nil {
		if p.binding, err = bindingOf(session); err != nil {
			return o, err
		}
	}
	o.hello, err = p.serve(inner, func(h *hello) error {
		v, err := l.admit(h, session)
		if err != nil {
			return err
		}
		peer := Peer{Role: h.role, ID: h.id, ClusterID: h.cluster, Kind: h.kind, Lane: h.lane,
			Token: l.conf.Credentials.Token != "", TLS: session != nil}
		if o.conn, err = wrap(inner, raw, peer, l.conns); err != nil {
			return err
		}
		if !v.reserve() {
			return refuse(codeBusy, "the backlog of %v is full", h.kind)
		}
		o.place = v
		return nil
	})
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		l.undo(&o, inner, err)
	}
	return o, err
}

// undo gives back what a failed handshake holds.
func (l *Listener) undo(o *outcome, inner net.Conn, err error) {
	if o.place != nil {
		o.place.release()
	}
	var refused *refusal
	if errors.As(err, &refused) {
		l.linger(inner)
	}
	if o.conn != nil {
		o.conn.abandon()
	}
}

// secure performs the TLS handshake if there is one. session is nil without.
func (l *Listener) secure(raw net.Conn) (inner net.Conn, session *tls.Conn, err error) {
	if l.certs == nil {
		return raw, nil, nil
	}
	session, err = l.certs.serve(raw)
	if err == nil {
		return session, session, nil
	}
	var refused *refusal
	if errors.As(err, &refused) {
		_, _ = raw.Write(refused.encode())
	}
	if refused != nil || errors.Is(err, errTLS) {
		l.linger(raw) // there is a reason or an alert to read
	}
	return nil, nil, err
}

// admit decides about a dialer that has proven itself. The set checks the
// cluster again when the connection joins it; here it comes first so that a
// stray process learns what matters.
func (l *Listener) admit(h *hello, session *tls.Conn) (*virtualListener, error) {
	if ours := l.conns.clusterID(); !sameCluster(ours, h.cluster) {
		return nil, refuse(codeWrongCluster, "the listener's is %q, the dialer's %q", ours, h.cluster)
	}
	if _, ok := roleNames[h.role]; !ok || (h.id == "" && h.role != RoleRouter && h.role != RoleAdmin) {
		return nil, refuse(codeForbidden, "unknown %v or empty id", h.role)
	}
	if err := checkNames(session, h.role, h.id); err != nil {
		return nil, err
	}
	if h.target != "" && h.target != l.conf.ID {
		return nil, refuse(codeWrongNode, "it is %q, not %q", l.conf.ID, h.target)
	}
	known, ok := kinds[h.kind]
	if !ok {
		return nil, refuse(codeUnknownKind, "%v", h.kind)
	}
	if !h.kind.allows(h.role) {
		return nil, refuse(codeForbidden, "%v for %v", h.kind, h.role)
	}
	if h.lane > known.lanes {
		return nil, refuse(codeProtocol, "lane %d of %v", h.lane, h.kind)
	}
	v := l.claimed(h.kind)
	if v == nil {
		return nil, refuse(codeUnknownKind, "%v", h.kind)
	}
	return v, nil
}

// lingerBytes bounds what is read and thrown away after a refusal.
const lingerBytes = 4 << 10

// linger waits, shortly, until a refused dialer has hung up. Closing at once
// would reset the connection if the dialer has sent more, and take the reason
// away from it.
func (l *Listener) linger(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = conn.SetDeadline(time.Now().Add(l.limits.linger))
	_, _ = io.Copy(io.Discard, io.LimitReader(conn, lingerBytes))
}

// report logs a failed handshake, at a bounded rate per host. Probes that
// connect and say nothing are no news.
func (l *Listener) report(addr net.Addr, h *hello, err error) {
	level := slog.LevelWarn
	switch reasonOf(err) {
	case reasonSilent, reasonAborted:
		level = slog.LevelDebug
	case reasonGarbage, reasonTimeout:
		level = slog.LevelInfo
	}
	host := ""
	if addr != nil {
		host = addr.String()
		if h, _, splitErr := net.SplitHostPort(host); splitErr == nil {
			host = h
		}
	}
	// Levels are limited apart, so that harmless probes hide no attack, and roles, so
	// that of several processes of a host that are refused each is named.
	key := level.String() + " " + host
	args := []any{"remote", fmt.Sprint(addr), "reason", reasonOf(err), "error", err}
	if h != nil {
		args = append(args, "claimed_role", h.role.String(), "claimed_id", h.id, "kind", h.kind.String())
		key += " " + h.role.String()
	}
	l.logFailure(level, key, "mesh: connection refused", args...)
}

// Reasons of failed handshakes beside the names of codes.
const (
	reasonAborted = "aborted" // closed or reset half way, also by eviction
	reasonGarbage = "garbage"
	reasonSilent  = "silent"
	reasonTimeout = "timeout"
	reasonTLS     = "tls"
)

// reasonOf returns the label of an error: one of a closed set.
func reasonOf(err error) string {
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return reasons[refused.code].name
	case err == io.EOF:
		return reasonSilent
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reasonTimeout
	case errors.Is(err, errNotMagic), errors.Is(err, errOversized):
		return reasonGarbage
	case errors.Is(err, errTLS):
		return reasonTLS
	}
	return reasonAborted
}

// counters are the numbers behind Stats.
type counters struct {
	accepted uint64
	evicted  uint64
	refused  map[string]uint64
}

func (c *counters) count(err error) {
	if err == nil {
		c.accepted++
		return
	}
	if c.refused == nil {
		c.refused = make(map[string]uint64)
	}
	c.refused[reasonOf(err)]++
}

// Stats is a snapshot of a Listener's numbers.
type Stats struct {
	Accepted    uint64 // handshakes that succeeded
	Established int    // connections open now
	Evicted     uint64 // handshakes that gave way to newer ones
	Handshakes  int    // handshakes in progress now
	// Refused counts failed handshakes by reason, a closed set of labels.
	Refused map[string]uint64
}

// Stats returns the numbers of the Listener.
func (l *Listener) Stats() Stats {
	s := Stats{Established: l.conns.len(), Refused: make(map[string]uint64)}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Accepted, s.Evicted, s.Handshakes = l.stats.accepted, l.stats.evicted, l.handshakes.Len()
	for reason, n := range l.stats.refused {
		s.Refused[reason] = n
	}
	return s
}
