package archiver

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

const chat rpc.Key = "chat-123" // of group 4

// What was committed before the lease was got, and what comes after, is
// archived and trimmed; so are metadata and tombstones without a message.
func TestArchivesBeforeAndAfter(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.put(chat, `{"n":1}`)
	c.append(chat, 2500)
	c.grant("n1")
	n := c.start("n1", url)
	c.settled(url, chat)
	conv, err := c.of(chat).machine.Conversation(chat)
	require.NoError(t, err)
	require.Equal(t, uint64(2499), conv.FirstSeq) // 2 are kept

	c.append(chat, 3)
	c.settled(url, chat)
	c.put(chat, `{"n":2}`)
	n.Touched(chat.Group(), chat)
	eventually(t, "metadata", func() bool {
		return archivetest.Query[string](t, url, "SELECT metadata->>'n' FROM conversations") == "2"
	})
	c.must(chat, state.TombstoneOp(chat))
	eventually(t, "tombstone", func() bool { return archivetest.Query[bool](t, url, "SELECT tombstoned FROM conversations") })

	eventually(t, "status", func() bool {
		s := n.Status()
		return s.Ready && s.Error == "" && s.Leases == "" && len(s.Groups) == 1 && s.Groups[0].Complete && s.Pending() == 0 && s.Groups[0].Conversations == 0
	})
	require.Equal(t, uint64(2503), n.Status().Totals.Messages)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(n.Archiver))
	metrics, err := registry.Gather()
	require.NoError(t, err)
	require.Len(t, metrics, 11)
	n.Close()
	require.Equal(t, int64(1), n.leases.released.Load())
}

// C18: ten messages, keep 2, an acknowledgement of 5 leaves 4 to 10; a lower
// one changes nothing and one beyond the end is taken for the end.
func TestTrimRules(t *testing.T) {
	t.Parallel()
	c := newCluster(t, chat.Group())
	c.put(chat, `{}`)
	c.append(chat, 10)
	for _, step := range []struct{ ack, archived, first uint64 }{{5, 5, 4}, {3, 5, 4}, {5, 5, 4}, {99, 10, 9}} {
		require.NoError(t, c.of(chat).ArchiveAck(t.Context(), &state.ArchiveAck{Epoch: 1, Keep: 2, Watermarks: []state.Watermark{{Key: chat, Seq: step.ack}}}))
		conv, err := c.of(chat).machine.Conversation(chat)
		require.NoError(t, err)
		require.Equal(t, step.archived, conv.ArchivedSeq, step)
		require.Equal(t, step.first, conv.FirstSeq, step)
	}
}

// Many conversations of several groups share transactions, and none waits for
// the interval once several batches are full.
func TestManyConversations(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, groupsOf(6)...)
	c.grant("n1")
	n := c.start("n1", url, func(o *Options) { o.Interval, o.BatchRows = time.Hour, 50 })
	eventually(t, "leases", func() bool { return len(n.Status().Groups) == 6 && complete(n) })
	keys := keysOf(c, 120)
	for _, key := range keys {
		c.put(key, `{}`)
		c.append(key, 5)
	}
	eventually(t, "most is archived without a tick", func() bool { return n.pending.Load() < 50*gatherBatches })
	require.Less(t, n.Status().Totals.Batches, uint64(60))
	n.due.Store(n.numbers.Load()) // a tick
	kick(n.work)
	c.settled(url, keys...)
}

func groupsOf(n int) []rpc.Group {
	var out []rpc.Group
	for i := range n {
		out = append(out, rpc.Group(i*31))
	}
	return out
}

func keysOf(c *cluster, n int) []rpc.Key {
	var keys []rpc.Key
	for i := 0; len(keys) < n; i++ {
		if key := rpc.Key(fmt.Sprintf("conversation-%d", i)); c.groups[key.Group()] != nil {
			keys = append(keys, key)
		}
	}
	return keys
}

func complete(n *node) bool {
	for _, g := range n.Status().Groups {
		if !g.Complete {
			return false
		}
	}
	return true
}

