package member

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func leaseOf(id string) *rpc.LeaseRequest {
	return &rpc.LeaseRequest{Node: rpc.NodeID(id), Incarnation: id + "-first"}
}

// mustHold calls until a node holds so many leases.
func mustHold(t testing.TB, s *Server, id string, count int) []rpc.Lease {
	t.Helper()
	ctx := testContext(t)
	for {
		reply, err := s.Lease(ctx, leaseOf(id))
		require.NoError(t, err)
		if len(reply.Leases) == count {
			return reply.Leases
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			require.FailNow(t, "no such leases", "%d instead of %d", len(reply.Leases), count)
		}
	}
}

// ledBy returns a member with one data node that leads all groups.
func ledBy(t testing.TB, cfg Config, id string) (*Server, *dataNode) {
	t.Helper()
	s := mustOpen(t, cfg)
	node := newDataNode(id)
	node.mustBePlaced(t, s)
	node.form(1)
	node.mustCall(t, s)
	return s, node
}

func TestLeasesAreGrantedRenewedAndReleased(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	s, _ := ledBy(t, cfg, "d1")
	mustTableWhere(t, s, allLed)
	reply, err := s.Lease(testContext(t), leaseOf("d1"))
	require.NoError(t, err)
	require.Len(t, reply.Leases, catalog.Groups, "the first call gets them")
	require.Equal(t, 10*time.Second, reply.TTL)
	// Grants follow the table in which all groups are formed.
	table := mustTable(t, s, 0)

	index := s.catalog.State().Index
	for range 10 {
		again, err := s.Lease(testContext(t), leaseOf("d1"))
		require.NoError(t, err)
		require.Equal(t, reply, again)
	}
	require.Equal(t, index, s.catalog.State().Index, "renewals are not written")

	release := leaseOf("d1")
	release.Release = true
	for range 2 {
		released, err := s.Lease(testContext(t), release)
		require.NoError(t, err)
		require.Empty(t, released.Leases)
	}
	require.Empty(t, s.catalog.State().Lease(7).Holder)
	again := mustHold(t, s, "d1", catalog.Groups)
	require.EqualValues(t, 2, again[7].Epoch)
	require.Equal(t, table.Version, mustTable(t, s, 0).Version, "leases are no news for routers")

	// Grants survive a restart. Nobody else gets them before they run out.
	require.NoError(t, s.Close())
	s = mustOpen(t, cfg)
	require.Equal(t, again, mustHold(t, s, "d1", catalog.Groups))
}

func TestLeaseRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	s, _ := ledBy(t, singleConfig(t.TempDir()), "d1")
	for name, test := range map[string]struct {
		req  *rpc.LeaseRequest
		want error
	}{
		"nothing":        {nil, rpc.ErrInvalid},
		"no node":        {&rpc.LeaseRequest{Incarnation: "i"}, rpc.ErrInvalid},
		"no incarnation": {&rpc.LeaseRequest{Node: "d1"}, rpc.ErrInvalid},
		"bad text":       {&rpc.LeaseRequest{Node: "d1", Incarnation: "a b"}, rpc.ErrInvalid},
		"stranger":       {leaseOf("d9"), rpc.ErrUnavailable},
	} {
		_, err := s.Lease(testContext(t), test.req)
		require.ErrorIs(t, err, test.want, name)
	}
	require.Empty(t, s.catalog.State().Leases)
	require.NoError(t, s.Close())
	_, err := s.Lease(testContext(t), leaseOf("d1"))
	require.ErrorIs(t, err, rpc.ErrClosed)
}

// Two data directories of one node: the second one gets the leases when the
// first cannot trust them any more, with a higher epoch.
func TestTwoHoldersInOneNodesName(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.LeaseTTL = 200 * time.Millisecond
	s, _ := ledBy(t, cfg, "d1")
	mustHold(t, s, "d1", catalog.Groups)
	ctx := testContext(t)
	second := &rpc.LeaseRequest{Node: "d1", Incarnation: "d1-second"}
	for reply := new(rpc.LeaseReply); len(reply.Leases) == 0; {
		var err error
		reply, err = s.Lease(ctx, second)
		require.NoError(t, err)
		if len(reply.Leases) > 0 {
			require.Greater(t, reply.Leases[0].Epoch, uint64(1))
		}
	}
	reply, err := s.Lease(ctx, leaseOf("d1"))
	require.NoError(t, err)
	require.Empty(t, reply.Leases, "the first one comes too late")
}

// Goal: the control leader dies while archivers renew. Leases stay with their
// holders at the next leader, with the same epochs; a deposed leader confirms
// nothing.
func TestLeasesOutliveTheControlLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	for _, id := range []string{"d1", "d2", "d3"} {
		node := newDataNode(id)
		serving.Go(func() { node.serve(ctx, c.controls) })
	}
	defer serving.Wait()
	defer cancel()
	ids := []string{"d1", "d2", "d3"}
	hold := func(s *Server) map[uint16]uint64 {
		epochs := map[uint16]uint64{}
		for _, id := range ids {
			reply, err := s.Lease(testContext(t), leaseOf(id))
			if err != nil {
				return nil
			}
			for _, lease := range reply.Leases {
				require.NotContains(t, epochs, lease.Group)
				epochs[lease.Group] = lease.Epoch
			}
		}
		return epochs
	}
	var old *Server
	var before map[uint16]uint64
	require.Eventually(t, func() bool {
		old = c.leader()
		before = hold(old)
		return len(before) == catalog.Groups
	}, patience, 10*time.Millisecond)
	for _, s := range c.running() {
		if s != old {
			_, err := s.Lease(testContext(t), leaseOf("d1"))
			require.ErrorIs(t, err, rpc.ErrUnavailable)
		}
	}
	c.kill(old.cfg.ID)
	var after map[uint16]uint64
	require.Eventually(t, func() bool {
		after = hold(c.leader())
		return len(after) == catalog.Groups
	}, patience, 10*time.Millisecond)
	require.Equal(t, before, after)
}

// A leader that did not run for a while proves that it leads before it confirms
// anything.
func TestPausedLeaderDoubtsItself(t *testing.T) {
	t.Parallel()
	s, _ := ledBy(t, singleConfig(t.TempDir()), "d1")
	mustHold(t, s, "d1", catalog.Groups)
	tenure, _ := s.tenure.get()
	index := s.consensus.Status().LastIndex
	tenure.mu.Lock()
	tenure.beat = time.Now().Add(-2 * pauseBound)
	tenure.mu.Unlock()
	mustHold(t, s, "d1", catalog.Groups)
	require.Greater(t, s.consensus.Status().LastIndex, index, "an entry was committed")
	index = s.consensus.Status().LastIndex
	mustHold(t, s, "d1", catalog.Groups)
	require.Equal(t, index, s.consensus.Status().LastIndex, "once is enough")
}
