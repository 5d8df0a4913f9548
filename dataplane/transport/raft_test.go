package transport

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Groups elect leaders by themselves, with pre-votes, and commit.
func TestRaftElectsAndCommits(t *testing.T) {
	t.Parallel()
	var preVotes atomic.Int32
	c := newCluster(t, clusterGroups, clusterHeartbeat, func(conf *Config) {
		conf.Observer.RoundTrip = func(_ string, lane Lane, operation string, _ time.Duration, err error) {
			if operation == "pre-vote" && lane == LaneElection && err == nil {
				preVotes.Add(1)
			}
		}
	})
	for g := range c.groups {
		c.apply(g, "hello", c.ids...)
	}
	for g := range c.groups {
		c.requireConverged(g, map[string]bool{c.apply(g, "again", c.ids...): true})
	}
	require.NotZero(t, preVotes.Load())
	for _, nd := range c.nodes {
		require.LessOrEqual(t, nd.Stats().Connections, 8, "two lanes to each peer, and spares at most")
	}
}

// A node dies without notice: its groups go on elsewhere, and it catches up
// when it returns at another address, without a configuration change.
func TestRaftSurvivesTheLossOfALeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterGroups, clusterHeartbeat, nil)
	c.elect("a")
	stop := c.load()
	before, without := make([]string, c.groups), make([]string, c.groups)
	for g := range c.groups {
		before[g] = c.apply(g, "before", c.ids...)
	}
	c.kill("a")
	for g := range c.groups {
		without[g] = c.apply(g, "without a", "b", "c")
	}
	c.restart("a")
	acked := stop()
	for g := range c.groups {
		acked[g][before[g]], acked[g][without[g]] = true, true
		c.requireConverged(g, acked[g])
	}
}

// An old leader is cut off under write load and returns to a newer term. This
// is the situation of hashicorp/raft issue 695: heartbeats of the new term meet
// a replica that is in the middle of something else.
func TestRaftOldLeaderReturnsUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterGroups, clusterHeartbeat, nil)
	c.elect("a")
	stop := c.load()
	for round := range 3 {
		old := c.ids[round%len(c.ids)]
		var rest []string
		for _, id := range c.ids {
			if id != old {
				rest = append(rest, id)
				c.net.partition(old, id)
			}
		}
		for g := range c.groups {
			c.apply(g, fmt.Sprintf("round %d", round), rest...)
		}
		for _, id := range rest {
			c.net.heal(old, id)
		}
		for g := range c.groups {
			c.apply(g, fmt.Sprintf("healed %d", round), c.ids...)
		}
	}
	acked := stop()
	for g := range c.groups {
		c.requireConverged(g, acked[g])
	}
}

// One group's main loop hangs in its disk on one node. Its heartbeats wait,
// the other groups' do not, and nobody loses leadership.
func TestRaftOneBlockedReplica(t *testing.T) {
	t.Parallel()
	// Patient, so that a busy machine does not cost anybody the leadership.
	c := newCluster(t, clusterGroups, 4*clusterHeartbeat, nil)
	c.elect("a")
	terms := make([]uint64, c.groups)
	for g := range c.groups {
		c.apply(g, "before", "a")
		terms[g] = c.replica("a", g).raft.CurrentTerm()
	}
	blocked := c.replica("b", 0)
	release := blocked.logs.hold()
	t.Cleanup(release) // or a failing test could not shut the replica down
	c.apply(0, "beyond b", "a")
	begin := c.nodes["a"].Stats().Election.FramesOut
	deadline := time.Now().Add(c.heartbeat * 3 / 2)
	for n := 0; time.Now().Before(deadline); n++ {
		for g := range c.groups {
			require.NoError(t, c.replica("a", g).apply(fmt.Sprintf("during %d", n)), "group %d", g)
		}
	}
	require.Greater(t, c.nodes["a"].Stats().Election.FramesOut, begin+uint64(c.groups), "heartbeats flow")
	for g := range c.groups {
		require.Equal(t, "a", c.leader(g, c.ids...))
		require.Equal(t, terms[g], c.replica("a", g).raft.CurrentTerm())
	}
	release()
	for g := range c.groups {
		c.requireConverged(g, nil)
	}
}

