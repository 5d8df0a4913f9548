package mesh

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// MaxIDBytes bounds the id of a node and of a cluster.
const MaxIDBytes = 255

// Role is what a process is.
type Role uint8

// The roles. RoleServer is all of them in one process.
const (
	RoleControl Role = iota + 1
	RoleData
	RoleRouter
	RoleServer
	// RoleAdmin is the tool of an operator.
	RoleAdmin
)

var roleNames = map[Role]string{
	RoleControl: "control", RoleData: "data", RoleRouter: "router", RoleServer: "server", RoleAdmin: "admin",
}

// String returns the role's name for logs, metrics and names in certificates.
func (r Role) String() string {
	if name, ok := roleNames[r]; ok {
		return name
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// Kind is the protocol that a connection carries after the handshake.
type Kind uint8

const (
	// KindGRPC is HTTP/2: routers and data nodes to the control plane, routers
	// to data nodes.
	KindGRPC Kind = iota + 1
	// KindRaft is the Raft transport between data nodes. Its lanes are numbered
	// by the transport.
	KindRaft
	// KindControlRaft is the Raft of the control plane's members.
	KindControlRaft
	// KindAdmin is HTTP: operators to the control plane. Routers may look.
	KindAdmin
)

// kinds names each kind and the roles that may open or serve it; no roles
// means all. The role is the peer's claim unless its certificate names it, so
// without such certificates this catches mistakes, not attacks.
var kinds = map[Kind]struct {
	name  string
	roles []Role
	lanes Lane // highest lane
}{
	KindGRPC:        {name: "grpc"},
	KindRaft:        {name: "raft", roles: []Role{RoleData, RoleServer}, lanes: MaxLane},
	KindControlRaft: {name: "control-raft", roles: []Role{RoleControl, RoleServer}},
	KindAdmin:       {name: "admin", roles: []Role{RoleAdmin, RoleControl, RoleRouter, RoleServer}},
}

// String returns the kind's name for logs and metrics.
func (k Kind) String() string {
	if known, ok := kinds[k]; ok {
		return known.name
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// allows reports whether a process of this role may open or serve the kind.
func (k Kind) allows(r Role) bool {
	known, ok := kinds[k]
	if !ok {
		return false
	}
	for _, role := range known.roles {
		if role == r {
			return true
		}
	}
	return len(known.roles) == 0
}

// Lane tells connections of one kind apart that must not wait for each other.
// The mesh passes the number on; the protocol of the kind gives it a meaning.
type Lane uint8

// MaxLane is the highest lane. Only KindRaft has lanes; the others use 0.
const MaxLane Lane = 15

// Credentials prove that a process belongs to the cluster. All processes of a
// cluster carry the same kinds of credentials: an end with a token refuses one
// without, an end with TLS refuses one without, in both directions.
type Credentials struct {
	// Token is the secret shared by the cluster. It never travels. Empty for
	// none.
	Token Token
	// CertFile, KeyFile and CAFile are PEM files for mutual TLS, given together
	// or not at all. CertFile holds the certificate, which must be good for
	// servers and for clients, and its intermediates; CAFile the authorities
	// that both ends must descend from. Changed files are picked up at the next
	// handshake.
	CertFile, KeyFile, CAFile string
	// ServerName is what the certificates of listeners must be valid for.
	// Defaults to the host of the address that is dialed.
	ServerName string
}

func (c *Credentials) tls() bool { return c.CertFile != "" || c.KeyFile != "" || c.CAFile != "" }

func (c *Credentials) problems() []error {
	var errs []error
	if err := c.Token.validate(); err != nil {
		errs = append(errs, err)
	}
	if c.tls() {
		for _, f := range []struct{ what, path string }{
			{"certificate", c.CertFile}, {"key", c.KeyFile}, {"CA", c.CAFile},
		} {
			if f.path == "" {
				errs = append(errs, fmt.Errorf("TLS needs certificate, key and CA: the %s file is missing", f.what))
			}
		}
	} else if c.ServerName != "" {
		errs = append(errs, errors.New("a TLS server name without TLS files has no effect"))
	}
	return errs
}

// Config describes this process to the mesh. One Config serves its Listener
// and its Dialer.
type Config struct {
	// Role and ID are what this process says of itself. ID is at most MaxIDBytes
	// of printable ASCII without spaces; only routers may go without.
	Role Role
	ID   string
	// ClusterID is empty while unknown; see SetClusterID. Two ends that both know
	// their cluster refuse each other unless it is the same.
	ClusterID   string
	Credentials Credentials
	// Insecure lets a process without credentials listen on an address that
	// other machines can reach. Whoever reaches it may then do everything.
	Insecure bool
	// Logger receives refused connections, at a bounded rate, and failed reloads
	// of certificates. Required.
	Logger *slog.Logger

	limits limits // zero fields get defaults
}

// Validate reports everything wrong with the configuration, joined. It does not
// open files; Listen and NewDialer do.
func (c Config) Validate() error {
	var errs []error
	if _, ok := roleNames[c.Role]; !ok {
		errs = append(errs, fmt.Errorf("unknown %v", c.Role))
	}
	if c.ID == "" && c.Role != RoleRouter && c.Role != RoleAdmin {
		errs = append(errs, errors.New("id is empty"))
	}
	if err := checkName(c.ID); err != nil {
		errs = append(errs, err)
	}
	if err := checkName(c.ClusterID); err != nil {
		errs = append(errs, fmt.Errorf("cluster %w", err))
	}
	errs = append(errs, c.Credentials.problems()...)
	if c.Logger == nil {
		errs = append(errs, errors.New("logger is missing"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("mesh configuration: %w", err)
	}
	return nil
}

// checkExposure refuses an address that other machines can reach when nothing
// would keep them out.
func (c *Config) checkExposure(addr net.Addr) error {
	if c.Insecure || c.Credentials.Token != "" || c.Credentials.tls() {
		return nil
	}
	switch a := addr.(type) {
	case *net.TCPAddr:
		if a.IP.IsLoopback() {
			return nil
		}
	case *net.UnixAddr:
		return nil
	}
	return fmt.Errorf("mesh configuration: listening on %v needs a token or TLS certificates: "+
		"without them whoever reaches it can join and write; to allow that, set the insecure option", addr)
}

// limits bounds what strangers can make a process hold, and how long.
type limits struct {
	handshake  time.Duration // from accept or connect to the end of the handshake
	linger     time.Duration // for a refused dialer to read the reason
	handshakes int           // unauthenticated connections at a time
	conns      int           // established connections at a time
	backlog    int           // established connections of one kind not yet accepted
	logEvery   time.Duration // between two log lines about one host
}

func (l limits) withDefaults() limits {
	or(&l.handshake, 5*time.Second)
	or(&l.linger, 500*time.Millisecond)
	or(&l.handshakes, 128)
	or(&l.conns, 8192)
	or(&l.backlog, 256)
	or(&l.logEvery, 10*time.Second)
	return l
}

func or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
