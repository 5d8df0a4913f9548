package remote

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/controlplane/rpc/remote/pb"
)

var versions = &pb.Versions{Min: 1, Max: 9}

// raw is a client without manners.
func raw(t testing.TB, address string) pb.ControlPlaneClient {
	t.Helper()
	conn, err := dialMember(address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewControlPlaneClient(conn)
}

// What is no report is refused with a clear status and does not reach the
// member.
func TestServerRefusesBadReports(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	client := raw(t, plane.start(t, 1, ServerOptions{})[0].address)
	node := &pb.Node{Id: "d1"}
	for name, req := range map[string]*pb.SessionRequest{
		"nothing":       {},
		"no id":         {Node: &pb.Node{}},
		"empty name":    {Node: node, Names: []string{""}},
		"no such name":  {Node: node, Names: []string{"d1"}, Groups: []*pb.GroupReport{{Replicas: []uint32{2 << 1}}}},
		"name zero":     {Node: node, Groups: []*pb.GroupReport{{Replicas: []uint32{1}}}},
		"no such group": {Node: node, Groups: []*pb.GroupReport{{Group: maxGroups}}},
		"many replicas": {Node: node, Groups: []*pb.GroupReport{{Replicas: make([]uint32, maxReplicas+1)}}},
		"many names":    {Node: node, Names: make([]string, maxNames+1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req.Versions = versions
			_, err := client.Session(within10s(t), req)
			require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
			require.ErrorIs(t, failureOf(err).err, rpc.ErrInvalid)
			require.Empty(t, plane.reports)
		})
	}
}

func TestServerNegotiates(t *testing.T) {
	t.Parallel()
	client := raw(t, newFakePlane().start(t, 1, ServerOptions{})[0].address)
	for name, v := range map[string]*pb.Versions{"none": nil, "newer": {Min: maxVersion + 1, Max: 9}, "older": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := client.Session(within10s(t), &pb.SessionRequest{Versions: v, Node: &pb.Node{Id: "d1"}})
			require.Equal(t, codes.FailedPrecondition, status.Code(err))
			stream, err := client.Watch(within10s(t), &pb.WatchRequest{Versions: v})
			require.NoError(t, err)
			_, err = stream.Recv()
			require.Equal(t, codes.FailedPrecondition, status.Code(err))
		})
	}
	reply, err := client.Session(within10s(t), &pb.SessionRequest{Versions: versions, Node: &pb.Node{Id: "d1"}})
	require.NoError(t, err)
	require.EqualValues(t, maxVersion, reply.GetVersion())
}

// A watch begins with a word at once, sends each table once, and heartbeats
// when there is none.
func TestWatchProtocol(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	client := raw(t, plane.start(t, 1, ServerOptions{Heartbeat: time.Millisecond})[0].address)
	stream, err := client.Watch(within10s(t), &pb.WatchRequest{Versions: versions, After: 1})
	require.NoError(t, err)
	for range 3 {
		update, err := stream.Recv()
		require.NoError(t, err)
		require.EqualValues(t, maxVersion, update.GetVersion())
		require.Nil(t, update.GetTable(), "the client has it")
	}
	want := plane.publish()
	for {
		update, err := stream.Recv()
		require.NoError(t, err)
		if update.GetTable() != nil {
			require.Equal(t, want, update.GetTable().GetVersion())
			break
		}
	}
	update, err := stream.Recv()
	require.NoError(t, err)
	require.Nil(t, update.GetTable(), "once is enough")

	other, err := client.Watch(within10s(t), &pb.WatchRequest{Versions: versions, ClusterId: "cluster-2"})
	require.NoError(t, err)
	_, err = other.Recv()
	require.ErrorIs(t, failureOf(err).err, rpc.ErrWrongCluster)
}

// A new leader that does not know yet who leads what has a table for those who
// have none, and nothing for the others until it does know.
func TestProvisionalTableIsNoNews(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.cold = true
	plane.table.Version = 5
	client := raw(t, plane.start(t, 1, ServerOptions{Heartbeat: time.Millisecond})[0].address)
	watch := func(after uint64) func() *pb.TableUpdate {
		stream, err := client.Watch(within10s(t), &pb.WatchRequest{Versions: versions, After: after, ClusterId: "cluster-1"})
		require.NoError(t, err)
		return func() *pb.TableUpdate {
			update, err := stream.Recv()
			require.NoError(t, err)
			return update
		}
	}
	require.EqualValues(t, 5, watch(0)().GetTable().GetVersion())
	next := watch(1)
	for range 10 {
		require.Nil(t, next().GetTable())
	}
	plane.change(func() { plane.cold = false })
	for {
		if table := next().GetTable(); table != nil {
			require.EqualValues(t, 5, table.GetVersion())
			break
		}
	}
}

