package remote

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

const (
	// maxReplyMargin is kept back from a request's time for its answer to
	// travel, so that what the node says of a timeout arrives before the caller
	// has given up: a min_seq not reached, a write that was never proposed. It
	// is at most one marginShare of the time.
	maxReplyMargin = 50 * time.Millisecond
	marginShare    = 8
)

// within is what the node may use of a caller's timeout.
func within(timeout time.Duration) time.Duration {
	return timeout - min(timeout/marginShare, maxReplyMargin)
}

// maxHashTime bounds one StateHash, which reads a whole group.
const maxHashTime = 15 * time.Minute

// beginRead admits a read and bounds its time. end must be called.
func (s *Server) beginRead(ctx context.Context) (_ context.Context, end func(), err error) {
	return s.begin(ctx, s.opts.MaxTime)
}

func (s *Server) begin(ctx context.Context, timeout time.Duration) (_ context.Context, end func(), err error) {
	if err := s.admit(); err != nil {
		return nil, nil, err
	}
	if s.reads.Add(1) > int64(s.opts.MaxReads) {
		s.reads.Add(-1)
		s.active.Done()
		return nil, nil, statusOf(fmt.Errorf("data node: %d reads: %w", s.opts.MaxReads, rpc.ErrOverloaded))
	}
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, within(time.Until(deadline)))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() {
		stop()
		cancel()
		s.reads.Add(-1)
		s.active.Done()
	}, nil
}

// Conversation implements pb.DataPlaneServer.
func (s *Server) Conversation(ctx context.Context, p *pb.ConversationRequest) (*pb.ConversationReply, error) {
	ctx, end, err := s.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	key, opts := rpc.Key(p.GetKey()), optionsFromWire(p.GetOptions())
	if err := validateRead(key, opts); err != nil {
		return nil, statusOf(err)
	}
	conv, err := s.node.Conversation(ctx, key, opts)
	if err != nil {
		return nil, statusOf(err)
	}
	return &pb.ConversationReply{Conversation: conversationToWire(conv)}, nil
}

// Messages implements pb.DataPlaneServer.
func (s *Server) Messages(ctx context.Context, p *pb.MessagesRequest) (*pb.Page, error) {
	ctx, end, err := s.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	req := &rpc.MessagesRequest{
		Key: rpc.Key(p.GetKey()), From: p.GetFrom(), Limit: int(p.GetLimit()), ReadOptions: optionsFromWire(p.GetOptions()),
	}
	if err := validateRead(req.Key, req.ReadOptions); err != nil {
		return nil, statusOf(err)
	}
	page, err := s.node.Messages(ctx, req)
	if err != nil {
		return nil, statusOf(err)
	}
	return pageToWire(page), nil
}

// Tail implements pb.DataPlaneServer.
func (s *Server) Tail(ctx context.Context, p *pb.TailRequest) (*pb.Page, error) {
	ctx, end, err := s.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	req := &rpc.TailRequest{
		Key: rpc.Key(p.GetKey()), Before: p.GetBefore(), Offset: p.GetOffset(), Limit: int(p.GetLimit()),
		ReadOptions: optionsFromWire(p.GetOptions()),
	}
	if err := validateRead(req.Key, req.ReadOptions); err != nil {
		return nil, statusOf(err)
	}
	page, err := s.node.Tail(ctx, req)
	if err != nil {
		return nil, statusOf(err)
	}
	return pageToWire(page), nil
}

// List implements pb.DataPlaneServer.
func (s *Server) List(ctx context.Context, p *pb.ListRequest) (*pb.ListReply, error) {
	ctx, end, err := s.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	req, err := listFromWire(p)
	if err != nil {
		return nil, statusOf(err)
	}
	reply, err := s.node.List(ctx, req)
	if err != nil {
		return nil, statusOf(err)
	}
	out := &pb.ListReply{Conversations: make([]*pb.Conversation, len(reply.Conversations))}
	for i := range reply.Conversations {
		out.Conversations[i] = conversationToWire(&reply.Conversations[i])
	}
	return out, nil
}

// StateHash implements pb.DataPlaneServer. The node bounds how many run at once.
func (s *Server) StateHash(ctx context.Context, p *pb.StateHashRequest) (*pb.StateHashReply, error) {
	if s.inspector == nil {
		return nil, status.Error(codes.Unimplemented, "this node tells no hashes")
	}
	ctx, end, err := s.begin(ctx, maxHashTime)
	if err != nil {
		return nil, err
	}
	defer end()
	if p.GetGroup() >= rpc.Groups {
		return nil, statusOf(fmt.Errorf("%w: group %d", ErrInvalidRequest, p.GetGroup()))
	}
	h, err := s.inspector.StateHash(ctx, rpc.Group(p.GetGroup()))
	if err != nil {
		return nil, statusOf(err)
	}
	return &pb.StateHashReply{Group: uint32(h.Group), Applied: h.Applied, Hash: h.Hash[:]}, nil
}
