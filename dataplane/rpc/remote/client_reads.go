package remote

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// readOptions are the call options of every read.
var readOptions = []grpc.CallOption{grpc.MaxCallRecvMsgSize(maxReplyBytes), grpc.StaticMethod()}

// Conversation implements rpc.Node.
func (c *Client) Conversation(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) (*rpc.Conversation, error) {
	const op = "conversation"
	if err := validateRead(key, opts); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	p, err := c.reads.Conversation(ctx, &pb.ConversationRequest{Key: []byte(key), Options: optionsToWire(opts)}, readOptions...)
	if err != nil {
		return nil, readError(ctx, op, err)
	}
	conv, err := conversationFromWire(p.GetConversation())
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", op, rpc.ErrUnavailable, err)
	}
	return conv, nil
}

// Messages implements rpc.Node.
func (c *Client) Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
	const op = "messages"
	if err := validateRead(req.Key, req.ReadOptions); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	p, err := c.reads.Messages(ctx, &pb.MessagesRequest{
		Key: []byte(req.Key), From: req.From, Limit: int64(req.Limit), Options: optionsToWire(req.ReadOptions),
	}, readOptions...)
	return page(ctx, op, p, err)
}

// Tail implements rpc.Node.
func (c *Client) Tail(ctx context.Context, req *rpc.TailRequest) (*rpc.Page, error) {
	const op = "tail"
	if err := validateRead(req.Key, req.ReadOptions); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	p, err := c.reads.Tail(ctx, &pb.TailRequest{
		Key: []byte(req.Key), Before: req.Before, Offset: req.Offset, Limit: int64(req.Limit), Options: optionsToWire(req.ReadOptions),
	}, readOptions...)
	return page(ctx, op, p, err)
}

func page(ctx context.Context, op string, p *pb.Page, err error) (*rpc.Page, error) {
	if err != nil {
		return nil, readError(ctx, op, err)
	}
	decoded, err := pageFromWire(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", op, rpc.ErrUnavailable, err)
	}
	return decoded, nil
}

// List implements rpc.Node. Its limit is at most 1,000 conversations.
func (c *Client) List(ctx context.Context, req *rpc.ListRequest) (*rpc.ListReply, error) {
	const op = "list"
	if err := validateList(req); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	p, err := c.reads.List(ctx, listToWire(req), readOptions...)
	if err != nil {
		return nil, readError(ctx, op, err)
	}
	r := &rpc.ListReply{Conversations: make([]rpc.Conversation, len(p.GetConversations()))}
	for i, conv := range p.GetConversations() {
		decoded, err := conversationFromWire(conv)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", op, rpc.ErrUnavailable, err)
		}
		r.Conversations[i] = *decoded
	}
	return r, nil
}

// StateHash implements rpc.Inspector.
func (c *Client) StateHash(ctx context.Context, group rpc.Group) (*rpc.StateHash, error) {
	const op = "state hash"
	p, err := c.reads.StateHash(ctx, &pb.StateHashRequest{Group: uint32(group)}, readOptions...)
	if err != nil {
		return nil, readError(ctx, op, err)
	}
	h := &rpc.StateHash{Group: group, Applied: p.GetApplied()}
	if p.GetGroup() != uint32(group) || len(p.GetHash()) != len(h.Hash) {
		return nil, fmt.Errorf("%s: %w: a hash of %d bytes of group %d", op, rpc.ErrUnavailable, len(p.GetHash()), p.GetGroup())
	}
	copy(h.Hash[:], p.GetHash())
	return h, nil
}
