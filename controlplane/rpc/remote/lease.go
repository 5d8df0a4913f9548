package remote

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/controlplane/rpc/remote/pb"
)

// maxLeaseTTL bounds for how long a client trusts a member's word.
const maxLeaseTTL = time.Hour

var _ rpc.Leases = (*Client)(nil)

// Lease implements rpc.Leases. It asks one member after the other until the
// leader answers, for up to Options.Patience. The caller's clock starts before
// the call, so attempts that failed shorten its trust.
func (c *Client) Lease(ctx context.Context, req *rpc.LeaseRequest) (*rpc.LeaseReply, error) {
	p, err := leaseRequestToWire(req)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	var answer *rpc.LeaseReply
	err = c.untilAnswered(ctx, func(ctx context.Context, who member) error {
		reply, err := pb.NewControlPlaneClient(who.conn).Lease(ctx, p)
		if err == nil {
			answer, err = leaseReplyFromWire(reply)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	return answer, nil
}

// Lease implements pb.ControlPlaneServer.
func (s *Server) Lease(ctx context.Context, req *pb.LeaseRequest) (*pb.LeaseReply, error) {
	ctx, done, err := s.begin(ctx, req.GetVersions(), &s.leasing, s.opts.MaxSessions)
	if err != nil {
		return nil, err
	}
	defer done()
	leases, ok := s.backend.(rpc.Leases)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "this member has no leases")
	}
	request, err := leaseRequestFromWire(req)
	if err != nil {
		return nil, s.refuse(fmt.Errorf("lease: %w: %w", rpc.ErrInvalid, err))
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.MaxSession)
	defer cancel()
	reply, err := leases.Lease(ctx, request)
	if err != nil {
		return nil, s.refuse(err)
	}
	return leaseReplyToWire(reply), nil
}

// leaseRequestToWire fails with rpc.ErrInvalid for what cannot be sent.
func leaseRequestToWire(req *rpc.LeaseRequest) (*pb.LeaseRequest, error) {
	if req == nil || !utf8.ValidString(string(req.Node)) || !utf8.ValidString(req.Incarnation) {
		return nil, fmt.Errorf("%w: lease request that is missing or not UTF-8", rpc.ErrInvalid)
	}
	p := &pb.LeaseRequest{Versions: spoken(), Node: string(req.Node), Incarnation: req.Incarnation, Release: req.Release}
	if _, err := leaseRequestFromWire(p); err != nil {
		return nil, fmt.Errorf("%w: %w", rpc.ErrInvalid, err)
	}
	return p, nil
}

func leaseRequestFromWire(p *pb.LeaseRequest) (*rpc.LeaseRequest, error) {
	if p.GetNode() == "" || len(p.GetNode()) > maxText || p.GetIncarnation() == "" || len(p.GetIncarnation()) > maxText {
		return nil, fmt.Errorf("%w: a lease request without names, or with long ones", errMalformed)
	}
	return &rpc.LeaseRequest{Node: rpc.NodeID(p.GetNode()), Incarnation: p.GetIncarnation(), Release: p.GetRelease()}, nil
}

// leaseReplyToWire rounds the TTL down.
func leaseReplyToWire(reply *rpc.LeaseReply) *pb.LeaseReply {
	p := &pb.LeaseReply{Version: maxVersion, TtlMs: uint64(max(0, reply.TTL.Milliseconds()))}
	for _, lease := range reply.Leases {
		p.Leases = append(p.Leases, &pb.ArchiverLease{Group: uint32(lease.Group), Epoch: lease.Epoch})
	}
	return p
}

func leaseReplyFromWire(p *pb.LeaseReply) (*rpc.LeaseReply, error) {
	if len(p.GetLeases()) > maxGroups || p.GetTtlMs() > uint64(maxLeaseTTL.Milliseconds()) {
		return nil, fmt.Errorf("%w: %d leases for %d ms", errMalformed, len(p.GetLeases()), p.GetTtlMs())
	}
	reply := &rpc.LeaseReply{TTL: time.Duration(p.GetTtlMs()) * time.Millisecond}
	for i, lease := range p.GetLeases() {
		switch {
		case lease.GetGroup() >= maxGroups || lease.GetEpoch() == 0:
			return nil, fmt.Errorf("%w: lease of group %d with epoch %d", errMalformed, lease.GetGroup(), lease.GetEpoch())
		case i > 0 && lease.GetGroup() <= p.GetLeases()[i-1].GetGroup():
			return nil, fmt.Errorf("%w: leases out of order", errMalformed)
		}
		reply.Leases = append(reply.Leases, rpc.Lease{Group: uint16(lease.GetGroup()), Epoch: lease.GetEpoch()})
	}
	return reply, nil
}
