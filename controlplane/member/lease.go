package member

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/consensus"
	"github.com/fastpaca/fastpaca/controlplane/lease"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

const (
	// firstLeaseWait is how long the first call of a node waits for leases, so
	// that it need not call again to get them.
	firstLeaseWait = 500 * time.Millisecond
	// releaseTries bounds how often a release is proposed when leases change
	// under it.
	releaseTries = 3
	// pauseBound is for how long this process may not have run before it doubts
	// that it still leads. While it runs, Raft makes it step down in time.
	pauseBound = 2 * time.Second
)

var _ rpc.Leases = (*Server)(nil)

// Lease implements rpc.Leases. A renewal writes nothing: the leader remembers it
// and makes sure that it leads still.
func (s *Server) Lease(ctx context.Context, req *rpc.LeaseRequest) (*rpc.LeaseReply, error) {
	arrived := time.Now()
	if err := validateLease(req); err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	t, err := s.leading(ctx)
	if err == nil {
		err = registered(s.catalog.State(), req.Node)
	}
	if err == nil && req.Release {
		err = s.releaseLeases(ctx, t, req, arrived)
	}
	var held []rpc.Lease
	if err == nil && !req.Release {
		held, err = s.holdLeases(ctx, t, req)
	}
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	return &rpc.LeaseReply{Leases: held, TTL: s.cfg.LeaseTTL}, nil
}

func registered(state *catalog.State, id rpc.NodeID) error {
	switch node, known := state.Nodes[id]; {
	case !known:
		return fmt.Errorf("%w: node %q is not registered", rpc.ErrUnavailable, id)
	case node.State == catalog.NodeRemoved:
		return fmt.Errorf("%w: %q", rpc.ErrRemoved, id)
	}
	return nil
}

func validateLease(req *rpc.LeaseRequest) error {
	switch {
	case req == nil:
		return fmt.Errorf("%w: there is no request", rpc.ErrInvalid)
	case req.Node == "" || len(req.Node) > catalog.MaxIDBytes:
		return fmt.Errorf("%w: node id of %d bytes", rpc.ErrInvalid, len(req.Node))
	case !catalog.ValidID(req.Incarnation):
		return fmt.Errorf("%w: incarnation of node %q", rpc.ErrInvalid, req.Node)
	}
	return nil
}

// holdLeases returns what a node holds. One that has just begun to ask waits a
// moment for its first leases.
func (s *Server) holdLeases(ctx context.Context, t *tenure, req *rpc.LeaseRequest) ([]rpc.Lease, error) {
	_, changed := s.catalog.Watch()
	held, fresh, doubt := t.confirm(s.catalog, req)
	if fresh {
		t.wake()
	}
	if fresh && len(held) == 0 {
		patience := time.NewTimer(firstLeaseWait)
		defer patience.Stop()
		select {
		case <-changed:
		case <-patience.C:
		case <-ctx.Done():
		case <-t.done:
		case <-s.ctx.Done():
		}
		held, _, doubt = t.confirm(s.catalog, req)
	}
	return held, s.stillLeading(ctx, t, doubt)
}

// stillLeading asks a quorum whether a tenure lasts. A leader that was cut off
// must not confirm what its successor may have given to another. The answer to a
// heartbeat that was sent before counts too; after a pause, which doubt numbers,
// that could be an old one, so then an entry is committed.
func (s *Server) stillLeading(ctx context.Context, t *tenure, doubt uint64) error {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	if doubt > 0 {
		if err := s.consensus.Barrier(ctx); err != nil {
			return s.doubted(err)
		}
	}
	term, err := s.consensus.Verify(ctx)
	if err == nil && term != t.term {
		return s.over()
	}
	if err != nil {
		return s.doubted(err)
	}
	t.resume(doubt)
	return nil
}

// doubted is the error of a leader that could not prove that it leads.
func (s *Server) doubted(err error) error {
	switch {
	case errors.Is(err, consensus.ErrNotLeader):
		return s.over()
	case errors.Is(err, consensus.ErrClosed):
		return fmt.Errorf("%w: %w", rpc.ErrClosed, err)
	}
	return fmt.Errorf("%w: %w", rpc.ErrUnavailable, err)
}

// releaseLeases takes back what a node gives up, so that others get it at once.
func (s *Server) releaseLeases(ctx context.Context, t *tenure, req *rpc.LeaseRequest, arrived time.Time) error {
	for range releaseTries {
		given := t.release(s.catalog, req, arrived)
		if len(given) == 0 {
			return nil
		}
		result, err := s.propose(ctx, &catalog.ReleaseLeases{Node: req.Node, Incarnation: req.Incarnation, Leases: given})
		switch {
		case err != nil:
			return err
		case result.Err == nil:
			s.logger.Info("archiver leases released", "node", req.Node, "leases", len(given))
			return nil
		case !errors.Is(result.Err, catalog.ErrStale):
			return fmt.Errorf("%w: %w", rpc.ErrUnavailable, result.Err)
		}
	}
	return fmt.Errorf("%w: leases change too fast", rpc.ErrUnavailable)
}

// grantLeases commits the grants that are due. It returns whether there were any.
func (s *Server) grantLeases(t *tenure) (bool, error) {
	command := t.nextLeases(s.catalog)
	if command == nil {
		return false, nil
	}
	if err := s.take("grant leases", command); err != nil {
		return true, err
	}
	counts := make(map[rpc.NodeID]int)
	for _, grant := range command.Grants {
		counts[grant.Node]++
	}
	s.logger.Info("archiver leases granted", "leases", counts)
	return true, nil
}

// confirm is lease.Book.Confirm of this moment's state. doubt is the number of the
// last pause of this process, 0 when it has proven since that it leads.
func (t *tenure) confirm(c *catalog.Catalog, req *rpc.LeaseRequest) (held []rpc.Lease, fresh bool, doubt uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.tick(now)
	held, fresh = t.leases.Confirm(c.State(), req.Node, req.Incarnation, now)
	if t.proven < t.pauses {
		doubt = t.pauses
	}
	return held, fresh, doubt
}

// tick notes that this process runs, and whether it has not for a while. It is
// called with mu held, much more often than pauseBound: by the goroutine that
// leads and with every renewal.
func (t *tenure) tick(now time.Time) {
	if now.Sub(t.beat) > pauseBound {
		t.pauses++
	}
	t.beat = now
}

// resume ends the doubt of a pause.
func (t *tenure) resume(doubt uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.proven = max(t.proven, doubt)
}

func (t *tenure) release(c *catalog.Catalog, req *rpc.LeaseRequest, arrived time.Time) []rpc.Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leases.Release(c.State(), req.Node, req.Incarnation, arrived)
}

func (t *tenure) nextLeases(c *catalog.Catalog) *catalog.GrantLeases {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tick(time.Now())
	var leaders [catalog.Groups]rpc.NodeID
	for number, hint := range t.leaders {
		leaders[number] = hint.node
	}
	return t.leases.Next(lease.View{State: c.State(), Leaders: &leaders, Now: time.Now()})
}
