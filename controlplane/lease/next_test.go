package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// led returns a simulation in which nodes lead the groups in turn.
func led(t *testing.T, nodes int) *sim {
	s := newSim(t, nodes)
	for number := range testGroups {
		s.leaders[number] = s.nodes[number%nodes].id
	}
	return s
}

func TestLeaderArchivesAtOnce(t *testing.T) {
	t.Parallel()
	s := led(t, 3)
	s.run(time.Millisecond, s.nodes...)
	for number := range uint16(testGroups) {
		id, epoch := s.holder(number)
		require.Equal(t, s.leaders[number], id)
		require.EqualValues(t, 1, epoch)
	}
	index := s.state.Index
	s.run(10*testTTL, s.nodes...)
	require.Equal(t, index, s.state.Index, "renewals are not written")
	require.Zero(t, s.state.Lease(testGroups), "a group without a place has no lease")
}

// Only nodes that ask get leases; the others' groups go to holders of a replica,
// evenly, once everybody has had the time to ask.
func TestOnlyThoseWhoAsk(t *testing.T) {
	t.Parallel()
	s := newSim(t, 4)
	for number := range testGroups {
		s.leaders[number] = "d1"
	}
	s.run(testTTL/gatherShare-time.Second, s.nodes[1], s.nodes[2], s.nodes[3])
	id, _ := s.holder(0)
	require.Empty(t, id, "the leader may still turn up")
	s.run(2*time.Second, s.nodes[1], s.nodes[2], s.nodes[3])
	counts := map[rpc.NodeID]int{}
	for number := range uint16(testGroups) {
		id, _ := s.holder(number)
		counts[id]++
	}
	require.Equal(t, map[rpc.NodeID]int{"d2": 2, "d3": 2}, counts, "d4 holds no replica")
}

// A second archiver takes its part from the first when neither leads.
func TestLeasesSpread(t *testing.T) {
	t.Parallel()
	s := newSim(t, 3)
	s.run(testTTL, s.nodes[0])
	require.Len(t, s.nodes[0].trust, testGroups)
	s.run(3*testTTL, s.nodes[0], s.nodes[1])
	require.Len(t, s.nodes[0].trust, testGroups/2)
	require.Len(t, s.nodes[1].trust, testGroups/2)
	index := s.state.Index
	s.run(10*testTTL, s.nodes[0], s.nodes[1])
	require.Equal(t, index, s.state.Index, "it comes to rest")
}

func TestLeaseFollowsTheLeader(t *testing.T) {
	t.Parallel()
	s := led(t, 3)
	s.run(testTTL, s.nodes...)
	s.leaders[0] = "d2"
	s.run(testTTL/settleShare-time.Second, s.nodes...)
	s.leaders[0] = "d1"
	s.run(testTTL, s.nodes...)
	_, epoch := s.holder(0)
	require.EqualValues(t, 1, epoch, "a leader of a moment is not followed")

	s.leaders[0] = "d2"
	s.run(testTTL/settleShare+time.Second, s.nodes...)
	require.NotContains(t, s.nodes[0].trust, uint16(0), "the old holder is told first")
	s.run(testTTL+testTTL/driftShare, s.nodes...)
	id, epoch := s.holder(0)
	require.Equal(t, rpc.NodeID("d2"), id)
	require.EqualValues(t, 2, epoch)
}

func TestSilentHolderLosesItsLeases(t *testing.T) {
	t.Parallel()
	s := led(t, 3)
	s.run(testTTL, s.nodes...)
	s.run(testTTL-time.Second, s.nodes[1], s.nodes[2])
	id, _ := s.holder(0)
	require.Equal(t, rpc.NodeID("d1"), id, "it trusts its lease as long as it may")
	s.run(testTTL, s.nodes[1], s.nodes[2])
	id, epoch := s.holder(0)
	require.Contains(t, []rpc.NodeID{"d2", "d3"}, id)
	require.EqualValues(t, 2, epoch)

	// The one that was paused wakes up with what it was told long ago.
	require.NotContains(t, s.renew(s.nodes[0]), rpc.Lease{Group: 0, Epoch: 1})
	s.check()
}

func TestReleaseGivesBackAtOnce(t *testing.T) {
	t.Parallel()
	s := led(t, 2)
	s.run(testTTL, s.nodes...)
	s.ask(s.nodes[0], true)
	s.deliver(0, false, false)
	s.commit(false)
	require.Zero(t, s.state.Lease(0).Holder)
	s.run(testTTL/10, s.nodes[1])
	id, epoch := s.holder(0)
	require.Equal(t, rpc.NodeID("d2"), id)
	require.EqualValues(t, 2, epoch)
}