// A member that no longer knows a leader ends its watches, whatever its backend
// would go on answering.
func TestWatchEndsWithoutLeader(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.anyServes = true
	members := plane.start(t, 2, ServerOptions{Heartbeat: time.Millisecond})
	stream, err := raw(t, members[1].address).Watch(within10s(t), &pb.WatchRequest{Versions: versions})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	plane.lead("")
	for err == nil {
		_, err = stream.Recv()
	}
	require.ErrorIs(t, failureOf(err).err, rpc.ErrUnavailable)
}

// Close ends the calls, so that clients go elsewhere, and takes no more.
func TestServerCloses(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.stubborn = true
	member := plane.start(t, 1, ServerOptions{})[0]
	client := raw(t, member.address)
	stream, err := client.Watch(within10s(t), &pb.WatchRequest{Versions: versions})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	session := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := client.Session(within10s(t), &pb.SessionRequest{Versions: versions, Node: &pb.Node{Id: "d1"}})
		session <- err
	})
	require.Eventually(t, func() bool {
		plane.mu.Lock()
		defer plane.mu.Unlock()
		return len(plane.reports) == 1
	}, patience, time.Millisecond)
	require.NoError(t, member.server.Close())
	_, err = stream.Recv()
	for err == nil {
		_, err = stream.Recv()
	}
	wg.Wait()
	for _, err := range []error{err, <-session} {
		f := failureOf(err)
		require.ErrorIs(t, f.err, rpc.ErrUnavailable)
		require.False(t, f.final)
		require.False(t, f.broken)
	}
	_, err = client.Session(within10s(t), &pb.SessionRequest{Versions: versions, Node: &pb.Node{Id: "d1"}})
	require.Equal(t, codes.Unavailable, status.Code(err))
}

// Calls at a time are bounded.
func TestServerBoundsCalls(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.stubborn = true
	client := raw(t, plane.start(t, 1, ServerOptions{MaxWatches: 1, MaxSessions: 1, MaxSession: time.Minute})[0].address)
	ctx, cancel := context.WithCancel(within10s(t))
	defer cancel()
	first, err := client.Watch(ctx, &pb.WatchRequest{Versions: versions})
	require.NoError(t, err)
	_, err = first.Recv()
	require.NoError(t, err)
	second, err := client.Watch(ctx, &pb.WatchRequest{Versions: versions})
	require.NoError(t, err)
	_, err = second.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err))

	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _, _ = client.Session(ctx, &pb.SessionRequest{Versions: versions, Node: &pb.Node{Id: "d1"}}) })
	require.Eventually(t, func() bool {
		plane.mu.Lock()
		defer plane.mu.Unlock()
		return len(plane.reports) == 1
	}, patience, time.Millisecond)
	_, err = client.Session(ctx, &pb.SessionRequest{Versions: versions, Node: &pb.Node{Id: "d2"}})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

// badServer answers as a test likes.
type badServer struct {
	pb.UnimplementedControlPlaneServer
	watch   func(*pb.WatchRequest, grpc.ServerStreamingServer[pb.TableUpdate]) error
	session func(context.Context, *pb.SessionRequest) (*pb.SessionReply, error)
}

func (b *badServer) Watch(req *pb.WatchRequest, stream grpc.ServerStreamingServer[pb.TableUpdate]) error {
	return b.watch(req, stream)
}

func (b *badServer) Session(ctx context.Context, req *pb.SessionRequest) (*pb.SessionReply, error) {
	return b.session(ctx, req)
}

func serveBad(t *testing.T, bad *badServer) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer()
	pb.RegisterControlPlaneServer(g, bad)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(listener) })
	t.Cleanup(func() {
		g.Stop()
		wg.Wait()
	})
	return listener.Addr().String()
}

// A member that falls silent in the middle of a watch, or sends what is no
// table, is left for another.
func TestClientLeavesBadWatches(t *testing.T) {
	t.Parallel()
	for name, updates := range map[string][]*pb.TableUpdate{
		"silent at once":  nil,
		"silent later":    {{}},
		"no such name":    {{Table: &pb.Table{Version: 99, Groups: []*pb.Placement{{Leader: 1}}}}},
		"node without id": {{Table: &pb.Table{Version: 99, Nodes: []*pb.Node{{}}}}},
		"other cluster":   {{Table: &pb.Table{Version: 99, ClusterId: "cluster-2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := serveBad(t, &badServer{watch: func(_ *pb.WatchRequest, stream grpc.ServerStreamingServer[pb.TableUpdate]) error {
				for _, u := range updates {
					if err := stream.Send(u); err != nil {
						return err
					}
				}
				<-stream.Context().Done()
				return stream.Context().Err()
			}})
			good := newFakePlane().start(t, 1, ServerOptions{Heartbeat: 50 * time.Millisecond})
			client := newClient(t, Options{
				Addresses: []string{bad, good[0].address}, ClusterID: "cluster-1", AttemptTimeout: 500 * time.Millisecond, Patience: patience,
			})
			table, err := client.Table(within10s(t), 0)
			require.NoError(t, err)
			require.EqualValues(t, 1, table.Version)
		})
	}
}

