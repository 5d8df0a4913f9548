package remote

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
)

// Versions of the protocol that this program speaks.
const (
	minVersion = 1
	maxVersion = 1
)

// maxMembers bounds the addresses that a client knows, leaders it was pointed
// to included.
const maxMembers = 32

// Conn is a connection to one member. *grpc.ClientConn is one.
type Conn interface {
	grpc.ClientConnInterface
	Close() error
}

// Options configure a Client. Addresses and Dial are required; other zero
// fields take the defaults named there.
type Options struct {
	// Addresses of the members of the control plane, in the order they are
	// asked.
	Addresses []string
	// Dial makes a connection to the member at an address. It does not wait for
	// it. The client closes it when it has failed, and dials again.
	Dial func(address string) (Conn, error)
	// ClusterID is the caller's cluster. When it is empty, it is that of the
	// first table.
	ClusterID string
	// Patience is how long Table, without any table yet, and Session go on
	// asking before they return rpc.ErrUnavailable. Default 2 s.
	Patience time.Duration
	// AttemptTimeout is how long one member may be silent before another one is
	// asked. It is more than the second that a member may hold a session.
	// Default 3 s.
	AttemptTimeout time.Duration
	// BackoffMin and BackoffMax bound the wait after all members have failed: it
	// doubles from one to the other, and half of it is random. Defaults 50 ms
	// and 500 ms.
	BackoffMin, BackoffMax time.Duration
	// Logger is told when the watch is lost and back. Default: nobody.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	set(&o.Patience, 2*time.Second)
	set(&o.AttemptTimeout, 3*time.Second)
	set(&o.BackoffMin, 50*time.Millisecond)
	set(&o.BackoffMax, 500*time.Millisecond)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if len(o.Addresses) == 0 || len(o.Addresses) > maxMembers {
		errs = append(errs, fmt.Errorf("there must be 1 to %d addresses", maxMembers))
	}
	if o.Dial == nil {
		errs = append(errs, errors.New("there is no way to dial"))
	}
	if o.Patience < 0 || o.AttemptTimeout < 0 {
		errs = append(errs, errors.New("timeouts must not be negative"))
	}
	if o.BackoffMin < 0 || o.BackoffMax < o.BackoffMin {
		errs = append(errs, errors.New("the backoff must rise"))
	}
	return errors.Join(errs...)
}

// ServerOptions configure a Server. Zero fields take the defaults named there.
type ServerOptions struct {
	// Heartbeat is how often a watch without news says that it is alive, and how
	// often its member is asked whether it still knows a leader. Default 1 s.
	Heartbeat time.Duration
	// UpdateGap is the least time between two tables on a watch, so that a burst
	// of changes travels as few. Default 20 ms.
	UpdateGap time.Duration
	// MaxWatches and MaxSessions bound the calls at a time; calls about leases
	// are bounded like sessions. Defaults 4,096 each.
	MaxWatches, MaxSessions int
	// MaxSession bounds one session, whatever its own deadline. Default 10 s.
	MaxSession time.Duration
}

func (o ServerOptions) withDefaults() ServerOptions {
	set(&o.Heartbeat, time.Second)
	set(&o.UpdateGap, 20*time.Millisecond)
	set(&o.MaxWatches, 4096)
	set(&o.MaxSessions, 4096)
	set(&o.MaxSession, 10*time.Second)
	return o
}

func set[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
