package mesh

import (
	"errors"
	"fmt"
)

// Why a connection was not established. Dial wraps them with the operation and,
// where the listener gave one, its reason; test with errors.Is.
var (
	// ErrBusy: one end has no room for the connection now, or is shutting down.
	// Retry.
	ErrBusy = errors.New("no room for another connection")
	// ErrForbidden: the role, or the names in the certificate, do not allow this
	// kind of connection or this identity.
	ErrForbidden = errors.New("not allowed for this role or certificate")
	// ErrNotMesh: what answers at the address is not a mesh listener.
	ErrNotMesh = errors.New("the peer does not speak the mesh protocol")
	// ErrProtocol: the peer speaks the mesh protocol, but broke its rules.
	ErrProtocol = errors.New("the peer broke the mesh protocol")
	// ErrTLSRequired: the listener wants TLS and this end is configured without.
	ErrTLSRequired = errors.New("the listener requires TLS")
	// ErrTLSUnsupported: this end uses TLS and the listener is configured without.
	ErrTLSUnsupported = errors.New("the listener does not use TLS")
	// ErrUnauthorized: one end did not accept the credentials of the other: the
	// tokens differ, only one end has a token, or a certificate was refused.
	ErrUnauthorized = errors.New("credentials were not accepted")
	// ErrUnknownKind: the listener does not serve this kind of connection, or
	// not yet.
	ErrUnknownKind = errors.New("the listener does not serve this kind of connection")
	// ErrVersion: the ends have no version of the mesh protocol in common.
	ErrVersion = errors.New("mesh protocol version is not supported")
	// ErrWrongCluster: the peer belongs to another cluster.
	ErrWrongCluster = errors.New("the peer belongs to another cluster")
	// ErrWrongNode: another node than the one meant answers at the address.
	ErrWrongNode = errors.New("another node answers at this address")
)

// Permanent reports whether err stays until somebody changes a configuration,
// so that a process may print it and give up instead of retrying for ever.
func Permanent(err error) bool {
	for _, sentinel := range permanent {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

var permanent = []error{
	ErrForbidden, ErrNotMesh, ErrProtocol, ErrTLSRequired, ErrTLSUnsupported,
	ErrUnauthorized, ErrVersion, ErrWrongCluster, ErrWrongNode,
}

// Advice says what an operator can do about an error of Dial that does not pass
// by itself, or "" where the error says it all.
func Advice(err error) string {
	for _, known := range advice {
		if errors.Is(err, known.err) {
			return known.text
		}
	}
	return ""
}

var advice = []struct {
	err  error
	text string
}{
	{ErrUnauthorized, "give both ends the same token, and certificates of the same authority"},
	{ErrTLSRequired, "give this process a certificate, its key and the authority's, as the others have"},
	{ErrTLSUnsupported, "give the others certificates as well, or none to this process"},
	{ErrForbidden, "check the role that this process was started in, and the names in its certificate"},
	{ErrWrongCluster, "point this process at the control plane of its own cluster, or start it with an empty data directory"},
	{ErrNotMesh, "give the internal address of the peer, not that of its API or ops listener"},
	{ErrVersion, "run versions of the program that know each other"},
}

// code is a reason as it travels in a reject frame. Numbers are never reused.
type code uint8

const (
	codeVersion code = iota + 1
	codeUnauthorized
	codeWrongCluster
	codeWrongNode
	codeUnknownKind
	codeTLSRequired
	codeTLSUnsupported
	codeForbidden
	codeBusy
	codeProtocol
)

var reasons = map[code]struct {
	name     string // label for logs and metrics
	sentinel error
}{
	codeVersion:        {"version", ErrVersion},
	codeUnauthorized:   {"unauthorized", ErrUnauthorized},
	codeWrongCluster:   {"wrong_cluster", ErrWrongCluster},
	codeWrongNode:      {"wrong_node", ErrWrongNode},
	codeUnknownKind:    {"unknown_kind", ErrUnknownKind},
	codeTLSRequired:    {"tls_required", ErrTLSRequired},
	codeTLSUnsupported: {"tls_unsupported", ErrTLSUnsupported},
	codeForbidden:      {"forbidden", ErrForbidden},
	codeBusy:           {"busy", ErrBusy},
	codeProtocol:       {"protocol", ErrProtocol},
}

// refusal is an answer of the listener that the dialer may know. It unwraps to
// the sentinel of its code.
type refusal struct {
	code   code
	detail string // at most maxDetail bytes of printable ASCII, may be empty
}

func refuse(c code, format string, args ...any) *refusal {
	return &refusal{code: c, detail: printable(fmt.Sprintf(format, args...), maxDetail)}
}

func (r *refusal) Error() string {
	if r.detail == "" {
		return r.Unwrap().Error()
	}
	return r.Unwrap().Error() + ": " + r.detail
}

func (r *refusal) Unwrap() error {
	if known, ok := reasons[r.code]; ok {
		return known.sentinel
	}
	return ErrProtocol
}

// printable returns s cut to limit bytes, with everything but printable ASCII
// replaced, so that a peer cannot write control characters into our logs.
func printable(s string, limit int) string {
	out := []byte(s[:min(len(s), limit)])
	for i, b := range out {
		if b < 0x20 || b > 0x7e {
			out[i] = '?'
		}
	}
	return string(out)
}
