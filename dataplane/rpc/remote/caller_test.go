package remote

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

var callerGen = rapid.Custom(func(t *rapid.T) *caller {
	c := new(caller)
	copy(c.trace[:], rapid.SliceOfN(rapid.Byte(), traceBytes, traceBytes).Draw(t, "trace"))
	c.trace[traceBytes-1] |= byte(trace.FlagsSampled)
	c.state = rapid.StringMatching(`([a-z]{1,8}=[a-z0-9]{1,8})?`).Draw(t, "state")
	return c
})

func sampled(t *testing.T, flags trace.TraceFlags) context.Context {
	state, err := trace.ParseTraceState("vendor=value")
	require.NoError(t, err)
	return trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3, 4}, TraceFlags: flags, TraceState: state,
	}))
}

func TestASampledCallerReachesTheNode(t *testing.T) {
	t.Parallel()
	seen := make(chan trace.SpanContext, 1)
	node := &stubNode{append: func(ctx context.Context, _ *rpc.AppendRequest) (*rpc.AppendReply, error) {
		seen <- trace.SpanContextFromContext(ctx)
		return &rpc.AppendReply{Took: 1234567}, nil
	}}
	client := pair(t, node)
	for flags, travels := range map[trace.TraceFlags]bool{trace.FlagsSampled: true, 0: false} {
		ctx := sampled(t, flags)
		reply, err := client.Append(ctx, &rpc.AppendRequest{Key: "k", Messages: []rpc.NewMessage{{Content: []byte("x")}}})
		require.NoError(t, err)
		require.EqualValues(t, 1234000, reply.Took, "in microseconds")
		got := <-seen
		require.Equal(t, travels, got.IsValid())
		if travels {
			want := trace.SpanContextFromContext(ctx)
			require.True(t, want.WithRemote(true).Equal(got))
			require.Equal(t, "vendor=value", got.TraceState().String())
		}
	}
}

func TestATraceOfAnotherFormIsIgnored(t *testing.T) {
	t.Parallel()
	valid := make([]byte, traceBytes)
	valid[traceBytes-1] = 1
	require.NotNil(t, decodeCaller(valid, nil))
	require.Nil(t, decodeCaller(nil, nil))
	require.Nil(t, decodeCaller(valid[:traceBytes-1], nil))
	require.Nil(t, decodeCaller(append(valid, 0), nil))
	require.Nil(t, decodeCaller(make([]byte, traceBytes), nil), "not sampled")
	require.Nil(t, decodeCaller(valid, []byte(strings.Repeat("x", maxTraceState+1))))
	require.NotNil(t, decodeCaller(valid, []byte("no state at all")).context(t.Context()))
}
