package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/transport"
)

// Config is everything a data node is started with.
type Config struct {
	// ID names the node for ever; it is also its Raft server id.
	ID string
	// Dir holds everything the node stores.
	Dir string
	// Advertise is the address at which peers and routers reach the node.
	Advertise string
	// Zone is the failure domain the node stands in, or empty.
	Zone string
	// Version of the program, shown to operators.
	Version string
	// QueueBytes bounds the writes waiting in all groups together.
	QueueBytes int64
	// Dial reaches the Raft transport of other nodes; without it the node stays
	// alone. What other nodes dial is handed to Node.ServeRaft.
	Dial transport.DialFunc
	// Joined, when not nil, is told the cluster's id as soon as the node knows
	// it, and again after every restart. An error ends the session's attempt.
	Joined func(clusterID string) error
	// Timing of elections and idle traffic.
	Timing group.Timing
	// Control is the control plane the node holds a session with.
	Control rpc.ControlPlane
	// Archive, when not nil, keeps the full history.
	Archive *ArchiveConfig
	// Measure and Tracer, when not nil, observe the replicas; see package group.
	Measure group.Measure
	Tracer  trace.Tracer
	Logger  *slog.Logger
}

// DefaultConfig returns the documented defaults; ID, Dir, Control and Logger
// have none.
func DefaultConfig() Config {
	return Config{QueueBytes: 256 << 20, Timing: group.DefaultTiming()}
}

// Validate reports every problem at once.
func (c *Config) Validate() error {
	var errs []error
	if c.ID == "" || len(c.ID) > 64 || strings.ContainsAny(c.ID, " \t\n/,=") {
		errs = append(errs, fmt.Errorf("node id %q: want 1 to 64 characters without spaces, '/', ',' or '='", c.ID))
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("data directory is empty"))
	}
	if c.Advertise != "" {
		if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
			errs = append(errs, fmt.Errorf("advertise address: %w", err))
		}
	}
	if c.QueueBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("queue bytes %d: want at least 1 MiB", c.QueueBytes))
	}
	if c.Control == nil || c.Logger == nil {
		errs = append(errs, errors.New("control plane and logger are required"))
	}
	if c.Archive != nil && (c.Archive.Store == nil || c.Archive.Leases == nil) {
		errs = append(errs, errors.New("an archive needs a store and leases"))
	}
	return errors.Join(errs...)
}
