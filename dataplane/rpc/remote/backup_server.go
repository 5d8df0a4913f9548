package remote

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

const (
	// maxExportTime bounds one Export: what it reads is kept on the disk so long.
	maxExportTime = time.Hour
	// maxExportChunk bounds one message of an Export.
	maxExportChunk = 256 << 10
)

// backupServer answers the calls of Operators. Who may call is for the owner of
// the gRPC server to decide.
type backupServer struct {
	pb.UnimplementedBackupServer
	*Server
	node rpc.Backup
}

// BackupService is the name of the service that reads and fills whole groups.
// Its callers are operators, so whoever owns the gRPC server refuses it to
// others.
const BackupService = "fastpaca.dataplane.v1.Backup"

// registerBackup adds the service if the node has one.
func (s *Server) registerBackup(r grpc.ServiceRegistrar) {
	if node, ok := s.node.(rpc.Backup); ok {
		pb.RegisterBackupServer(r, &backupServer{Server: s, node: node})
	}
}

func groupOf(number uint32) (rpc.Group, error) {
	if number >= rpc.Groups {
		return 0, statusOf(fmt.Errorf("%w: group %d", ErrInvalidRequest, number))
	}
	return rpc.Group(number), nil
}

// GroupState implements pb.BackupServer.
func (s *backupServer) GroupState(ctx context.Context, p *pb.GroupStateRequest) (*pb.GroupStateReply, error) {
	ctx, end, err := s.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	group, err := groupOf(p.GetGroup())
	if err != nil {
		return nil, err
	}
	state, err := s.node.GroupState(ctx, group)
	if err != nil {
		return nil, statusOf(err)
	}
	return groupStateToWire(state), nil
}

// Export implements pb.BackupServer. The node bounds how many run at once.
func (s *backupServer) Export(p *pb.ExportRequest, stream grpc.ServerStreamingServer[pb.ExportChunk]) error {
	ctx, end, err := s.begin(stream.Context(), maxExportTime)
	if err != nil {
		return err
	}
	defer end()
	group, err := groupOf(p.GetGroup())
	if err != nil {
		return err
	}
	w := &chunkWriter{stream: stream, buf: make([]byte, 0, maxExportChunk)}
	if err = s.node.Export(ctx, group, w); err == nil {
		err = w.flush()
	}
	if err != nil {
		return statusOf(err)
	}
	return nil
}

// chunkWriter gathers what is written into messages.
type chunkWriter struct {
	stream grpc.ServerStreamingServer[pb.ExportChunk]
	buf    []byte
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return len(p) - len(rest), err
			}
		}
		n := min(cap(w.buf)-len(w.buf), len(rest))
		w.buf = append(w.buf, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

// flush sends what is gathered. gRPC has encoded it when Send returns.
func (w *chunkWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.stream.Send(&pb.ExportChunk{Data: w.buf})
	w.buf = w.buf[:0]
	return err
}

// Restore implements pb.BackupServer.
func (s *backupServer) Restore(ctx context.Context, p *pb.RestoreRequest) (*pb.RestoreReply, error) {
	ctx, end, err := s.beginRead(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	group, err := groupOf(p.GetGroup())
	if err != nil {
		return nil, err
	}
	if n := len(p.GetRows()); n > rpc.MaxRestoreBytes {
		return nil, statusOf(fmt.Errorf("%w: %d bytes of rows", ErrInvalidRequest, n))
	}
	req := &rpc.RestoreRequest{Group: group, After: p.GetAfter(), Numbers: p.GetNumbers(), Rows: p.GetRows()}
	if p.GetTotal() != nil {
		total := groupStateFromWire(p.GetTotal())
		req.Total = &total
	}
	reply, err := s.node.Restore(ctx, req)
	if err != nil {
		return nil, statusOf(err)
	}
	return &pb.RestoreReply{Taken: reply.Taken, Refused: reply.Refused, State: groupStateToWire(&reply.State)}, nil
}

func groupStateToWire(s *rpc.GroupState) *pb.GroupStateReply {
	return &pb.GroupStateReply{
		Group: uint32(s.Group), Applied: s.Applied, Conversations: s.Conversations, Messages: s.Messages,
		Rows: s.Rows, Bytes: s.Bytes, Epoch: s.Epoch, Restoring: s.Restoring,
	}
}

func groupStateFromWire(p *pb.GroupStateReply) rpc.GroupState {
	return rpc.GroupState{
		Group: rpc.Group(p.GetGroup()), Applied: p.GetApplied(), Conversations: p.GetConversations(), Messages: p.GetMessages(),
		Rows: p.GetRows(), Bytes: p.GetBytes(), Epoch: p.GetEpoch(), Restoring: p.GetRestoring(),
	}
}
