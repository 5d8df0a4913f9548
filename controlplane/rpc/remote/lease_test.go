package remote

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/controlplane/rpc/remote/pb"
)

// leasingMember is a fakeMember with leases.
type leasingMember struct {
	*fakeMember
	lease func(*rpc.LeaseRequest) (*rpc.LeaseReply, error)
}

func (m leasingMember) Lease(_ context.Context, req *rpc.LeaseRequest) (*rpc.LeaseReply, error) {
	m.plane.mu.Lock()
	defer m.plane.mu.Unlock()
	if m.plane.leader != m.address {
		return nil, m.notLeader()
	}
	return m.lease(req)
}

func serveLeases(t testing.TB, lease func(*rpc.LeaseRequest) (*rpc.LeaseReply, error)) (*fakePlane, []*running) {
	t.Helper()
	plane := newFakePlane()
	var members []*running
	for range 2 {
		members = append(members, serve(t, "", func(address string) Backend {
			return leasingMember{&fakeMember{plane: plane, address: address}, lease}
		}, ServerOptions{}))
	}
	plane.lead(members[0].address)
	return plane, members
}

func TestLeasesTravel(t *testing.T) {
	t.Parallel()
	want := &rpc.LeaseReply{Leases: []rpc.Lease{{Group: 0, Epoch: 1}, {Group: 255, Epoch: 1 << 60}}, TTL: 1500 * time.Millisecond}
	var got []*rpc.LeaseRequest
	plane, members := serveLeases(t, func(req *rpc.LeaseRequest) (*rpc.LeaseReply, error) {
		got = append(got, req)
		if req.Release {
			return &rpc.LeaseReply{}, nil
		}
		return want, nil
	})
	client := newClient(t, Options{Addresses: addresses(members)})
	renew := &rpc.LeaseRequest{Node: "d1", Incarnation: "i"}
	for range 2 { // the second time the other member leads
		reply, err := client.Lease(within10s(t), renew)
		require.NoError(t, err)
		require.Equal(t, want, reply)
		plane.lead(members[1].address)
	}
	release := &rpc.LeaseRequest{Node: "d1", Incarnation: "i", Release: true}
	reply, err := client.Lease(within10s(t), release)
	require.NoError(t, err)
	require.Equal(t, &rpc.LeaseReply{}, reply)
	require.Equal(t, []*rpc.LeaseRequest{renew, renew, release}, got)
	require.NoError(t, client.Close())
	_, err = client.Lease(within10s(t), renew)
	require.ErrorIs(t, err, rpc.ErrClosed)
}

func TestLeaseRequestIsChecked(t *testing.T) {
	t.Parallel()
	_, members := serveLeases(t, func(*rpc.LeaseRequest) (*rpc.LeaseReply, error) { panic("reached the member") })
	client := newClient(t, Options{Addresses: addresses(members)})
	long := strings.Repeat("x", maxText+1)
	for name, req := range map[string]*rpc.LeaseRequest{
		"nothing":          nil,
		"no node":          {Incarnation: "i"},
		"no incarnation":   {Node: "d1"},
		"long node":        {Node: rpc.NodeID(long), Incarnation: "i"},
		"long incarnation": {Node: "d1", Incarnation: long},
		"not UTF-8":        {Node: "d1", Incarnation: "\xff"},
	} {
		_, err := client.Lease(within10s(t), req)
		require.ErrorIs(t, err, rpc.ErrInvalid, name)
	}
	_, err := raw(t, members[0].address).Lease(within10s(t), &pb.LeaseRequest{Versions: versions})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = raw(t, members[0].address).Lease(within10s(t), &pb.LeaseRequest{})
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "no common version")
}

func TestMemberWithoutLeases(t *testing.T) {
	t.Parallel()
	members := newFakePlane().start(t, 1, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members), Patience: time.Millisecond})
	_, err := client.Lease(within10s(t), &rpc.LeaseRequest{Node: "d1", Incarnation: "i"})
	require.ErrorIs(t, err, rpc.ErrUnavailable)
}

func FuzzLeaseReply(f *testing.F) {
	for _, reply := range []*pb.LeaseReply{
		{}, {TtlMs: 10_000, Leases: []*pb.ArchiverLease{{Group: 1, Epoch: 2}, {Group: 3, Epoch: 1}}},
		{TtlMs: 1 << 63}, {Leases: []*pb.ArchiverLease{{Group: 2, Epoch: 1}, {Group: 1, Epoch: 1}}}, {Leases: []*pb.ArchiverLease{{Group: maxGroups}}},
	} {
		data, err := proto.Marshal(reply)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p pb.LeaseReply
		if proto.Unmarshal(data, &p) != nil {
			return
		}
		reply, err := leaseReplyFromWire(&p)
		if err != nil {
			require.ErrorIs(t, err, errMalformed)
			return
		}
		require.LessOrEqual(t, reply.TTL, maxLeaseTTL)
		again, err := leaseReplyFromWire(leaseReplyToWire(reply))
		require.NoError(t, err)
		require.Equal(t, reply, again)
	})
}