// A replica's instance is restarted in place under load.
func TestRaftRestartInPlace(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterGroups, clusterHeartbeat, nil)
	c.elect("a")
	stop := c.load()
	for g := range c.groups {
		id := c.ids[g%len(c.ids)] // leaders and followers
		r := c.replica(id, g)
		r.once.Do(r.stop)
		c.startReplica(id, g)
	}
	acked := stop()
	for g := range c.groups {
		c.requireConverged(g, acked[g])
	}
}

func TestRaftTransfersLeadership(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterGroups, clusterHeartbeat, nil)
	c.elect("a")
	for g := range c.groups {
		c.apply(g, "before", "a")
		require.NoError(t, c.replica("a", g).raft.LeadershipTransferToServer("b", "b").Error())
		eventually(t, func() bool { return c.leader(g, c.ids...) == "b" }, "b to lead")
		c.apply(g, "after", "b")
	}
}

// All groups of a node need a snapshot at once: they get it, never more than
// the allowed number at a time, while appends go on.
func TestRaftInstallsSnapshots(t *testing.T) {
	t.Parallel()
	var most atomic.Int64
	c := newCluster(t, clusterGroups, clusterHeartbeat, func(conf *Config) {
		conf.Limits.InboundSnapshots, conf.Limits.OutboundSnapshots = 2, 2
	})
	c.elect("a")
	c.kill("c")
	for g := range c.groups {
		for n := range 4 {
			c.apply(g, fmt.Sprintf("%d-%s", n, strings.Repeat("x", 100_000)), "a", "b")
		}
		require.NoError(t, c.replica("a", g).raft.Snapshot().Error())
		require.NoError(t, c.replica("b", g).raft.Snapshot().Error())
	}
	c.restart("c")
	eventually(t, func() bool {
		most.Store(max(most.Load(), int64(c.nodes["c"].Stats().InboundSnapshots), int64(c.nodes["a"].Stats().OutboundSnapshots)))
		for g := range c.groups {
			if len(c.replica("c", g).fsm.copy().Seen) < 4 {
				return false
			}
		}
		return true
	}, "every group to be installed")
	require.LessOrEqual(t, most.Load(), int64(2))
	require.NotZero(t, c.nodes["c"].Stats().Snapshot.BytesIn)
	for g := range c.groups {
		c.requireConverged(g, nil)
	}
}

// An installation takes its time on the main loop of one group. Appends and
// heartbeats of all others flow between the same nodes.
func TestRaftSlowSnapshotDisturbsNobody(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterGroups, clusterHeartbeat, nil)
	c.elect("a")
	c.kill("c")
	for n := range 4 {
		c.apply(0, fmt.Sprint(n), "a", "b")
	}
	require.NoError(t, c.replica("a", 0).raft.Snapshot().Error())
	require.NoError(t, c.replica("b", 0).raft.Snapshot().Error())
	c.slowRestore = make(chan struct{})
	release := sync.OnceFunc(func() { close(c.slowRestore) })
	t.Cleanup(release) // or a failing test could not shut the replica down
	c.restart("c")
	eventually(t, func() bool { return c.nodes["c"].Stats().InboundSnapshots > 0 }, "a snapshot")
	for n := range 20 {
		for g := range c.groups {
			c.apply(g, fmt.Sprintf("during %d", n), c.ids...)
		}
	}
	for g := 1; g < c.groups; g++ {
		last := c.replica("a", g).fsm
		eventually(t, func() bool { return c.replica("c", g).fsm.copy().Chain == last.copy().Chain }, "c to follow")
	}
	release()
	for g := range c.groups {
		c.requireConverged(g, nil)
	}
}

// A sole voter that campaigns leads at once, long before its election timeout.
func TestRaftSoleVoterCampaigns(t *testing.T) {
	t.Parallel()
	v := newNetwork(t).start("a", nil).Group(0)
	conf := raft.DefaultConfig()
	conf.LocalID = "a"
	conf.HeartbeatTimeout, conf.ElectionTimeout = time.Hour, time.Hour
	conf.Logger = hclog.NewNullLogger()
	store, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	require.NoError(t, raft.BootstrapCluster(conf, store, store, snaps, v,
		raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}))
	r, err := raft.NewRaft(conf, new(ledger), store, store, snaps, v)
	require.NoError(t, err)
	v.Campaign()
	eventually(t, func() bool { return r.State() == raft.Leader }, "leadership")
	require.NoError(t, r.Apply([]byte("alone"), 0).Error())
	require.NoError(t, r.Shutdown().Error())
}