// A release that was on its way for long does not take from a node what it was
// told since.
func TestBelatedReleaseIsIgnored(t *testing.T) {
	t.Parallel()
	s := led(t, 2)
	s.run(testTTL, s.nodes...)
	arrived := s.now.Add(-time.Second)
	require.Empty(t, s.book.Release(s.state, "d1", s.nodes[0].incarnation(), arrived))
	require.NotEmpty(t, s.renew(s.nodes[0]))
}

func TestAnotherIncarnationIsAnotherHolder(t *testing.T) {
	t.Parallel()
	s := led(t, 2)
	s.run(testTTL, s.nodes...)
	s.restart(s.nodes[0])
	require.Empty(t, s.renew(s.nodes[0]))
	s.run(testTTL-time.Second, s.nodes...)
	require.Empty(t, s.nodes[0].trust, "its former life may still run")
	s.run(2*time.Second, s.nodes...)
	require.Equal(t, trusted{2, s.now.Add(testTTL)}, s.nodes[0].trust[0])
}

// A new control leader confirms what holders have, and takes nothing from one it
// has not heard of before a TTL has passed.
func TestControlLeaderChange(t *testing.T) {
	t.Parallel()
	s := led(t, 3)
	s.run(testTTL, s.nodes...)
	s.failover(false)
	s.run(testTTL+testTTL/handoverShare-time.Second, s.nodes[1:]...)
	require.Equal(t, rpc.NodeID("d1"), s.state.Lease(0).Holder)
	require.EqualValues(t, 1, s.nodes[1].trust[1].epoch, "nothing changes for those that renew")
	s.run(3*time.Second, s.nodes[1:]...)
	require.NotEqual(t, rpc.NodeID("d1"), s.state.Lease(0).Holder)
}

// A leader that was deposed and has not noticed confirms a lease once more. Its
// successor takes that into account.
func TestDeposedLeaderConfirmsForAWhile(t *testing.T) {
	t.Parallel()
	s := led(t, 3)
	s.run(testTTL, s.nodes...)
	s.failover(false)
	s.run(testTTL/handoverShare-time.Second, s.nodes[1:]...)
	s.ask(s.nodes[0], false)
	s.deliver(0, false, true)
	s.deliver(0, false, false)
	require.Contains(t, s.nodes[0].trust, uint16(0))
	s.run(2*testTTL, s.nodes[1:]...)
	require.NotEqual(t, rpc.NodeID("d1"), s.state.Lease(0).Holder)
}

// A grant that the leader lost sight of is proposed again and happens once.
func TestGrantIsRepeated(t *testing.T) {
	t.Parallel()
	s := led(t, 1)
	s.renew(s.nodes[0])
	s.decide()
	s.decide()
	require.Len(t, s.pending, 2)
	require.NoError(t, s.apply(s.pending[0]).Err)
	require.ErrorIs(t, s.apply(s.pending[1]).Err, catalog.ErrStale)
	require.Len(t, s.renew(s.nodes[0]), testGroups)
}

func BenchmarkNext(b *testing.B) {
	s := newSim(b, 500)
	for _, a := range s.nodes {
		s.renew(a)
	}
	s.now = s.now.Add(testTTL / 2)
	b.ReportAllocs()
	for b.Loop() {
		s.book.Next(View{State: s.state, Leaders: &s.leaders, Now: s.now})
	}
}

// A holder that comes back while its lease is being given to another is not
// confirmed, whether the grant is committed yet or not.
func TestHolderReturnsTooLate(t *testing.T) {
	t.Parallel()
	s := led(t, 2)
	s.run(testTTL, s.nodes...)
	for range 15 {
		s.now = s.now.Add(testTTL / 10)
		s.renew(s.nodes[1])
	}
	s.decide()
	require.Len(t, s.pending, 1)
	require.Empty(t, s.renew(s.nodes[0]))
	s.commit(false)
	require.Len(t, s.renew(s.nodes[1]), testGroups)
	s.check()
}

// A holder whose clock is slow trusts its lease for longer than it should.
func TestSlowClock(t *testing.T) {
	t.Parallel()
	s := led(t, 2)
	s.nodes[0].slow = testTTL / driftShare
	s.run(testTTL, s.nodes...)
	s.run(2*testTTL, s.nodes[1])
	require.Equal(t, rpc.NodeID("d2"), s.state.Lease(0).Holder)
}