// An answer that is no assignment is no answer.
func TestClientDistrustsAssignments(t *testing.T) {
	t.Parallel()
	encode := func(a *pb.Assignment) []byte {
		b, err := proto.Marshal(a)
		require.NoError(t, err)
		return b
	}
	for name, reply := range map[string]*pb.SessionReply{
		"nothing":       {},
		"unknown":       {Digest: []byte("never sent")},
		"garbage":       {Assignment: []byte("\xff")},
		"no such group": {Assignment: encode(&pb.Assignment{Groups: []*pb.GroupAssignment{{Group: maxGroups}}})},
		"no such name":  {Assignment: encode(&pb.Assignment{Groups: []*pb.GroupAssignment{{Replicas: []uint32{9}}}})},
		"preferred":     {Assignment: encode(&pb.Assignment{Groups: []*pb.GroupAssignment{{Preferred: 9}}})},
		"address":       {Assignment: encode(&pb.Assignment{Addresses: []*pb.Address{{Node: 9}}})},
		"names":         {Assignment: encode(&pb.Assignment{Names: []string{""}})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := serveBad(t, &badServer{session: func(context.Context, *pb.SessionRequest) (*pb.SessionReply, error) {
				return reply, nil
			}})
			client := newClient(t, Options{Addresses: []string{bad}, Patience: time.Millisecond})
			_, err := client.Session(within10s(t), reportOf("d1"))
			require.ErrorIs(t, err, rpc.ErrUnavailable)
		})
	}
}

// Many clients while the leader moves and the table changes: versions only
// rise, sessions only succeed or are unavailable, and everybody ends with the
// newest.
func TestManyClientsWhileTheLeaderMoves(t *testing.T) {
	t.Parallel()
	const clients, moves = 20, 30
	plane := newFakePlane()
	members := plane.start(t, 3, ServerOptions{})
	done, stop := context.WithCancel(context.Background())
	defer stop()
	var last, sessions atomic.Uint64
	var wg sync.WaitGroup
	for i := range clients {
		client := newClient(t, Options{Addresses: addresses(members), Patience: patience})
		wg.Go(func() {
			for done.Err() == nil {
				_, err := client.Session(done, reportOf("d1"))
				switch {
				case err == nil:
					sessions.Add(1)
				case !errors.Is(err, rpc.ErrUnavailable):
					t.Errorf("session: %v", err)
				}
			}
		})
		wg.Go(func() {
			var version uint64
			for last.Load() == 0 || version < last.Load() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				table, err := client.Table(ctx, version)
				cancel()
				if err != nil || table.Version <= version {
					t.Errorf("client %d: table %v after %d: %v", i, table, version, err)
					return
				}
				version = table.Version
			}
		})
	}
	for range moves {
		plane.lead(members[rand.N(3)].address)
		plane.publish()
		from := sessions.Load()
		require.Eventually(t, func() bool { return sessions.Load() > from }, patience, time.Millisecond)
	}
	plane.mu.Lock()
	last.Store(plane.table.Version + 1)
	plane.mu.Unlock()
	plane.publish()
	stop()
	wg.Wait()
}

// FuzzReport: whatever a node reports, nothing panics, and what is taken can be
// sent again as it is.
func FuzzReport(f *testing.F) {
	p, err := reportToWire(someReport())
	require.NoError(f, err)
	b, err := proto.Marshal(p)
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		var p pb.SessionRequest
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		report, err := reportFromWire(&p)
		if err != nil {
			return
		}
		again, err := reportToWire(report)
		require.NoError(t, err)
		back, err := reportFromWire(again)
		require.NoError(t, err)
		require.Equal(t, report, back)
	})
}

// FuzzTable and FuzzAssignment: the same of what a member sends.
func FuzzTable(f *testing.F) {
	small := someTable()
	small.Groups = small.Groups[:5]
	b, err := proto.Marshal(tableToWire(small))
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		var p pb.Table
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		table, err := tableFromWire(&p)
		if err != nil {
			return
		}
		again, err := tableFromWire(tableToWire(table))
		require.NoError(t, err)
		require.Equal(t, table, again)
	})
}

func FuzzAssignment(f *testing.F) {
	b, err := proto.Marshal(assignmentToWire(someAssignment()))
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		var p pb.Assignment
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		assignment, err := assignmentFromWire(&p)
		if err != nil {
			return
		}
		again, err := assignmentFromWire(assignmentToWire(assignment))
		require.NoError(t, err)
		require.Equal(t, assignment, again)
	})
}
