package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

var _ rpc.Node = (*Node)(nil)

// groupOf returns the replica that owns the key, or a NotLeaderError when this
// node holds none.
func (n *Node) groupOf(key rpc.Key) (*group.Group, error) {
	return n.hosted(key.Group())
}

func (n *Node) hosted(id rpc.Group) (*group.Group, error) {
	if g := n.groups[id].Load(); g != nil {
		return g, nil
	}
	return nil, &rpc.NotLeaderError{Group: id}
}

// Put implements rpc.Node.
func (n *Node) Put(ctx context.Context, req *rpc.PutRequest) (*rpc.PutReply, error) {
	g, err := n.groupOf(req.Key)
	if err != nil {
		return nil, err
	}
	reply, err := g.Put(ctx, req)
	if err == nil && n.archiver != nil && (reply.Created || req.Metadata != nil) {
		n.archiver.Touched(req.Key.Group(), req.Key)
	}
	return reply, err
}

// Append implements rpc.Node.
func (n *Node) Append(ctx context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
	g, err := n.groupOf(req.Key)
	if err != nil {
		return nil, err
	}
	return g.Append(ctx, req)
}

// Tombstone implements rpc.Node.
func (n *Node) Tombstone(ctx context.Context, key rpc.Key) error {
	g, err := n.groupOf(key)
	if err != nil {
		return err
	}
	return g.Tombstone(ctx, key)
}

// Conversation implements rpc.Node.
func (n *Node) Conversation(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) (*rpc.Conversation, error) {
	g, err := n.groupOf(key)
	if err != nil {
		return nil, err
	}
	return g.Conversation(ctx, key, opts)
}

// Messages implements rpc.Node.
func (n *Node) Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
	g, err := n.groupOf(req.Key)
	if err != nil {
		return nil, err
	}
	return n.messages(ctx, g, req)
}

// Tail implements rpc.Node.
func (n *Node) Tail(ctx context.Context, req *rpc.TailRequest) (*rpc.Page, error) {
	g, err := n.groupOf(req.Key)
	if err != nil {
		return nil, err
	}
	return n.tail(ctx, g, req)
}

// listFanOut is how many groups one List reads at a time.
const listFanOut = 8

// List implements rpc.Node. Each group yields up to the limit, because all of
// the answer may lie in one group; what cannot be in the answer is dropped at
// once, so that few groups' worth is ever held.
func (n *Node) List(ctx context.Context, req *rpc.ListRequest) (*rpc.ListReply, error) {
	var mu sync.Mutex // guards found
	var found []rpc.Conversation
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(listFanOut)
	for _, id := range req.Groups {
		if int(id) >= rpc.Groups {
			return nil, fmt.Errorf("list: group %d does not exist: %w", id, rpc.ErrNotFound)
		}
		work.Go(func() error {
			g, err := n.hosted(id)
			if err != nil {
				return err
			}
			more, err := g.List(ctx, req.Prefix, req.After, req.Limit, req.Consistency)
			if err != nil || len(more) == 0 {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, more...)
			slices.SortFunc(found, func(a, b rpc.Conversation) int { return strings.Compare(string(a.Key), string(b.Key)) })
			if len(found) > req.Limit {
				clear(found[req.Limit:])
				found = found[:req.Limit]
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return &rpc.ListReply{Conversations: found}, nil
}
