package remote

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// Operator is a data node on the other side of a network, as those who look
// after a cluster see it. It opens no stream and starts no goroutine of its own.
// Failures on the way are rpc.ErrUnavailable, or rpc.ErrOutcomeUnknown for a step
// of a restore. Methods may be called from any goroutine.
type Operator struct {
	backup pb.BackupClient
	data   pb.DataPlaneClient
}

var (
	_ rpc.Backup    = (*Operator)(nil)
	_ rpc.Inspector = (*Operator)(nil)
)

// NewOperator returns one that calls the node behind conn, which stays the
// caller's.
func NewOperator(conn grpc.ClientConnInterface) *Operator {
	return &Operator{backup: pb.NewBackupClient(conn), data: pb.NewDataPlaneClient(conn)}
}

// StateHash implements rpc.Inspector.
func (o *Operator) StateHash(ctx context.Context, group rpc.Group) (*rpc.StateHash, error) {
	return (&Client{reads: o.data}).StateHash(ctx, group)
}

// GroupState implements rpc.Backup.
func (o *Operator) GroupState(ctx context.Context, group rpc.Group) (*rpc.GroupState, error) {
	const op = "group state"
	p, err := o.backup.GroupState(ctx, &pb.GroupStateRequest{Group: uint32(group)}, readOptions...)
	if err != nil {
		return nil, readError(ctx, op, err)
	}
	return answered(op, group, p, rpc.ErrUnavailable)
}

func answered(op string, group rpc.Group, p *pb.GroupStateReply, otherwise error) (*rpc.GroupState, error) {
	state := groupStateFromWire(p)
	if p.GetGroup() != uint32(group) {
		return nil, fmt.Errorf("%s: %w: an answer about group %d", op, otherwise, p.GetGroup())
	}
	return &state, nil
}

// Export implements rpc.Backup.
func (o *Operator) Export(ctx context.Context, group rpc.Group, w io.Writer) error {
	const op = "export"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream when w fails
	stream, err := o.backup.Export(ctx, &pb.ExportRequest{Group: uint32(group)})
	if err != nil {
		return readError(ctx, op, err)
	}
	for {
		chunk, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return readError(ctx, op, err)
		}
		if _, err := w.Write(chunk.GetData()); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
}

// Restore implements rpc.Backup.
func (o *Operator) Restore(ctx context.Context, req *rpc.RestoreRequest) (*rpc.RestoreReply, error) {
	const op = "restore"
	if n := len(req.Rows); n > rpc.MaxRestoreBytes {
		return nil, fmt.Errorf("%s: %w: %d bytes of rows", op, ErrInvalidRequest, n)
	}
	p := &pb.RestoreRequest{Group: uint32(req.Group), After: req.After, Numbers: req.Numbers, Rows: req.Rows}
	if req.Total != nil {
		p.Total = groupStateToWire(req.Total)
	}
	out, err := o.backup.Restore(ctx, p, readOptions...)
	if err != nil {
		return nil, restoreError(ctx, op, err)
	}
	state, err := answered(op, req.Group, out.GetState(), rpc.ErrOutcomeUnknown)
	if err != nil {
		return nil, err
	}
	return &rpc.RestoreReply{Taken: out.GetTaken(), Refused: out.GetRefused(), State: *state}, nil
}

// restoreError is what a failed step means: what failed on the way may have
// happened.
func restoreError(ctx context.Context, op string, err error) error {
	st, _ := status.FromError(err)
	for _, d := range st.Details() {
		if e, ok := d.(*pb.Error); ok {
			return errorFromWire(e, rpc.ErrOutcomeUnknown)
		}
	}
	return fmt.Errorf("%s: %w: %w", op, rpc.ErrOutcomeUnknown, errors.Join(err, ctx.Err()))
}
