package node

import (
	"context"
	"time"
)

// applyInterval is how often groups are asked to apply what they have deferred
// for too long.
const applyInterval = 100 * time.Millisecond

// runApply bounds how far the state of quiet followers lags behind what they
// know is committed. It is not done in runFailover, because it may wait for a
// full disk.
func (n *Node) runApply(ctx context.Context) {
	tick := time.NewTicker(applyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for i := range n.groups {
				if g := n.groups[i].Load(); g != nil {
					g.ApplyDeferred(now)
				}
			}
		}
	}
}
