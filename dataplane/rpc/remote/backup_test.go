package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// backedUp is a node that can be backed up.
type backedUp struct {
	stubNode
	state   func(context.Context, rpc.Group) (*rpc.GroupState, error)
	export  func(context.Context, rpc.Group, io.Writer) error
	restore func(context.Context, *rpc.RestoreRequest) (*rpc.RestoreReply, error)
}

func (n *backedUp) GroupState(ctx context.Context, g rpc.Group) (*rpc.GroupState, error) {
	return n.state(ctx, g)
}

func (n *backedUp) Export(ctx context.Context, g rpc.Group, w io.Writer) error {
	return n.export(ctx, g, w)
}

func (n *backedUp) Restore(ctx context.Context, req *rpc.RestoreRequest) (*rpc.RestoreReply, error) {
	return n.restore(ctx, req)
}

func operate(t *testing.T, node rpc.Node) *Operator {
	t.Helper()
	return NewOperator(connect(t, serve(t, "", node, ServerOptions{}).address))
}

func TestOperator(t *testing.T) {
	t.Parallel()
	ctx := within10s(t)
	whole := bytes.Repeat([]byte("rows of a group "), 60_000) // several chunks
	held := rpc.GroupState{Group: 9, Applied: 1, Conversations: 2, Messages: 3, Rows: 4, Bytes: 5, Epoch: 6, Restoring: true}
	step := &rpc.RestoreRequest{Group: 9, After: 7, Numbers: 8, Rows: []byte("rows"), Total: &rpc.GroupState{Conversations: 2, Messages: 3, Rows: 4, Bytes: 5}}
	n := &backedUp{
		state: func(context.Context, rpc.Group) (*rpc.GroupState, error) { return &held, nil },
		export: func(_ context.Context, g rpc.Group, w io.Writer) error {
			require.EqualValues(t, 9, g)
			_, err := w.Write(whole)
			return err
		},
		restore: func(_ context.Context, req *rpc.RestoreRequest) (*rpc.RestoreReply, error) {
			require.Equal(t, step, req)
			return &rpc.RestoreReply{Refused: "no", State: held}, nil
		},
	}
	o := operate(t, n)
	got, err := o.GroupState(ctx, 9)
	require.NoError(t, err)
	require.Equal(t, &held, got)
	var w bytes.Buffer
	require.NoError(t, o.Export(ctx, 9, &w))
	require.Equal(t, whole, w.Bytes())
	reply, err := o.Restore(ctx, step)
	require.NoError(t, err)
	require.Equal(t, &rpc.RestoreReply{Refused: "no", State: held}, reply)

	_, err = o.GroupState(ctx, 8)
	require.ErrorIs(t, err, rpc.ErrUnavailable, "an answer about another group is none")
	_, err = o.GroupState(ctx, rpc.Groups)
	require.Error(t, err)
	require.Error(t, o.Export(ctx, rpc.Groups, io.Discard))
	_, err = o.Restore(ctx, &rpc.RestoreRequest{Group: rpc.Groups})
	require.Error(t, err)
	_, err = o.Restore(ctx, &rpc.RestoreRequest{Rows: make([]byte, rpc.MaxRestoreBytes+1)})
	require.ErrorIs(t, err, ErrInvalidRequest)
}

func TestOperatorFailures(t *testing.T) {
	t.Parallel()
	ctx := within10s(t)
	away := &rpc.NotLeaderError{Group: 9, Leader: "d2"}
	n := &backedUp{
		state: func(context.Context, rpc.Group) (*rpc.GroupState, error) { return nil, away },
		export: func(_ context.Context, _ rpc.Group, w io.Writer) error {
			_, err := w.Write(make([]byte, 2*maxExportChunk))
			return errors.Join(err, rpc.ErrOverloaded)
		},
		restore: func(context.Context, *rpc.RestoreRequest) (*rpc.RestoreReply, error) { return nil, away },
	}
	server := serve(t, "", n, ServerOptions{})
	o := NewOperator(connect(t, server.address))
	var got *rpc.NotLeaderError
	_, err := o.GroupState(ctx, 9)
	require.ErrorAs(t, err, &got)
	require.Equal(t, "d2", got.Leader)
	_, err = o.Restore(ctx, &rpc.RestoreRequest{Group: 9})
	require.ErrorAs(t, err, &got)
	require.ErrorIs(t, o.Export(ctx, 9, io.Discard), rpc.ErrOverloaded, "a stream that fails at its end is no backup")
	full := errors.New("full")
	require.ErrorIs(t, o.Export(ctx, 9, failing{full}), full)
	server.kill()
	_, err = o.GroupState(ctx, 9)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	_, err = o.Restore(ctx, &rpc.RestoreRequest{Group: 9})
	require.ErrorIs(t, err, rpc.ErrOutcomeUnknown, "it may have arrived")

	_, err = operate(t, &stubNode{}).GroupState(ctx, 9)
	require.Error(t, err)
	require.Equal(t, codes.InvalidArgument, status.Code(mustFail(groupOf(rpc.Groups))))
}

func mustFail(_ rpc.Group, err error) error { return err }

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
