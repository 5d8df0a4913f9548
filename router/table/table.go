package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	data "github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Defaults of Config.
const (
	PollTimeoutDefault = 30 * time.Second
	BackoffMinDefault  = 50 * time.Millisecond
	BackoffMaxDefault  = 2 * time.Second
)

// ErrNotReady: no placement table has arrived yet.
var ErrNotReady = errors.New("placement table has not arrived yet")

// Config configures a Table.
type Config struct {
	// Control is where the table comes from. Required.
	Control control.ControlPlane
	// Log receives one line when the control plane becomes unreachable and one
	// when it is back. Required.
	Log *slog.Logger
	// PollTimeout bounds one wait for a newer table. Defaults to
	// PollTimeoutDefault.
	PollTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause after a failed poll; the pause
	// doubles from one to the other and is jittered. They default to
	// BackoffMinDefault and BackoffMaxDefault.
	BackoffMin time.Duration
	BackoffMax time.Duration
}

func (c *Config) withDefaults() {
	if c.PollTimeout == 0 {
		c.PollTimeout = PollTimeoutDefault
	}
	if c.BackoffMin == 0 {
		c.BackoffMin = BackoffMinDefault
	}
	if c.BackoffMax == 0 {
		c.BackoffMax = BackoffMaxDefault
	}
}

// Validate checks the configuration and joins everything that is wrong with it.
func (c *Config) Validate() error {
	var errs []error
	if c.Control == nil {
		errs = append(errs, errors.New("control plane is missing"))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("logger is missing"))
	}
	if c.PollTimeout < 0 || c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin {
		errs = append(errs, errors.New("poll timeout and backoff must be positive, and the largest backoff not below the smallest"))
	}
	return errors.Join(errs...)
}

// Table is a cached placement table. All methods may be called from any
// goroutine.
//
// Goroutines: follow (the only writer of view), from Open to Close.
type Table struct {
	cfg    Config
	view   atomic.Pointer[view]
	cancel context.CancelFunc
	done   chan struct{} // closed when follow has returned
	ready  chan struct{} // closed by follow with the first placed table

	moved atomic.Pointer[func(map[data.Group]control.NodeID)]
	led   [data.Groups]control.NodeID // who was named last to lead; owned by follow
	// corrections holds at most one correction per group.
	corrections [data.Groups]atomic.Pointer[correction]
}

// Open starts following the control plane and returns at once; wait for Ready
// before the first Lookup. Close stops it.
func Open(cfg Config) (*Table, error) {
	cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("placement table: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &Table{
		cfg:    cfg,
		cancel: cancel,
		done:   make(chan struct{}),
		ready:  make(chan struct{}),
	}
	go t.follow(ctx)
	return t, nil
}

// Close stops following and waits for it. Lookups keep answering from the last
// table.
func (t *Table) Close() {
	t.cancel()
	<-t.done
}

// Ready is closed once a table in which the groups are placed has arrived.
func (t *Table) Ready() <-chan struct{} { return t.ready }

// Check returns ErrNotReady until Ready is closed, and nil from then on, also
// while the control plane is unreachable.
func (t *Table) Check(context.Context) error {
	if t.view.Load() == nil {
		return ErrNotReady
	}
	return nil
}

// OnMove has f told, each time a newer table arrives, which groups have another
// leader than the table before named, and who that was. f is called on the
// goroutine that follows the control plane and must be quick. The last f counts.
func (t *Table) OnMove(f func(from map[data.Group]control.NodeID)) { t.moved.Store(&f) }

// Version is the version of the table being served, or 0 before the first.
func (t *Table) Version() uint64 {
	if v := t.view.Load(); v != nil {
		return v.version
	}
	return 0
}

// Knows reports whether the table being served lists the node.
func (t *Table) Knows(id control.NodeID) bool {
	v := t.view.Load()
	return v != nil && v.nodes[id] != nil
}

// Lookup returns the route to a group. It reports false before the first table
// and for a number that is no group. It takes no lock and allocates nothing.
func (t *Table) Lookup(g data.Group) (Route, bool) {
	v := t.view.Load()
	if v == nil || int(g) >= len(v.routes) {
		return Route{}, false
	}
	route := v.routes[g]
	if c := t.corrections[g].Load(); c != nil && c.instead == route.LeaderID() {
		if leader := route.replica(c.leader); leader != nil {
			route.Leader = leader
		}
	}
	return route, true
}
