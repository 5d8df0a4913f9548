package main

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestSamplingFromTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		sampler, arg string
		want         sampling
		wrong        bool
	}{
		{"", "", sampling{0.01, true}, false},
		{"", "0.5", sampling{0.5, true}, false},
		{"parentbased_traceidratio", "", sampling{1, true}, false},
		{"parentbased_traceidratio", "0", sampling{0, true}, false},
		{"traceidratio", "0.25", sampling{0.25, false}, false},
		{"always_on", "7", sampling{1, false}, false},
		{"always_off", "", sampling{0, false}, false},
		{"parentbased_always_on", "", sampling{1, true}, false},
		{"parentbased_always_off", "", sampling{0, true}, false},
		{"", "2", sampling{}, true},
		{"", "NaN", sampling{}, true},
		{"traceidratio", "some", sampling{}, true},
		{"jaeger_remote", "", sampling{}, true},
	} {
		t.Run(tc.sampler+" "+tc.arg, func(t *testing.T) {
			t.Setenv("OTEL_TRACES_SAMPLER", tc.sampler)
			t.Setenv("OTEL_TRACES_SAMPLER_ARG", tc.arg)
			got, err := samplingFromEnv()
			if tc.wrong {
				require.ErrorContains(t, err, "OTEL_TRACES_SAMPLER")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func remote(id byte, flags trace.TraceFlags) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{8: id, 15: 1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true})
}

func TestChooser(t *testing.T) {
	t.Parallel()
	sdk := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample())).Tracer("")
	choose := func(s sampling, parent trace.SpanContext) bool {
		ctx := trace.ContextWithRemoteSpanContext(t.Context(), parent)
		after, span := chooser{sdk: sdk, sampling: s}.Start(ctx, "x")
		require.Equal(t, parent.TraceID().IsValid() || span.IsRecording(), trace.SpanContextFromContext(after).IsValid(), "the caller's trace stays known")
		return span.IsRecording()
	}
	byParent := sampling{0, true}
	require.True(t, choose(byParent, remote(1, trace.FlagsSampled)))
	require.False(t, choose(sampling{1, true}, remote(1, 0)))
	require.False(t, choose(byParent, trace.SpanContext{}))
	require.True(t, choose(sampling{1, true}, trace.SpanContext{}))
	require.True(t, choose(sampling{0.5, false}, remote(0x01, 0)), "a low id, whatever the caller says")
	require.False(t, choose(sampling{0.5, false}, remote(0xff, trace.FlagsSampled)))
	require.False(t, choose(sampling{0, false}, remote(1, trace.FlagsSampled)))
	chosen, n := 0, 100_000
	for range n {
		if (chooser{sampling: sampling{ratioDefault, true}}).chosen(trace.SpanContext{}) {
			chosen++
		}
	}
	require.Less(t, math.Abs(float64(chosen)/float64(n)-ratioDefault), 0.005)
}

func TestLateTracesAreBounded(t *testing.T) {
	t.Parallel()
	l := newLateTracer(sdktrace.NewTracerProvider().Tracer(""))
	now := time.Now()
	taken := func(at time.Time) (n int) {
		for range 3 * lateBurst {
			if l.take(at) {
				n++
			}
		}
		return n
	}
	require.Equal(t, lateBurst, taken(now))
	require.Equal(t, 1, taken(now.Add(lateInterval)))
	require.Equal(t, lateBurst, taken(now.Add(time.Hour)))
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	h := newHistogram([]int64{10, 20, 40}, attribute.String("stage", "x"))
	_, shown := h.point(time.Now(), time.Now(), 10)
	require.False(t, shown)
	for _, v := range []int64{-1, 0, 10, 11, 20, 21, 40, 41, 1000} {
		h.record(v, nil)
	}
	p, shown := h.point(time.Now(), time.Now(), 10)
	require.True(t, shown)
	require.Equal(t, []uint64{3, 2, 2, 2}, p.BucketCounts)
	require.Equal(t, []float64{1, 2, 4}, p.Bounds)
	require.EqualValues(t, 9, p.Count)
	require.InDelta(t, 114.2, p.Sum, 1e-9)
	require.Contains(t, latencyBounds, int64(150*time.Millisecond), "the promise is a bound, so that misses are counted exactly")
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]outcomeClass{
		nil: outcomeOK, rpc.ErrNotFound: outcomeRejected, &rpc.VersionConflictError{}: outcomeRejected,
		&rpc.CursorExpiredError{}: outcomeRejected, rpc.ErrOverloaded: outcomeOverloaded,
		&rpc.NotLeaderError{}: outcomeUnavailable, rpc.ErrClosed: outcomeUnavailable,
		rpc.ErrStorageFull: outcomeStorage, rpc.ErrCorrupt: outcomeStorage, io.EOF: outcomeFailed,
		fmt.Errorf("%w: %w", rpc.ErrUnavailable, rpc.ErrOutcomeUnknown): outcomeUnknown,
	} {
		require.Equal(t, want, outcomeOf(err), "%v", err)
	}
}

// With the SDK disabled nothing of it is made, and the server serves.
func TestTheSDKCanBeDisabled(t *testing.T) {
	t.Setenv("OTEL_SDK_DISABLED", "true")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	server := startServer(t, io.Discard)
	require.Equal(t, http.StatusOK, request(t, http.MethodPut, server, "/v1/conversations/c", `{}`))
	require.Equal(t, http.StatusCreated, request(t, http.MethodPost, server, "/v1/conversations/c/messages", oneMessage))
	families := scrape(t, server)
	require.Contains(t, families, "fastpaca_messages_append_total")
	require.NotContains(t, families, "fastpaca_append_duration_seconds")
}

func TestAWrongEnvironmentIsRefused(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_TRACES_SAMPLER": "sometimes", "OTEL_METRICS_EXPORTER": "carrier_pigeon", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv(name, value)
			_, err := otlpFromEnv()
			require.ErrorContains(t, err, name)
			require.ErrorContains(t, err, value)
		})
	}
}
