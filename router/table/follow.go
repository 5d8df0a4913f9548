package table

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	data "github.com/fastpaca/fastpaca/dataplane/rpc"
)

var errForeign = errors.New("control plane answered for another cluster")

// follow polls the control plane until ctx ends. It is the only goroutine that
// stores views.
func (t *Table) follow(ctx context.Context) {
	defer close(t.done)
	failures := 0
	for ctx.Err() == nil {
		fresh, err := t.poll(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			if failures == 1 {
				t.cfg.Log.Warn("placement table cannot be followed, serving the last one", "version", t.Version(), "error", err)
			}
			t.pause(ctx, failures)
		case !fresh:
			// The poll came back before its time with nothing new. A control
			// plane that does so in a row must not turn this into a busy loop.
			t.pause(ctx, 1)
		default:
			if failures > 0 {
				t.cfg.Log.Info("placement table is followed again", "version", t.Version(), "failed_polls", failures)
			}
			failures = 0
		}
	}
}

// poll waits once for a newer table and installs it. It reports false when the
// control plane answered early without a newer one.
func (t *Table) poll(ctx context.Context) (fresh bool, err error) {
	pollCtx, cancel := context.WithTimeout(ctx, t.cfg.PollTimeout)
	defer cancel()
	after := t.Version()
	table, err := t.cfg.Control.Table(pollCtx, after)
	quiet := pollCtx.Err() != nil // the whole wait passed
	switch {
	case err != nil && quiet && errors.Is(err, context.DeadlineExceeded):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("poll after version %d: %w", after, err)
	case table == nil:
		return false, fmt.Errorf("poll after version %d: no table in the answer", after)
	}
	return t.install(table, quiet)
}

// install makes the table the served one if it is newer. A lower version comes
// from a control member that lags; another cluster's table is refused.
func (t *Table) install(table *control.Table, quiet bool) (fresh bool, err error) {
	current := t.view.Load()
	if current != nil {
		if table.ClusterID != current.cluster {
			return false, fmt.Errorf("%w: %q instead of %q", errForeign, table.ClusterID, current.cluster)
		}
		if table.Version <= current.version {
			return quiet, nil
		}
	}
	if len(table.Groups) == 0 { // nothing is placed yet
		return quiet, nil
	}
	next, err := newView(table)
	if err != nil {
		return false, err
	}
	t.view.Store(next)
	t.dropOutdated(next)
	t.tellMoved(next)
	if current == nil {
		close(t.ready)
		t.cfg.Log.Info("placement table arrived", "version", next.version, "nodes", len(next.nodes))
	}
	return true, nil
}

// tellMoved tells who lost which groups since a leader of theirs was named last.
func (t *Table) tellMoved(v *view) {
	from := make(map[data.Group]control.NodeID)
	for g := range v.routes {
		was, is := t.led[g], v.routes[g].LeaderID()
		if is == "" || is == was {
			continue
		}
		if t.led[g] = is; was != "" {
			from[data.Group(g)] = was
		}
	}
	if tell := t.moved.Load(); tell != nil && len(from) > 0 {
		(*tell)(from)
	}
}

// pause waits after the nth failure in a row: half to all of a doubling bound.
func (t *Table) pause(ctx context.Context, n int) {
	bound := t.cfg.BackoffMax
	if shift := n - 1; shift < 16 {
		bound = min(bound, t.cfg.BackoffMin<<shift)
	}
	timer := time.NewTimer(bound/2 + rand.N(bound/2+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
