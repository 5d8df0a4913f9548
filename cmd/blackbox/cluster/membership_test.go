package cluster

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// TestWipedNodeJoinsAgain takes everything from a data node and starts it under
// the same name: the control plane must know it for another one, and the groups
// take it in as one that knows nothing.
func TestWipedNodeJoinsAgain(t *testing.T) {
	t.Parallel()
	skipShort(t)
	c := start(t, Config{})
	l := startLoad(t, c, "wiped", 16, 100*time.Millisecond)
	l.awaitAppends(t)

	wiped := c.Data[2]
	wiped.Kill()
	l.awaitAppends(t)
	require.NoError(t, wiped.Wipe())
	began := time.Now()
	require.NoError(t, wiped.Start())
	ready(t, wiped)
	counts(t, c, l, wiped, began)
	l.finish(t)
	sameReplicas(t, c)
	require.NoError(t, c.CheckRunning())
}

// TestWipedNodeHasNoSay wipes one of the two nodes that hold what was
// acknowledged last, and takes the other away. The third, which has missed it,
// and the wiped one are two of three: were the wiped one still counted, they
// would go on without it. Nothing may be lost when the one that has it returns.
func TestWipedNodeHasNoSay(t *testing.T) {
	t.Parallel()
	skipShort(t)
	c := start(t, Config{Proxied: true})
	l := startLoad(t, c, "amnesia", 16, 100*time.Millisecond)
	l.awaitAppends(t)
	keeper, behind, wiped := c.Data[0], c.Data[1], c.Data[2]
	for _, n := range []*Node{keeper, wiped} {
		c.Network.Between(behind.Name, n.Name, Rule{Hold: true})
	}
	l.awaitAppends(t)
	keeper.Kill()
	wiped.Kill()
	require.NoError(t, wiped.Wipe())
	c.Network.Heal()
	require.NoError(t, wiped.Start())
	// What they would need to find each other and elect leaders.
	stay(t, 8*time.Second)
	require.NoError(t, keeper.Start())
	l.awaitAppends(t)
	ready(t, c.Data...)
	l.finish(t)
	sameReplicas(t, c)
	require.NoError(t, c.CheckRunning())
}

// TestOneNodeGrowsToThree starts with one data node, which holds everything
// alone, and lets two more join. Then any one can be lost, the first included.
func TestOneNodeGrowsToThree(t *testing.T) {
	t.Parallel()
	skipShort(t)
	c := start(t, Config{Data: 1})
	l := startLoad(t, c, "growing", 16, 100*time.Millisecond)
	l.awaitAppends(t)
	began := time.Now()
	for range 2 {
		n, err := c.AddData()
		require.NoError(t, err)
		require.NoError(t, n.Start())
	}
	for _, n := range c.Data[1:] {
		joined(t, c, n, began)
	}
	killEach(t, l, c.Data...)
	l.finish(t)
	sameReplicas(t, c)
	require.NoError(t, c.CheckRunning())
}

// groups is how many groups conversations hash to.
const groups = 256

var joinEnded = regexp.MustCompile(`time=(\S+) .*move finished.* group=(\d+) .*join="?\[([^\]]*)\]`)

// joinBound is how long the suite waits for a node to join all groups. It is a
// bound against hanging for ever; how long it takes is logged.
const joinBound = 5 * time.Minute

// joined waits until the control plane has said of every group that a node has
// joined it in full, since a time. The control plane must stay as it is.
func joined(t *testing.T, c *Cluster, n *Node, since time.Time) {
	t.Helper()
	in := map[string]bool{}
	within(t, joinBound, func() error {
		for _, member := range c.Control {
			for _, move := range joinEnded.FindAllStringSubmatch(member.Output(), -1) {
				at, err := time.Parse(time.RFC3339Nano, move[1])
				// Logs tell the time to the millisecond.
				if err == nil && !at.Before(since.Truncate(time.Millisecond)) && slices.Contains(strings.Fields(move[3]), n.Name) {
					in[move[2]] = true
				}
			}
		}
		if len(in) < groups {
			_ = pause(t.Context(), 100*time.Millisecond) // what is printed is long
			return fmt.Errorf("%s has joined %d groups", n.Name, len(in))
		}
		return nil
	})
	t.Logf("%s has joined all groups after %v", n.Name, time.Since(since).Round(time.Millisecond))
}

// counts makes sure that a node which is joining since a time becomes as good as
// the others: with each of these killed in turn, everything can be written and
// what was written before is there.
func counts(t *testing.T, c *Cluster, l *load, member *Node, since time.Time) {
	t.Helper()
	joined(t, c, member, since)
	killEach(t, l, slices.DeleteFunc(slices.Clone(c.Data), func(n *Node) bool { return n == member })...)
}

// killEach kills nodes in turn; without any one of them, appends succeed.
func killEach(t *testing.T, l *load, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		n.Kill()
		l.awaitAppends(t)
		require.NoError(t, n.Start())
		ready(t, n)
		l.awaitAppends(t)
	}
}

// TestStopHandsOver stops each process in turn as an operator does: it exits
// with 0, and nobody sees an error.
func TestStopHandsOver(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Control: 3})
	l := startLoad(t, c, "stopped", 16, 100*time.Millisecond)
	l.awaitAppends(t)
	watch := watchMachine(t)
	for _, n := range slices.Concat(c.Data, c.Control) {
		watch.reset()
		began := l.history.now()
		stop(t, n)
		l.awaitAppends(t)
		require.NoError(t, n.Start())
		ready(t, n)
		for _, id := range l.conversations {
			if failed := l.history.failures(id, began, l.history.now()); len(failed) > 0 {
				watch.blame(t, "%s stopped: operations on %s failed: %v", n.Name, id, failed)
			}
		}
	}
	l.finish(t)
	stop(t, c.Routers[0])
}

// stop sends SIGTERM and waits for the clean end.
func stop(t *testing.T, n *Node) {
	t.Helper()
	require.NoError(t, n.Terminate())
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	code, err := n.Server().Wait(ctx)
	require.NoError(t, err)
	require.Zero(t, code, n.Output())
}
