package archiver

import (
	"context"
	"errors"
	"time"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Leases are renewed renewals times per TTL; between failures the wait is a
// quarter of that.
const (
	renewals = 3
	// firstTTL stands in until a reply has told.
	firstTTL = 6 * time.Second
)

var errNoCluster = errors.New("this node has not joined a cluster yet")

// runLeases makes the archive ready and then holds the leases. A node whose
// archive cannot be used asks for none, so that others get them.
func (a *Archiver) runLeases(ctx context.Context) {
	if !a.prepare(ctx) {
		return
	}
	close(a.ready)
	ttl := firstTTL
	for ctx.Err() == nil {
		wait := ttl / renewals
		reply, err := a.renewOnce(ctx, ttl)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.health.leases(a.log, err)
			wait /= 4
		default:
			a.health.leases(a.log, nil)
			if reply.TTL > 0 {
				ttl = reply.TTL
				wait = ttl / renewals
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-a.renew:
			// The reason may last a moment: do not ask in a circle.
			pause(ctx, min(ttl/(4*renewals), time.Second))
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// prepare returns true once the archive can be written.
func (a *Archiver) prepare(ctx context.Context) bool {
	var retry backoff
	for {
		err := errNoCluster
		if id := a.opts.Cluster(); id != "" {
			err = a.opts.Store.Prepare(ctx, id)
		}
		if err == nil {
			a.health.store(a.log, nil)
			a.log.Info("archive is ready", "archive", a.opts.Store.Target())
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !errors.Is(err, errNoCluster) {
			a.health.store(a.log, err)
		}
		if !retry.wait(ctx) {
			return false
		}
	}
}

// renewOnce asks for leases. They are trusted from before the request was sent.
func (a *Archiver) renewOnce(ctx context.Context, ttl time.Duration) (*controlrpc.LeaseReply, error) {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, ttl/renewals)
	defer cancel()
	reply, err := a.opts.Leases.Lease(ctx, &controlrpc.LeaseRequest{Node: a.opts.Node, Incarnation: a.opts.Incarnation})
	if err != nil {
		return nil, err
	}
	until := asked.Add(reply.TTL)
	if !a.trust() {
		// Nothing may count on the old leases from before the new ones are known.
		a.trusted.Store(nil)
	}
	var held [rpc.Groups]uint64
	for _, l := range reply.Leases {
		if int(l.Group) < rpc.Groups {
			held[l.Group] = l.Epoch
		}
	}
	fresh := false
	for i := range a.trackers {
		if held[i] == 0 {
			if a.trackers[i].tracking.Load() {
				a.trackers[i].drop()
			}
			continue
		}
		fresh = a.trackers[i].hold(held[i]) || fresh
	}
	a.trusted.Store(&until)
	if fresh {
		kick(a.scan)
	}
	kick(a.work)
	return reply, nil
}

// trust reports whether the leases are known to be ours at this moment.
func (a *Archiver) trust() bool {
	until := a.trusted.Load()
	return until != nil && time.Now().Before(*until)
}

// mine reports whether this node may archive a group under a lease of the given
// epoch now, and returns its replica. It works only where the group is led: the
// control plane moves the lease after the leadership.
func (a *Archiver) mine(id rpc.Group, epoch uint64) (Group, bool) {
	if !a.trust() || epoch == 0 {
		return nil, false
	}
	t := &a.trackers[id]
	t.mu.Lock()
	current := t.epoch
	t.mu.Unlock()
	if current != epoch {
		return nil, false
	}
	g := a.opts.Group(id)
	return g, g != nil && g.Leading()
}
