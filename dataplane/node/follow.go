package node

import (
	"context"
	"fmt"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

var (
	_ rpc.Feed      = (*Node)(nil)
	_ rpc.Inspector = (*Node)(nil)
)

// maxStateHashes bounds the hashes computed at a time: each reads a whole group
// from the disk that writes wait for.
const maxStateHashes = 2

// Subscribe implements rpc.Feed. A node that drains takes no subscriptions: they
// would end at once.
func (n *Node) Subscribe(ctx context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	if n.draining.Load() {
		return nil, nil, fmt.Errorf("subscribe: %w", rpc.ErrClosed)
	}
	if ctx.Err() != nil {
		return nil, nil, fmt.Errorf("subscribe: %w: %w", rpc.ErrUnavailable, ctx.Err())
	}
	g, err := n.groupOf(key)
	if err != nil {
		return nil, nil, err
	}
	return g.Subscribe(key, to)
}

// StateHash implements rpc.Inspector. Two are computed at a time; one more is
// refused with rpc.ErrOverloaded.
func (n *Node) StateHash(ctx context.Context, id rpc.Group) (*rpc.StateHash, error) {
	g := n.replica(uint16(id))
	if g == nil {
		return nil, fmt.Errorf("state hash: no replica of group %d: %w", id, rpc.ErrNotFound)
	}
	select {
	case n.hashing <- struct{}{}:
		defer func() { <-n.hashing }()
	default:
		return nil, fmt.Errorf("state hash: %d are computed: %w", maxStateHashes, rpc.ErrOverloaded)
	}
	return g.Hash(ctx)
}
