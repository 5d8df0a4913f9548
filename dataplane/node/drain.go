package node

import (
	"context"
	"time"
)

// maxDrain bounds a drain: what is left fails over by itself.
const maxDrain = 4 * time.Second

// Drain hands the leadership of every group led here to another replica, so
// that writes go on without waiting for an election. Groups of which nobody
// else can take over keep it. It returns when all were tried, after maxDrain,
// or when ctx ends.
func (n *Node) Drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxDrain)
	defer cancel()
	n.draining.Store(true) // runReconcile must not take leadership changes of its own
	n.handOver(ctx)
}

// Done is closed when the node has begun to close.
func (n *Node) Done() <-chan struct{} { return n.done }
