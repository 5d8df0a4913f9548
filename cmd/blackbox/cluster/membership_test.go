package cluster

import (
	"context"
	"slices"
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
	c := start(t, Config{})
	l := startLoad(t, c, "wiped", 16, 100*time.Millisecond)
	l.awaitAppends(t)

	wiped := c.Data[2]
	wiped.Kill()
	l.awaitAppends(t)
	require.NoError(t, wiped.Wipe())
	require.NoError(t, wiped.Start())
	ready(t, wiped)
	counts(t, c, l, wiped)
	l.finish(t)
	require.NoError(t, c.CheckRunning())
}

// TestWipedNodeHasNoSay wipes one of the two nodes that hold what was
// acknowledged last, and takes the other away. The third, which has missed it,
// and the wiped one are two of three: were the wiped one still counted, they
// would go on without it. Nothing may be lost when the one that has it returns.
func TestWipedNodeHasNoSay(t *testing.T) {
	t.Parallel()
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
	require.NoError(t, c.CheckRunning())
}

// TestOneNodeGrowsToThree starts with one data node, which holds everything
// alone, and lets two more join. Then any one can be lost, the first included.
func TestOneNodeGrowsToThree(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Data: 1})
	l := startLoad(t, c, "growing", 16, 100*time.Millisecond)
	l.awaitAppends(t)
	for range 2 {
		n, err := c.AddData()
		require.NoError(t, err)
		require.NoError(t, n.Start())
	}
	ready(t, c.Data...)
	for _, n := range c.Data[1:] {
		counts(t, c, l, n)
	}
	l.finish(t)
	require.NoError(t, c.CheckRunning())
}

// counts makes sure that a node which has just come is a full member of every
// group: with each of the other nodes killed in turn, everything can be written
// and what was written before is there. How long it takes to become one nobody
// tells from outside, so a node that is killed too early is started again and
// the attempt repeated.
func counts(t *testing.T, c *Cluster, l *load, member *Node) {
	t.Helper()
	for _, n := range c.Data {
		if n == member {
			continue
		}
		within(t, 3*time.Minute, func() error {
			n.Kill()
			missing := l.missingAppends(t, 10*time.Second)
			require.NoError(t, n.Start())
			ready(t, n)
			l.awaitAppends(t)
			return missing
		})
	}
}

// missingAppends is awaitAppends with an error in place of a failed test.
func (l *load) missingAppends(t *testing.T, bound time.Duration) error {
	t.Helper()
	since := l.history.now()
	if polled(t.Context(), bound, func() bool { return len(l.missing(since)) == 0 }) {
		return nil
	}
	return errMissing(l.missing(since))
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
