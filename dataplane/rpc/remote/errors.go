package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// maxErrorText bounds the text of an error on the wire.
const maxErrorText = 512

// A sentinel of package rpc, its code on the wire, and the gRPC status that an
// error gets on unary calls if this is the first sentinel that it is. The first
// ones are therefore those that say most to somebody watching gRPC alone.
var sentinels = []struct {
	err    error
	code   pb.Code
	status codes.Code
}{
	{rpc.ErrOutcomeUnknown, pb.Code_CODE_OUTCOME_UNKNOWN, codes.Unknown},
	{ErrInvalidRequest, pb.Code_CODE_INVALID_REQUEST, codes.InvalidArgument},
	{rpc.ErrInvalidID, pb.Code_CODE_INVALID_ID, codes.InvalidArgument},
	{rpc.ErrNotFound, pb.Code_CODE_NOT_FOUND, codes.NotFound},
	{rpc.ErrTombstoned, pb.Code_CODE_TOMBSTONED, codes.FailedPrecondition},
	{rpc.ErrIdempotencyConflict, pb.Code_CODE_IDEMPOTENCY_CONFLICT, codes.AlreadyExists},
	{rpc.ErrCorrupt, pb.Code_CODE_CORRUPT, codes.DataLoss},
	{rpc.ErrEpochFenced, pb.Code_CODE_EPOCH_FENCED, codes.Aborted},
	{rpc.ErrMinSeqTimeout, pb.Code_CODE_MIN_SEQ_TIMEOUT, codes.DeadlineExceeded},
	{rpc.ErrStorageFull, pb.Code_CODE_STORAGE_FULL, codes.ResourceExhausted},
	{rpc.ErrOverloaded, pb.Code_CODE_OVERLOADED, codes.ResourceExhausted},
	{rpc.ErrArchiveUnavailable, pb.Code_CODE_ARCHIVE_UNAVAILABLE, codes.Unavailable},
	{rpc.ErrClosed, pb.Code_CODE_CLOSED, codes.Unavailable},
	{rpc.ErrUnavailable, pb.Code_CODE_UNAVAILABLE, codes.Unavailable},
}

// wireError is an error that came over the network. It is every sentinel and
// typed error that the error was where it was made.
type wireError struct {
	text string
	is   []error
}

func (e *wireError) Error() string   { return e.text }
func (e *wireError) Unwrap() []error { return e.is }

// errorToWire describes err for the other side.
func errorToWire(err error) *pb.Error {
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	e := &pb.Error{Text: strings.ToValidUTF8(text, "\uFFFD")}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			e.Codes = append(e.Codes, s.code)
		}
	}
	if t, ok := errors.AsType[*rpc.VersionConflictError](err); ok {
		e.VersionConflict = &pb.VersionConflict{Current: t.Current}
	}
	if t, ok := errors.AsType[*rpc.CursorExpiredError](err); ok {
		e.CursorExpired = &pb.CursorExpired{Earliest: t.Earliest}
	}
	if t, ok := errors.AsType[*rpc.NotLeaderError](err); ok {
		e.NotLeader = &pb.NotLeader{Group: uint32(t.Group), Leader: []byte(t.Leader)}
	}
	return e
}

// errorFromWire restores an error. One that is nothing this side knows is
// unknown.
func errorFromWire(e *pb.Error, unknown error) error {
	w := &wireError{text: e.GetText()}
	for _, code := range e.GetCodes() {
		for _, s := range sentinels {
			if s.code == code {
				w.is = append(w.is, s.err)
			}
		}
	}
	if t := e.GetVersionConflict(); t != nil {
		w.is = append(w.is, &rpc.VersionConflictError{Current: t.GetCurrent()})
	}
	if t := e.GetCursorExpired(); t != nil {
		w.is = append(w.is, &rpc.CursorExpiredError{Earliest: t.GetEarliest()})
	}
	if t := e.GetNotLeader(); t != nil {
		w.is = append(w.is, &rpc.NotLeaderError{Group: rpc.Group(t.GetGroup()), Leader: string(t.GetLeader())})
	}
	if len(w.is) == 0 {
		return fmt.Errorf("%w: data node: %s", unknown, w.text)
	}
	return w
}

// statusOf is err as the answer to a unary call.
func statusOf(err error) error {
	e := errorToWire(err)
	code := codes.Internal
	switch {
	case e.GetVersionConflict() != nil:
		code = codes.Aborted
	case e.GetCursorExpired() != nil:
		code = codes.OutOfRange
	default:
		for _, s := range sentinels {
			if errors.Is(err, s.err) {
				code = s.status
				break
			}
		}
	}
	st := status.New(code, e.GetText())
	if detailed, err := st.WithDetails(e); err == nil {
		st = detailed
	}
	return st.Err()
}

// readError is what a failed unary read means to its caller. Nothing is
// lost by a read that failed on the way: it is rpc.ErrUnavailable, and the
// caller's own context error beside it when that is why.
func readError(ctx context.Context, op string, err error) error {
	st, _ := status.FromError(err)
	for _, d := range st.Details() {
		if e, ok := d.(*pb.Error); ok {
			return errorFromWire(e, rpc.ErrUnavailable)
		}
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%s: %w: %w", op, rpc.ErrUnavailable, cause)
	}
	return fmt.Errorf("%s: %w: %w", op, rpc.ErrUnavailable, err)
}
