package group

import (
	"context"
	"errors"
	"fmt"

	"github.com/fastpaca/fastpaca/dataplane/feed"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// openState opens the state machine with the group's feed behind it.
func (g *Group) openState() (*state.Machine, error) {
	quota := g.opts.Subscriptions
	if quota == nil {
		quota = feed.NewQuota(feed.MaxSubscriptions)
	}
	g.feed = feed.New(quota)
	opts := g.opts.State
	committed, reset := opts.OnCommit, opts.OnReset
	opts.OnCommit = func(list []state.Committed) {
		g.feed.Committed(list, g.machine.Conversation)
		if committed != nil {
			committed(list)
		}
	}
	opts.OnReset = func() {
		g.feed.Reset(g.machine.Conversation)
		if reset != nil {
			reset()
		}
	}
	return state.Open(g.opts.DB, uint16(g.opts.Group), opts)
}

// Subscribe has the conversation's news delivered while this replica leads, see
// rpc.Feed. The end of a subscription is told after leadership is lost, so it
// may be a while silent before: up to a lease, if this node is cut off.
func (g *Group) Subscribe(key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	if err := g.visit(); err != nil {
		return nil, nil, err
	}
	defer g.visitors.Done()
	if err := g.readable(); err != nil {
		return nil, nil, err
	}
	return g.feed.Subscribe(key, to, func() (*rpc.SubscribeReply, error) {
		// Leadership lost from here on ends the subscription: it is registered.
		if err := g.readable(); err != nil {
			return nil, err
		}
		conv, err := g.machine.Conversation(key)
		switch {
		case errors.Is(err, rpc.ErrNotFound):
			return &rpc.SubscribeReply{}, nil
		case err != nil:
			return nil, g.readError("subscribe", err)
		}
		return &rpc.SubscribeReply{Exists: true, LastSeq: conv.LastSeq, Version: conv.Version, Tombstoned: conv.Tombstoned}, nil
	})
}

// Hash returns a hash of the replica's state and the index that it covers,
// whoever leads. It reads all of the state.
func (g *Group) Hash(ctx context.Context) (*rpc.StateHash, error) {
	if err := g.visit(); err != nil {
		return nil, err
	}
	defer g.visitors.Done()
	if err := g.failed(); err != nil {
		return nil, fmt.Errorf("group %d: %w", g.opts.Group, err)
	}
	if err := g.applyDeferred(); err != nil {
		return nil, g.readError("state hash", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.life, cancel)()
	sum, applied, err := g.machine.Hash(ctx)
	switch {
	case err != nil && g.life.Err() != nil:
		return nil, fmt.Errorf("group %d: state hash: %w", g.opts.Group, rpc.ErrClosed)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("group %d: state hash: %w: %w", g.opts.Group, rpc.ErrUnavailable, err)
	case err != nil:
		return nil, g.readError("state hash", err)
	}
	return &rpc.StateHash{Group: g.opts.Group, Applied: applied, Hash: sum}, nil
}

// visit counts in a call that Close waits for; visitors.Done ends it.
func (g *Group) visit() error {
	g.queueMu.RLock()
	defer g.queueMu.RUnlock()
	if g.queueClosed {
		return fmt.Errorf("group %d: %w", g.opts.Group, rpc.ErrClosed)
	}
	g.visitors.Add(1)
	return nil
}
