package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

var allSentinels = []error{
	rpc.ErrInvalidID, rpc.ErrNotFound, rpc.ErrTombstoned, rpc.ErrIdempotencyConflict, rpc.ErrUnavailable,
	rpc.ErrOverloaded, rpc.ErrOutcomeUnknown, rpc.ErrStorageFull, rpc.ErrCorrupt, rpc.ErrEpochFenced,
	rpc.ErrClosed, rpc.ErrMinSeqTimeout, ErrInvalidRequest,
}

// errorCases are errors of a node and what they must be on the other side.
func errorCases() map[string]error {
	cases := map[string]error{
		"version conflict": &rpc.VersionConflictError{Current: 42},
		"cursor expired":   &rpc.CursorExpiredError{Earliest: 43},
		"not leader":       &rpc.NotLeaderError{Group: 255, Leader: "d2"},
		"leader unknown":   &rpc.NotLeaderError{Group: 3},
		"two at once":      fmt.Errorf("%w: %w", rpc.ErrOutcomeUnknown, &rpc.NotLeaderError{Group: 1, Leader: "d3"}),
		"joined":           errors.Join(rpc.ErrStorageFull, &rpc.VersionConflictError{Current: 1}),
	}
	for _, s := range allSentinels {
		cases[s.Error()] = s
	}
	return cases
}

// requireSameError checks that got is all that want is, and nothing else.
func requireSameError(t *testing.T, want, got error) {
	t.Helper()
	for _, s := range allSentinels {
		require.Equal(t, errors.Is(want, s), errors.Is(got, s), "errors.Is %q of %v", s, got)
	}
	requireSameType[*rpc.VersionConflictError](t, want, got)
	requireSameType[*rpc.CursorExpiredError](t, want, got)
	requireSameType[*rpc.NotLeaderError](t, want, got)
	require.Contains(t, got.Error(), want.Error(), "the text arrives")
}

func requireSameType[E interface {
	error
	comparable
}](t *testing.T, want, got error) {
	t.Helper()
	a, inWant := errors.AsType[E](want)
	b, inGot := errors.AsType[E](got)
	require.Equal(t, inWant, inGot)
	if inWant {
		require.Equal(t, a, b)
	}
}

// Every error of every method of a node is the same behind the network.
func TestErrorsSurviveTheHop(t *testing.T) {
	t.Parallel()
	var fail error
	node := &stubNode{
		put:          func(context.Context, *rpc.PutRequest) (*rpc.PutReply, error) { return nil, fail },
		append:       func(context.Context, *rpc.AppendRequest) (*rpc.AppendReply, error) { return nil, fail },
		tombstone:    func(context.Context, rpc.Key) error { return fail },
		conversation: func(context.Context, rpc.Key, rpc.ReadOptions) (*rpc.Conversation, error) { return nil, fail },
		messages:     func(context.Context, *rpc.MessagesRequest) (*rpc.Page, error) { return nil, fail },
		tail:         func(context.Context, *rpc.TailRequest) (*rpc.Page, error) { return nil, fail },
		list:         func(context.Context, *rpc.ListRequest) (*rpc.ListReply, error) { return nil, fail },
	}
	client := pair(t, node)
	ctx := within10s(t)
	methods := map[string]func() error{
		"put": func() error { _, err := client.Put(ctx, &rpc.PutRequest{Key: "k"}); return err },
		"append": func() error {
			reply, err := client.Append(ctx, appendOf("k", "x"))
			require.Nil(t, reply)
			return err
		},
		"tombstone":    func() error { return client.Tombstone(ctx, "k") },
		"conversation": func() error { _, err := client.Conversation(ctx, "k", rpc.ReadOptions{}); return err },
		"messages":     func() error { _, err := client.Messages(ctx, &rpc.MessagesRequest{Key: "k"}); return err },
		"tail":         func() error { _, err := client.Tail(ctx, &rpc.TailRequest{Key: "k"}); return err },
		"list":         func() error { _, err := client.List(ctx, &rpc.ListRequest{}); return err },
	}
	for name, cause := range errorCases() {
		for _, wrapped := range []error{cause, fmt.Errorf("group 7: deep inside: %w", cause)} {
			fail = wrapped
			for method, call := range methods {
				err := call()
				require.Error(t, err, "%s %s", method, name)
				requireSameError(t, wrapped, err)
				require.True(t, strings.HasPrefix(err.Error(), method+": ") || method != "append", "%v", err)
			}
		}
	}
}

