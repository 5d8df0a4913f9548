package node

import (
	"context"
	"sync"
	"time"
)

const (
	// drainFanOut bounds the leaderships handed over at a time: a follower's
	// disk takes them all.
	drainFanOut = 16
	// maxDrain bounds the whole: what is left fails over by itself.
	maxDrain = 4 * time.Second
)

// Drain hands the leadership of every group led here to another replica, so
// that writes go on without waiting for an election. Groups of which nobody
// else can take over keep it. It returns when all were tried, after maxDrain,
// or when ctx ends.
func (n *Node) Drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxDrain)
	defer cancel()
	n.draining.Store(true) // runReconcile must not take leadership changes of its own
	slots := make(chan struct{}, drainFanOut)
	var work sync.WaitGroup
	for i := range n.groups {
		g := n.groups[i].Load()
		if g == nil {
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
			if _, err := g.HandOver(); err != nil {
				n.log.Debug("leadership was not handed over", "group", i, "error", err)
			}
		})
	}
	work.Wait()
}

// Done is closed when the node has begun to close.
func (n *Node) Done() <-chan struct{} { return n.done }
