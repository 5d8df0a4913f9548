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
	var rest resting
	for ctx.Err() == nil {
		if a.health.failing(time.Now()) > a.opts.resignAfter {
			if !a.resign(ctx, ttl, rest.next(a.totals.batches.Load())) {
				return
			}
		}
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

// resign gives the leases back, because others may be able to write what this
// node cannot, and returns true when it may ask for leases again: after a rest,
// and once the archive answers.
func (a *Archiver) resign(ctx context.Context, ttl, rest time.Duration) bool {
	a.resigned.Store(true)
	a.trusted.Store(nil)
	for i := range a.trackers {
		a.trackers[i].drop()
	}
	err := a.giveBack(ctx, ttl/renewals)
	a.log.Warn("archive could not be written for long, leases are given back", "for", a.opts.resignAfter, "rest", rest, "error", err)
	return pause(ctx, rest) && a.prepare(ctx)
}

// giveBack gives the leases back; if that fails, they expire.
func (a *Archiver) giveBack(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := a.opts.Leases.Lease(ctx, &controlrpc.LeaseRequest{Node: a.opts.Node, Incarnation: a.opts.Incarnation, Release: true})
	return err
}

// Resigned reports whether the archive could not be written from here for so
// long that this node archives nothing: others should lead what it leads.
func (a *Archiver) Resigned() bool { return a.resigned.Load() }

// resting tells how long to rest after the leases were given back: not at all at
// first, for an archive that answers is asked for leases at once; longer and
// longer while it answers and cannot be written.
type resting struct {
	began   bool
	batches uint64 // written before the last rest
	last    time.Duration
}

func (r *resting) next(batches uint64) time.Duration {
	if !r.began || batches > r.batches {
		r.last = 0
	} else {
		r.last = min(max(2*r.last, restMin), restMax)
	}
	r.began, r.batches = true, batches
	return r.last
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
			a.resigned.Store(false)
			a.log.Info("archive is ready", "archive", a.opts.Store.Target())
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !errors.Is(err, errNoCluster) {
			a.health.store(a.log, err)
			if a.health.failing(time.Now()) > a.opts.resignAfter {
				a.resigned.Store(true)
			}
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
