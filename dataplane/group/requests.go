package group

import (
	"context"
	"errors"
	"fmt"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// opOverhead is what a queued write is counted with beside its payload.
const opOverhead = 256

// Append appends the request's messages; see rpc.AppendReply for retries.
func (g *Group) Append(ctx context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
	bytes := int64(opOverhead + len(req.Key) + len(req.IdempotencyKey))
	for i := range req.Messages {
		bytes += int64(len(req.Messages[i].Content) + len(req.Messages[i].ID) + 64)
	}
	took := passage{span: traced(ctx)}
	outcome, err := g.propose(ctx, state.AppendOp(req), bytes, &took)
	stages := g.passed(ctx, &took, err)
	if err != nil {
		return nil, err
	}
	reply := outcome.(*rpc.AppendReply)
	reply.Took = stages.Total()
	return reply, nil
}

// Put creates the conversation or replaces its metadata. A put that could
// change nothing is answered by a read.
func (g *Group) Put(ctx context.Context, req *rpc.PutRequest) (*rpc.PutReply, error) {
	if req.Metadata == nil && g.readable() == nil {
		conv, err := g.machine.Conversation(req.Key)
		switch {
		case err == nil && conv.Tombstoned:
			return nil, fmt.Errorf("group %d: put: %w", g.opts.Group, rpc.ErrTombstoned)
		case err == nil:
			return &rpc.PutReply{Conversation: conv}, nil
		case !errors.Is(err, rpc.ErrNotFound):
			return nil, g.readError("put", err)
		}
	}
	reply, err := g.propose(ctx, state.PutOp(req), int64(opOverhead+len(req.Key)+len(req.Metadata)), nil)
	if err != nil {
		return nil, err
	}
	return reply.(*rpc.PutReply), nil
}

// Tombstone closes the conversation for writing.
func (g *Group) Tombstone(ctx context.Context, key rpc.Key) error {
	_, err := g.propose(ctx, state.TombstoneOp(key), int64(opOverhead+len(key)), nil)
	return err
}

// Conversation reads one conversation.
func (g *Group) Conversation(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) (*rpc.Conversation, error) {
	if err := g.prepareRead(ctx, key, opts); err != nil {
		return nil, err
	}
	conv, err := g.machine.Conversation(key)
	if err != nil {
		return nil, g.readError("conversation", err)
	}
	return &conv, nil
}

// Messages reads forward from a sequence.
func (g *Group) Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
	if err := g.prepareRead(ctx, req.Key, req.ReadOptions); err != nil {
		return nil, err
	}
	page, err := g.machine.Messages(req.Key, req.From, min(req.Limit, rpc.MaxPageMessages), rpc.MaxPageBytes)
	if err != nil {
		return nil, g.readError("messages", err)
	}
	return &page, nil
}

// Tail reads the newest messages.
func (g *Group) Tail(ctx context.Context, req *rpc.TailRequest) (*rpc.Page, error) {
	if err := g.prepareRead(ctx, req.Key, req.ReadOptions); err != nil {
		return nil, err
	}
	page, err := g.machine.Tail(req.Key, req.Before, req.Offset, min(req.Limit, rpc.MaxPageMessages), rpc.MaxPageBytes)
	if err != nil {
		return nil, g.readError("tail", err)
	}
	return &page, nil
}

// List reads up to limit conversations after a key.
func (g *Group) List(ctx context.Context, prefix, after string, limit int, c rpc.Consistency) ([]rpc.Conversation, error) {
	if err := g.prepareRead(ctx, "", rpc.ReadOptions{Consistency: c}); err != nil {
		return nil, err
	}
	convs, err := g.machine.List(prefix, after, limit)
	if err != nil {
		return nil, g.readError("list", err)
	}
	return convs, nil
}

// prepareRead makes sure that what is read next is as fresh as asked for.
func (g *Group) prepareRead(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) error {
	var err error
	switch opts.Consistency {
	case rpc.Stale:
		if opts.MinSeq > 0 {
			g.deferred.eager.Add(1)
			defer g.deferred.eager.Add(-1)
		}
		if err = g.failed(); err == nil {
			err = g.applyDeferred()
		}
	case rpc.Linearizable:
		if err = g.readable(); err == nil {
			err = g.verifyLeader(ctx)
		}
	default:
		err = g.readable()
	}
	if err == nil && opts.MinSeq > 0 {
		err = g.machine.WaitSeq(ctx, key, opts.MinSeq)
	}
	return err
}

// readError names the group and the operation of a failed read.
func (g *Group) readError(op string, err error) error {
	return fmt.Errorf("group %d: %s: %w", g.opts.Group, op, err)
}
