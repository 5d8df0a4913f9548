package remote

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/controlplane/rpc/remote/pb"
)

// Backend is a member of the control plane as its Server needs it. Where a
// member cannot answer, it returns an error that is rpc.ErrUnavailable, at best
// a *rpc.NotLeaderError. Table may be answered by any member from what it has
// applied, Session only by the leader. A backend that is rpc.Leases too serves
// leases; they are the leader's as well.
type Backend interface {
	rpc.ControlPlane
	// LeaderHint is the address where other processes reach the leader: this
	// member's own when it leads, empty when it knows of none. It does not block.
	LeaderHint() string
}

// Server answers the calls of Clients with those of a member.
//
// Goroutines: those that gRPC starts for the calls.
type Server struct {
	pb.UnimplementedControlPlaneServer
	backend Backend
	opts    ServerOptions
	life    context.Context // of all calls
	end     context.CancelFunc

	mu                sync.Mutex // guards what follows
	closed            bool
	watches, sessions int
	leasing           int
	calls             sync.WaitGroup // Add only with mu held and not closed

	// encoded is the last table that was sent, for all watches.
	encoded atomic.Pointer[encodedTable]
}

type encodedTable struct {
	table  *rpc.Table
	update *pb.TableUpdate
}

// NewServer returns a server for a member. Register puts it on a *grpc.Server.
func NewServer(backend Backend, opts ServerOptions) *Server {
	life, end := context.WithCancel(context.Background())
	return &Server{backend: backend, opts: opts.withDefaults(), life: life, end: end}
}

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { pb.RegisterControlPlaneServer(r, s) }

// Close ends all calls, so that their clients ask another member, and waits for
// them. New ones are refused. The gRPC server is stopped after it.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.calls.Wait()
	return nil
}

// begin counts a call in and ties it to the server's life. done must be called.
func (s *Server) begin(ctx context.Context, versions *pb.Versions, running *int, limit int) (_ context.Context, done func(), err error) {
	if versions.GetMin() > maxVersion || versions.GetMax() < minVersion {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "no common version: %d to %d is spoken here, %d to %d there",
			minVersion, maxVersion, versions.GetMin(), versions.GetMax())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, nil, s.refuse(rpc.ErrClosed)
	case *running >= limit:
		return nil, nil, status.Errorf(codes.ResourceExhausted, "more than %d calls", limit)
	}
	*running++
	s.calls.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() {
		stop()
		cancel()
		s.mu.Lock()
		*running--
		s.mu.Unlock()
		s.calls.Done()
	}, nil
}

// refuse is err as the answer to a call.
func (s *Server) refuse(err error) error {
	if s.life.Err() != nil && !errors.Is(err, rpc.ErrClosed) {
		err = fmt.Errorf("%w: %w", rpc.ErrClosed, err)
	}
	return statusOf(err, s.backend.LeaderHint())
}

// Watch implements pb.ControlPlaneServer.
func (s *Server) Watch(req *pb.WatchRequest, stream grpc.ServerStreamingServer[pb.TableUpdate]) error {
	ctx, done, err := s.begin(stream.Context(), req.GetVersions(), &s.watches, s.opts.MaxWatches)
	if err != nil {
		return err
	}
	defer done()
	w := watch{server: s, stream: stream, after: req.GetAfter()}
	table, err := w.begin(ctx, req.GetClusterId())
	for err == nil {
		if err = w.tell(ctx, table); err == nil {
			table, err = w.wait(ctx)
		}
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return s.refuse(err)
}

// watch is one Watch call.
type watch struct {
	server *Server
	stream grpc.ServerStreamingServer[pb.TableUpdate]
	after  uint64 // version of the newest table that the client has
}

// begin is the first look at the table. Only a client that has none gets it: it
// may be one that the member makes do with while it does not know who leads what,
// and that those who have a table are not to take for news.
func (w *watch) begin(ctx context.Context, cluster string) (*rpc.Table, error) {
	table, err := w.server.backend.Table(ctx, 0)
	switch {
	case err != nil:
		return nil, err
	case cluster != "" && table.ClusterID != cluster:
		return nil, fmt.Errorf("watch: %w: this is %s, not %s", rpc.ErrWrongCluster, table.ClusterID, cluster)
	case w.after > 0:
		return nil, nil
	}
	return table, nil
}

// tell sends the table when it is news, else that there is none.
func (w *watch) tell(ctx context.Context, table *rpc.Table) error {
	if w.server.backend.LeaderHint() == "" {
		// This member may be cut off, and its table old.
		return fmt.Errorf("watch: %w", rpc.ErrUnavailable)
	}
	if table == nil || table.Version <= w.after {
		return w.stream.Send(&pb.TableUpdate{Version: maxVersion})
	}
	if err := w.stream.Send(w.server.update(table)); err != nil {
		return err
	}
	w.after = table.Version
	pause := time.NewTimer(w.server.opts.UpdateGap)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	return nil
}

// wait returns the next table, or nil after a heartbeat's time: what the member
// returns then need not be news, and if it is, the next call has it at once.
func (w *watch) wait(ctx context.Context) (*rpc.Table, error) {
	beat, cancel := context.WithTimeout(ctx, w.server.opts.Heartbeat)
	defer cancel()
	table, err := w.server.backend.Table(beat, w.after)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("watch: %w", ctx.Err())
	case err == nil && beat.Err() != nil:
		return nil, nil
	}
	return table, err
}

// update encodes a table once for all watches.
func (s *Server) update(table *rpc.Table) *pb.TableUpdate {
	if e := s.encoded.Load(); e != nil && e.table == table {
		return e.update
	}
	e := &encodedTable{table: table, update: &pb.TableUpdate{Version: maxVersion, Table: tableToWire(table)}}
	s.encoded.Store(e)
	return e.update
}

// Session implements pb.ControlPlaneServer.
func (s *Server) Session(ctx context.Context, req *pb.SessionRequest) (*pb.SessionReply, error) {
	ctx, done, err := s.begin(ctx, req.GetVersions(), &s.sessions, s.opts.MaxSessions)
	if err != nil {
		return nil, err
	}
	defer done()
	report, err := reportFromWire(req)
	if err != nil {
		return nil, s.refuse(fmt.Errorf("session: %w: %w", rpc.ErrInvalid, err))
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.MaxSession)
	defer cancel()
	assignment, err := s.backend.Session(ctx, report)
	if err != nil {
		return nil, s.refuse(err)
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(assignmentToWire(assignment))
	if err != nil {
		return nil, s.refuse(fmt.Errorf("session: encode assignment: %w", err))
	}
	digest := sha256.Sum256(body)
	reply := &pb.SessionReply{Version: maxVersion, Digest: digest[:]}
	if string(digest[:]) != string(req.GetHaveDigest()) {
		reply.Assignment = body
	}
	return reply, nil
}