// Only what is led here is archived, and leases of an unreachable control plane
// are trusted no longer than they last.
func TestWorksOnlyUnderALiveLease(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.ttl = 300 * time.Millisecond
	c.put(chat, `{}`)
	c.grant("n1")
	n := c.start("n1", url)
	c.append(chat, 1)
	c.settled(url, chat)

	c.of(chat).leading.Store(false)
	c.append(chat, 1)
	ticks(n, 3)
	require.Equal(t, uint64(1), c.archivedSeq(chat))
	c.of(chat).leading.Store(true)
	c.settled(url, chat)

	n.leases.frozen.Store(true)
	eventually(t, "trust ends", func() bool { return !n.trust() })
	c.append(chat, 1)
	ticks(n, 3)
	require.Equal(t, uint64(2), c.archivedSeq(chat))
	require.NotEmpty(t, n.Status().Leases)
	n.leases.frozen.Store(false)
	c.settled(url, chat)
}

// ticks waits for some intervals to pass.
func ticks(n *node, count int) {
	for range count {
		before := n.due.Load()
		n.numbers.Add(1)
		eventually(n.leases.tb, "tick", func() bool { return n.due.Load() > before })
	}
}

// A control plane that is down, or knows nothing of the node yet, is asked
// again.
func TestControlPlaneComesLate(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.fail(controlrpc.ErrUnavailable)
	c.put(chat, `{}`)
	c.append(chat, 3)
	n := c.start("n1", url)
	eventually(t, "asked", func() bool { return n.leases.calls.Load() > 1 })
	require.Contains(t, n.Status().Leases, controlrpc.ErrUnavailable.Error())
	c.fail(nil)
	c.grant("n1")
	c.settled(url, chat)
}

// The set of conversations that are behind is bounded: what does not fit is
// found again by reading the group.
func TestTrackerForgetsAndScansAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, chat.Group())
	n, err := New(Options{Node: "n", Cluster: func() string { return "" }, Leases: &leases{cluster: c}, Store: &hooked{},
		Group: func(rpc.Group) Group { return nil }, Interval: time.Second, BatchRows: 10, Logger: logger(t)})
	require.NoError(t, err)
	tr := &n.trackers[4]
	require.True(t, tr.hold(1))
	require.False(t, tr.hold(1))
	tr.scanned(1, nil, "")
	tr.note(entryNews{key: "a", first: 5, last: 9})
	tr.note(entryNews{key: "a", first: 10, last: 10})
	require.Equal(t, int64(6), n.pending.Load())
	n.entries.Store(maxEntries)
	tr.note(entryNews{key: "b", first: 1, last: 1})
	_, _, wanted := tr.nextScan()
	require.False(t, wanted, "there is no room yet")
	n.entries.Store(1)
	_, epoch, wanted := tr.nextScan()
	require.True(t, wanted)
	tr.rescan() // something more is missed while the scan runs
	tr.scanned(epoch, []entryNews{{key: "b", first: 1, last: 1, now: true}}, "b")
	tr.scanned(epoch, nil, "")
	_, _, wanted = tr.nextScan()
	require.True(t, wanted, "it begins anew")
	tr.scanned(epoch, nil, "")
	_, _, wanted = tr.nextScan()
	require.False(t, wanted)

	early, _, _ := tr.take(10, false, 0)
	require.Empty(t, early, "the first has to wait for its tick")
	taken, epoch, left := tr.take(10, true, 0)
	require.Len(t, taken, 2)
	require.Equal(t, 3, left)
	require.Zero(t, n.queued.Load())
	tr.note(entryNews{key: "a", first: 11, last: 11})
	tr.finish(taken[0], epoch, outcome{archived: 10, last: 10, clean: true})
	tr.finish(taken[1], epoch, outcome{archived: 1, last: 1, clean: true})
	require.Equal(t, int64(1), n.pending.Load())
	require.Equal(t, int64(1), n.queued.Load())
	require.Equal(t, int64(1), n.entries.Load())
	tr.fence(1)
	require.False(t, tr.hold(1), "a fenced lease is not taken again")
	require.Zero(t, n.pending.Load())
	require.Zero(t, n.queued.Load())
	require.True(t, tr.hold(2))
	tr.finish(taken[0], epoch, outcome{archived: 10, clean: true}) // of the old lease
	require.Zero(t, n.entries.Load())
}

func TestOptionsNameEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := New(Options{Interval: time.Millisecond, BatchRows: 0})
	require.ErrorContains(t, err, "required")
	require.ErrorContains(t, err, "interval")
	require.ErrorContains(t, err, "batch")
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := backoff{failures: 50}
	require.False(t, b.wait(ctx))
	b.reset()
	require.Zero(t, b.failures)
}
