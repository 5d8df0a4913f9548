package group

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// An acknowledgement trims on every replica alike, an older epoch is refused,
// and nothing can be acknowledged where nobody leads.
func TestArchiveAck(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	r := c.leader()
	c.put(r, "chat")
	for range 10 {
		c.mustAppend(r, "chat", "text")
	}
	ack := func(epoch, seq uint64) error {
		return r.group.ArchiveAck(t.Context(), &state.ArchiveAck{Epoch: epoch, Keep: 2, Watermarks: []state.Watermark{{Key: "chat", Seq: seq}}})
	}
	require.NoError(t, ack(3, 5))
	require.ErrorIs(t, ack(2, 9), rpc.ErrEpochFenced)
	for _, replica := range c.replicas {
		c.eventually(func() bool {
			conv, err := replica.group.Conversation(t.Context(), "chat", rpc.ReadOptions{Consistency: rpc.Stale})
			return err == nil && conv.FirstSeq == 4 && conv.ArchivedSeq == 5 && conv.LastSeq == 10
		}, "trimmed")
		if replica != r {
			err := replica.group.ArchiveAck(t.Context(), &state.ArchiveAck{Epoch: 4})
			require.ErrorIs(t, err, rpc.ErrUnavailable)
		}
	}
	require.NoError(t, ack(3, 99)) // clamped
	conv, err := r.group.Conversation(t.Context(), "chat", rpc.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, uint64(10), conv.ArchivedSeq)
	require.Equal(t, uint64(9), conv.FirstSeq)
}

// The larger its entries, the fewer stay, so that 256 groups with little in
// them have small logs; the larger the state, the more.
func TestHowMuchLogIsWorthKeeping(t *testing.T) {
	t.Parallel()
	const kib, mib = 1 << 10, 1 << 20
	for name, c := range map[string]struct{ mean, state, want uint64 }{
		"small entries, no state":     {mean: 500, want: minLogBytes / 500},
		"usual entries, no state":     {mean: 5 * kib, want: usualLogEntries},
		"batches, no state":           {mean: 40 * kib, want: 12},
		"large batches, no state":     {mean: mib, want: minLogEntries},
		"one entry above every bound": {mean: 30 * mib, want: minLogEntries},
		"large batches, large state":  {mean: mib, state: 100 * mib, want: 100},
		"usual entries, large state":  {mean: 5 * kib, state: 100 * mib, want: trailingEntries},
		"tiny entries":                {mean: 1, want: trailingEntries},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, worthKeeping(c.mean, c.state))
		})
	}
}

// A log is kept while the state is larger, and shortened once the archive let
// the state shrink. What it leads to does not change, also over a restart.
func TestLogIsShortenedAfterTrim(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	c.put(r, "chat")
	text := strings.Repeat("x", 20_000)
	const count = 400
	for range count {
		c.mustAppend(r, "chat", text)
	}
	bounds := func() uint64 {
		first, _ := r.group.entries.FirstIndex()
		last, _ := r.group.entries.LastIndex()
		return last - first
	}
	before := bounds()
	r.group.shorten(time.Now(), &logLength{})
	require.NoError(t, r.group.visit()) // what shorten began is not waited for: nothing was
	r.group.visitors.Done()
	require.Equal(t, before, bounds())

	require.NoError(t, r.group.ArchiveAck(t.Context(), &state.ArchiveAck{
		Epoch: 1, Keep: 5, Watermarks: []state.Watermark{{Key: "chat", Seq: count}}}))
	r.group.shorten(time.Now(), &logLength{})
	c.eventually(func() bool { return bounds() < usualLogEntries }, "shortened")
	require.GreaterOrEqual(t, bounds(), uint64(minLogEntries-1))
	require.LessOrEqual(t, bounds()*uint64(len(text)), uint64(maxSmallLogBytes))
	c.eventually(func() bool { return r.group.raft.Load().ReloadableConfig().TrailingLogs == trailingEntries }, "as usual again")
	require.Equal(t, uint64(count+1), c.mustAppend(r, "chat", "more"))
	c.stop(r)
	c.start(r)
	r = c.leader()
	conv, err := r.group.Conversation(t.Context(), "chat", rpc.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, uint64(count+1), conv.LastSeq)
	require.Equal(t, uint64(count-4), conv.FirstSeq)
}
