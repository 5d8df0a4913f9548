package group

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func caller(id byte, flags trace.TraceFlags) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{id}, SpanID: trace.SpanID{id}, TraceFlags: flags})
}

// Sampled appends that share an entry link each other; the others are not seen.
func TestSampledAppendsOfAnEntryAreLinked(t *testing.T) {
	t.Parallel()
	exported := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported))
	g := &Group{opts: Options{Group: testGroup, NodeID: "n1", Tracer: provider.Tracer("")}, born: time.Now()}
	var members []*proposal
	var passages []passage
	for id := range byte(4) {
		ctx := trace.ContextWithRemoteSpanContext(t.Context(), caller(id+1, trace.TraceFlags(id%2)))
		p := passage{span: traced(ctx), enqueued: 1, course: course{2, 3, 4}}
		members, passages = append(members, &proposal{span: p.span}), append(passages, p)
	}
	require.Nil(t, sharing(members[:3]), "one sampled append has nobody to link")
	shared := sharing(members)
	require.Len(t, shared, 2)
	for id := range passages {
		passages[id].shared = shared
		ctx := trace.ContextWithRemoteSpanContext(t.Context(), caller(byte(id)+1, trace.TraceFlags(id%2)))
		var err error
		if id == 3 {
			err = fmt.Errorf("commit: %w", rpc.ErrOutcomeUnknown)
		}
		g.passed(ctx, &passages[id], err)
	}
	spans := exported.GetSpans()
	require.Len(t, spans, 2*5)
	for _, span := range spans {
		switch span.Name {
		case "replicate":
			require.Len(t, span.Links, 1)
			other := byte(2 + 4 - int(span.SpanContext.TraceID()[0]))
			require.Equal(t, trace.TraceID{other}, span.Links[0].SpanContext.TraceID())
		case "append in group":
			require.Equal(t, span.SpanContext.TraceID()[0] == 4, len(span.Events) == 1, "the error is with its append")
			require.True(t, span.Parent.IsRemote())
		}
	}
	many := make([]*proposal, 3*maxLinks)
	for i := range many {
		many[i] = members[1]
	}
	require.Len(t, sharing(many), maxLinks+1)
}
