package node

import (
	"context"
	"sync"
)

// drainFanOut bounds the leaderships handed over at a time: a follower's disk
// takes them all.
const drainFanOut = 16

// Drain hands the leadership of every group led here to another replica, so
// that writes go on without waiting for an election. Groups without another
// voter keep it. It returns when all were tried or ctx ends.
func (n *Node) Drain(ctx context.Context) {
	n.draining.Store(true) // runReconcile must not take leadership changes of its own
	slots := make(chan struct{}, drainFanOut)
	var work sync.WaitGroup
	for i := range n.groups {
		g := n.groups[i].Load()
		if g == nil || !g.Leading() || g.SoleVoter() {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			work.Wait()
			return
		}
		work.Go(func() {
			defer func() { <-slots }()
			if err := g.TransferLeadership(""); err != nil {
				n.log.Debug("leadership was not handed over", "group", i, "error", err)
			}
		})
	}
	work.Wait()
}

// Done is closed when the node has begun to close.
func (n *Node) Done() <-chan struct{} { return n.done }
