package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/controlplane/rpc/remote/pb"
)

// maxErrorText bounds the text of an error on the wire.
const maxErrorText = 512

// A sentinel of package rpc, its code on the wire, and its gRPC status. The
// first that an error is counts: what no other member would answer otherwise
// comes before what one might.
var sentinels = []struct {
	err    error
	code   pb.Code
	status codes.Code
}{
	{rpc.ErrInvalid, pb.Code_CODE_INVALID, codes.InvalidArgument},
	{rpc.ErrWrongCluster, pb.Code_CODE_WRONG_CLUSTER, codes.FailedPrecondition},
	{rpc.ErrNodeConflict, pb.Code_CODE_NODE_CONFLICT, codes.AlreadyExists},
	{rpc.ErrRemoved, pb.Code_CODE_REMOVED, codes.FailedPrecondition},
	{rpc.ErrClosed, pb.Code_CODE_CLOSED, codes.Unavailable},
	{rpc.ErrUnavailable, pb.Code_CODE_UNAVAILABLE, codes.Unavailable},
}

// wireError is an error that came over the network.
type wireError struct {
	text string
	is   error
}

func (e *wireError) Error() string { return e.text }
func (e *wireError) Unwrap() error { return e.is }

// statusOf is err as the answer to a call. hint is the address of the leader as
// far as the member knows; it is told when another member may help.
func statusOf(err error, hint string) error {
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	e := &pb.Error{Code: pb.Code_CODE_UNAVAILABLE, Text: strings.ToValidUTF8(text, "\uFFFD")}
	code := codes.Unavailable
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			e.Code, code = s.code, s.status
			break
		}
	}
	if e.Code == pb.Code_CODE_UNAVAILABLE || e.Code == pb.Code_CODE_CLOSED {
		e.Address = strings.ToValidUTF8(hint, "")
		if t, ok := errors.AsType[*rpc.NotLeaderError](err); ok && t.Address != "" {
			e.Leader, e.Address = strings.ToValidUTF8(t.Leader, ""), strings.ToValidUTF8(t.Address, "")
		}
	}
	st := status.New(code, e.GetText())
	if detailed, err := st.WithDetails(e); err == nil {
		st = detailed
	}
	return st.Err()
}

// failure is what a failed attempt to ask a member means.
type failure struct {
	err error
	// final: no other member would answer otherwise.
	final bool
	// hint is the address of the leader, or empty.
	hint string
	// broken: no member has answered, so the connection is not to be trusted.
	broken bool
}

// failureOf reads the error of a call.
func failureOf(err error) failure {
	st, _ := status.FromError(err)
	for _, d := range st.Details() {
		if e, ok := d.(*pb.Error); ok {
			return failureFromWire(e)
		}
	}
	return failure{err: fmt.Errorf("%w: %w", rpc.ErrUnavailable, err), broken: true}
}

func failureFromWire(e *pb.Error) failure {
	f := failure{hint: e.GetAddress(), final: true}
	var is error
	switch e.GetCode() {
	case pb.Code_CODE_INVALID:
		is = rpc.ErrInvalid
	case pb.Code_CODE_WRONG_CLUSTER:
		is = rpc.ErrWrongCluster
	case pb.Code_CODE_NODE_CONFLICT:
		is = rpc.ErrNodeConflict
	case pb.Code_CODE_REMOVED:
		is = rpc.ErrRemoved
	default:
		// A member that is shutting down is to the client one that is not there.
		is, f.final = rpc.ErrUnavailable, false
		if e.GetLeader() != "" {
			is = &rpc.NotLeaderError{Leader: e.GetLeader(), Address: e.GetAddress()}
		}
	}
	f.err = &wireError{text: e.GetText(), is: is}
	return f
}

// ended is the error of a call whose context ended before a member answered.
func ended(ctx context.Context, last error) error {
	if last == nil {
		return fmt.Errorf("%w: %w", rpc.ErrUnavailable, ctx.Err())
	}
	return fmt.Errorf("%w: %w", last, ctx.Err())
}
