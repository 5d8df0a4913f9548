package cluster

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// groupOf is the documented function from a conversation id to its group.
func groupOf(id string) int {
	sum := sha256.Sum256([]byte(id))
	return int(sum[0])
}

// TestSnapshotCatchUp stops a follower until the others have dropped the part of
// a group's log that it lacks, and starts it again while appends go on. It must
// catch up by snapshot, and be as good as the others: each of them is then
// killed in turn, so that nothing can be committed or served without it.
func TestSnapshotCatchUp(t *testing.T) {
	t.Parallel()
	skipShort(t)
	// What Raft does with its log is told at this level only.
	c := start(t, Config{Env: []string{"FASTPACA_LOG_LEVEL=debug"}})
	l := startLoad(t, c, "calm", 8, 200*time.Millisecond)
	hot := startLoad(t, c, "hot", 1, 0)
	hot.awaitAppends(t)
	group := groupOf(hot.conversations[0])

	stopped := c.Data[2]
	stopped.Kill()
	// An entry holds an append or several, beside a few of Raft's own.
	lacks := hot.history.appends() + 100
	within(t, 2*time.Minute, func() error {
		for _, n := range c.Data[:2] {
			if to := compactedTo(n.Output(), group); to <= lacks {
				return fmt.Errorf("%s has truncated group %d up to %d, want %d, after %d appends", n.Name, group, to, lacks, hot.history.appends())
			}
		}
		return nil
	})
	require.NoError(t, stopped.Start())
	ready(t, stopped)
	installed := regexp.MustCompile(fmt.Sprintf(`(?i)installed remote snapshot.*group=%d\b`, group))
	eventually(t, "snapshot installed", func() bool { return installed.MatchString(stopped.Output()) })
	t.Logf("caught up by snapshot after %d appends", hot.history.appends())

	for _, n := range c.Data[:2] {
		n.Kill()
		l.awaitAppends(t)
		hot.awaitAppends(t)
		require.NoError(t, n.Start())
		ready(t, n)
	}
	hot.finish(t)
	l.finish(t)
	sameReplicas(t, c)
	require.NoError(t, c.CheckRunning())
}

// appends counts the appends that clients have begun.
func (h *history) appends() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var n uint64
	for _, operations := range h.operations {
		for _, o := range operations {
			if !o.read {
				n++
			}
		}
	}
	return n
}

var compaction = regexp.MustCompile(`compacting logs.* group=(\d+) .*\bto=(\d+)`)

// compactedTo returns the newest entry of a group that a node says it dropped.
func compactedTo(output string, group int) uint64 {
	var newest uint64
	for _, found := range compaction.FindAllStringSubmatch(output, -1) {
		if found[1] != strconv.Itoa(group) {
			continue
		}
		to, _ := strconv.ParseUint(found[2], 10, 64) // of digits; too many give 0
		newest = max(newest, to)
	}
	return newest
}
