package remote

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/controlplane/rpc/remote/pb"
)

// watch keeps the table current until the client is closed.
func (c *Client) watch() {
	pace := rounds{members: c.members, min: c.opts.BackoffMin, max: c.opts.BackoffMax}
	lost := false
	for c.life.Err() == nil {
		who, err := c.members.target()
		if err == nil {
			began := time.Now()
			err = c.follow(who, func() {
				if lost {
					lost = false
					c.opts.Logger.Info("watch of the control plane is back", slog.String("member", who.address))
				}
			})
			if time.Since(began) > c.opts.BackoffMax {
				// One that ends sooner is no success, or members that begin
				// well and go wrong would be asked without a pause.
				pace.reset()
			}
		}
		if c.life.Err() != nil {
			return
		}
		f := failureOf(err)
		if f.broken || f.final {
			// Where nobody leads this happens all the time, and is not told.
			c.opts.Logger.Debug("watch ended", slog.String("member", who.address), slog.Any("error", f.err))
		}
		if !lost && pace.tries+1 >= c.members.count() {
			lost = true
			c.opts.Logger.Warn("no member of the control plane serves the table",
				slog.String("member", who.address), slog.Any("error", f.err))
		}
		c.failed(who, f)
		pace.pause(c.life)
	}
}

// follow takes in the tables of one member until its stream ends, and returns
// why. began is called when the member has begun to answer.
func (c *Client) follow(who member, began func()) error {
	ctx, cancel := context.WithCancelCause(c.life)
	defer cancel(nil)
	silence := time.AfterFunc(c.opts.AttemptTimeout, func() { cancel(errSilent) })
	defer silence.Stop()
	after, cluster := c.have()
	stream, err := pb.NewControlPlaneClient(who.conn).Watch(ctx, &pb.WatchRequest{
		Versions: spoken(), After: after, ClusterId: cluster,
	})
	if err != nil {
		return err
	}
	for heard := false; ; heard = true {
		update, err := stream.Recv()
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return fmt.Errorf("%w: %w", cause, err)
		}
		if err != nil {
			return err
		}
		silence.Reset(c.opts.AttemptTimeout)
		if !heard {
			began()
		}
		if update.GetTable() == nil {
			continue
		}
		table, err := tableFromWire(update.GetTable())
		if err == nil {
			err = c.take(table)
		}
		if err != nil {
			return err
		}
	}
}

// have is what the client tells a member of itself.
func (c *Client) have() (after uint64, cluster string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cluster = c.opts.ClusterID
	if c.table != nil {
		after, cluster = c.table.Version, c.table.ClusterID
	}
	return after, cluster
}

// take makes a table the newest, if it is.
func (c *Client) take(table *rpc.Table) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cluster := c.opts.ClusterID
	if c.table != nil {
		cluster = c.table.ClusterID
	}
	if cluster != "" && table.ClusterID != cluster {
		return fmt.Errorf("%w: a table of %q, not %q", rpc.ErrWrongCluster, table.ClusterID, cluster)
	}
	if c.table != nil && table.Version <= c.table.Version {
		return nil
	}
	c.table = table
	close(c.news)
	c.news = make(chan struct{})
	return nil
}
