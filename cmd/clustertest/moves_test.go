package clustertest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func (c *cluster) eventually(what string, condition func(member.Status) bool) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return condition(c.status()) }, patience, 50*time.Millisecond, what)
}

func complete(s member.Status) bool {
	return s.Groups.Formed == rpc.Groups && s.Groups.Short == 0 && s.Moves.InFlight() == 0
}

// evenly reports whether the leaders that should be and those that are differ by
// few between nodes.
func evenly(s member.Status) bool {
	for _, node := range s.Nodes {
		if node.Preferred < rpc.Groups/3 || node.Preferred > rpc.Groups/3+1 {
			return false
		}
	}
	return true
}

// Goal: a cluster of one grows to three while clients append, with the control
// plane restarted on the way; a node that lost its disk gets everything back; at
// last the first node, on which all began, dies. Everything acknowledged is there.
func TestOneGrowsToThreeAndARepairedNodeServes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes more than a minute")
	}
	c := newCluster(t, 1)
	c.start("d1")
	c.eventually("groups form", func(s member.Status) bool { return s.Groups.Formed == rpc.Groups })

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var writing errgroup.Group
	var writers []*writer
	for i := range 4 {
		w := &writer{key: rpc.Key(fmt.Sprint("chat-", i))}
		writers = append(writers, w)
		writing.Go(func() error { return w.write(ctx, c) })
	}

	c.start("d2")
	c.eventually("d2 is alive", func(s member.Status) bool { return len(s.Nodes) == 2 && s.Nodes[1].Liveness == "alive" })
	require.Zero(t, c.status().Moves, "two nodes are no reason to grow")
	c.start("d3")
	c.eventually("growth begins", func(s member.Status) bool { return s.Moves.Finished > 10 })
	c.stopControl()
	c.startControl()
	c.eventually("growth ends", func(s member.Status) bool { return complete(s) && evenly(s) })
	require.EqualValues(t, rpc.Groups, c.status().Moves.Finished)
	require.Zero(t, c.status().Moves.Aborted)

	c.stop("d2")
	c.wipe("d2")
	c.start("d2")
	c.eventually("the wiped node is noticed", func(s member.Status) bool { return s.Nodes[1].Generation == 2 })
	c.eventually("the wiped node has everything", func(s member.Status) bool { return complete(s) && evenly(s) })
	require.EqualValues(t, 3*rpc.Groups, c.status().Moves.Finished, "each replica was removed and added again")

	cancel()
	require.NoError(t, writing.Wait())
	c.stop("d1")
	for _, w := range writers {
		require.NotEmpty(t, w.acked)
		w.verify(c)
	}
}