// An error that says nothing about the outcome leaves that of a write unknown.
func TestUnclassifiedErrors(t *testing.T) {
	t.Parallel()
	strange := errors.New("something that this side has never heard of \xff")
	client := pair(t, &stubNode{
		append:   func(context.Context, *rpc.AppendRequest) (*rpc.AppendReply, error) { return nil, strange },
		messages: func(context.Context, *rpc.MessagesRequest) (*rpc.Page, error) { return nil, strange },
	})
	_, err := client.Append(within10s(t), appendOf("k", "x"))
	require.ErrorIs(t, err, rpc.ErrOutcomeUnknown)
	require.NotErrorIs(t, err, rpc.ErrUnavailable)
	_, err = client.Messages(within10s(t), &rpc.MessagesRequest{Key: "k"})
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.NotErrorIs(t, err, rpc.ErrOutcomeUnknown)
}

// A code of a later version counts as no code.
func TestUnknownCodes(t *testing.T) {
	t.Parallel()
	err := errorFromWire(&pb.Error{Codes: []pb.Code{999}, Text: "new"}, rpc.ErrOutcomeUnknown)
	require.ErrorIs(t, err, rpc.ErrOutcomeUnknown)
	require.ErrorIs(t, errorFromWire(nil, rpc.ErrUnavailable), rpc.ErrUnavailable)
	err = errorFromWire(&pb.Error{Codes: []pb.Code{999, pb.Code_CODE_NOT_FOUND}}, rpc.ErrOutcomeUnknown)
	require.ErrorIs(t, err, rpc.ErrNotFound)
	require.NotErrorIs(t, err, rpc.ErrOutcomeUnknown)
}

func TestErrorTextIsBounded(t *testing.T) {
	t.Parallel()
	e := errorToWire(fmt.Errorf("%s: %w", strings.Repeat("long", 1000), rpc.ErrNotFound))
	require.LessOrEqual(t, len(e.GetText()), maxErrorText)
	require.Equal(t, []pb.Code{pb.Code_CODE_NOT_FOUND}, e.GetCodes())
}

// Somebody who watches gRPC alone sees what kind of error it was.
func TestStatusCodes(t *testing.T) {
	t.Parallel()
	for want, err := range map[codes.Code]error{
		codes.NotFound:          fmt.Errorf("x: %w", rpc.ErrNotFound),
		codes.Unavailable:       &rpc.NotLeaderError{Group: 1},
		codes.Aborted:           &rpc.VersionConflictError{},
		codes.OutOfRange:        &rpc.CursorExpiredError{},
		codes.InvalidArgument:   ErrInvalidRequest,
		codes.ResourceExhausted: rpc.ErrOverloaded,
		codes.Internal:          errors.New("unclassified"),
	} {
		require.Equal(t, want, status.Code(statusOf(err)))
	}
}

// What gRPC itself reports of a read: it never happened, and why is told.
func TestReadErrorsOfTheTransport(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	err := readError(ctx, "tail", status.Error(codes.Unavailable, "connection refused"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.NotErrorIs(t, err, context.Canceled)
	cancel()
	err = readError(ctx, "tail", status.Error(codes.Canceled, "canceled"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)
	expired, cancel := context.WithTimeout(context.Background(), -time.Second)
	defer cancel()
	err = readError(expired, "tail", status.Error(codes.DeadlineExceeded, "late"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
