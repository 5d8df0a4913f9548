package member

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/consensus"
	"github.com/fastpaca/fastpaca/controlplane/lease"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
)

const (
	// DefaultBootstrapExpect is how many data nodes are waited for by default.
	DefaultBootstrapExpect = 1
	// DefaultReplicationFactor is how many replicas a group has by default.
	DefaultReplicationFactor = 3
	// DefaultSessionTTL is how long a node counts as alive without a call. A
	// node calls at least once a second.
	DefaultSessionTTL = 3 * time.Second
)

// Config says how a member runs. The zero value of an optional field stands for
// its default.
type Config struct {
	// ID names this member. Required, and fixed for the life of DataDir.
	ID string
	// DataDir is this member's directory; it is made when missing. Required.
	DataDir string
	// Peers maps the id of every member, this one included, to its address.
	// Empty stands for this member alone.
	Peers map[string]string
	// Stream carries Raft between the members: required with several peers and
	// absent with one. Open takes it over; it is closed when Open fails, and by
	// Close.
	Stream consensus.Stream
	// BootstrapExpect is how many data nodes must be there before groups are
	// placed for the first time. Defaults to DefaultBootstrapExpect.
	BootstrapExpect int
	// ReplicationFactor is how many replicas a group gets when there are that
	// many nodes: 1, 3 or 5. It is stored when the cluster is created; the
	// stored one is in force. Defaults to DefaultReplicationFactor.
	ReplicationFactor int
	// ClusterID is the id of the cluster this member must belong to, or to give
	// to a new one. A new cluster draws one when it is empty.
	ClusterID string
	// Logger receives what is worth knowing. Required.
	Logger *slog.Logger
	// SessionTTL is how long a node counts as alive after its last call.
	// Defaults to DefaultSessionTTL.
	SessionTTL time.Duration
	// ReplaceAfter is how long a node may be silent before its replicas are
	// replaced on others. Defaults to reconcile.DefaultReplaceAfter.
	ReplaceAfter time.Duration
	// LeaseTTL is how long an archiver lease may be trusted without being
	// renewed; the same on all members. Defaults to lease.DefaultTTL.
	LeaseTTL time.Duration
	// HeartbeatTimeout is the members' election timeout. Defaults to that of
	// the consensus package.
	HeartbeatTimeout time.Duration
}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var problems []error
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(format, args...))
	}
	filled := c.withDefaults()
	if err := filled.consensus(catalog.New()).Validate(); err != nil {
		problems = append(problems, err)
	}
	if filled.BootstrapExpect < 1 || filled.BootstrapExpect > catalog.MaxNodes {
		complain("bootstrap-expect is %d, want 1 to %d", c.BootstrapExpect, catalog.MaxNodes)
	}
	switch filled.ReplicationFactor {
	case 1, 3, 5:
	default:
		complain("replication factor is %d, want 1, 3 or 5", c.ReplicationFactor)
	}
	if len(c.ClusterID) > catalog.MaxIDBytes {
		complain("cluster id is longer than %d bytes", catalog.MaxIDBytes)
	}
	if c.SessionTTL < 0 || c.LeaseTTL < 0 || c.ReplaceAfter < 0 {
		complain("session TTL, lease TTL and replace-after must not be negative")
	}
	if c.ReplaceAfter > 0 && c.ReplaceAfter < filled.SessionTTL {
		complain("replace-after is %s, less than the session TTL of %s", filled.ReplaceAfter, filled.SessionTTL)
	}
	return errors.Join(problems...)
}

func (c Config) withDefaults() Config {
	if c.BootstrapExpect == 0 {
		c.BootstrapExpect = DefaultBootstrapExpect
	}
	if c.ReplicationFactor == 0 {
		c.ReplicationFactor = DefaultReplicationFactor
	}
	if c.SessionTTL == 0 {
		c.SessionTTL = DefaultSessionTTL
	}
	if c.ReplaceAfter == 0 {
		c.ReplaceAfter = reconcile.DefaultReplaceAfter
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = lease.DefaultTTL
	}
	return c
}

func (c *Config) consensus(machine consensus.StateMachine) *consensus.Config {
	return &consensus.Config{
		ID:               c.ID,
		Dir:              c.DataDir,
		Peers:            c.Peers,
		Stream:           c.Stream,
		Machine:          machine,
		Logger:           c.Logger,
		HeartbeatTimeout: c.HeartbeatTimeout,
	}
}
