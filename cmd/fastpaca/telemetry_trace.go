package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
)

// sampling is what OTEL_TRACES_SAMPLER and its argument say.
type sampling struct {
	ratio       float64
	parentBased bool // a caller's decision is kept
}

// ratioDefault is the share of requests without a caller's decision that are
// traced.
const ratioDefault = 0.01

// samplingFromEnv reads the standard variables.
func samplingFromEnv() (sampling, error) {
	s := sampling{ratio: ratioDefault, parentBased: true}
	name := os.Getenv("OTEL_TRACES_SAMPLER")
	switch name {
	case "", "parentbased_traceidratio", "traceidratio":
		s.parentBased = name != "traceidratio"
		arg := os.Getenv("OTEL_TRACES_SAMPLER_ARG")
		if arg == "" {
			if name != "" {
				s.ratio = 1
			}
			return s, nil
		}
		ratio, err := strconv.ParseFloat(arg, 64)
		if err != nil || math.IsNaN(ratio) || ratio < 0 || ratio > 1 {
			return s, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG %q: want a ratio from 0 to 1", arg)
		}
		s.ratio = ratio
	case "always_on", "parentbased_always_on":
		s.ratio, s.parentBased = 1, name != "always_on"
	case "always_off", "parentbased_always_off":
		s.ratio, s.parentBased = 0, name != "always_off"
	default:
		return s, fmt.Errorf("OTEL_TRACES_SAMPLER %q: want always_on, always_off, traceidratio, or one of these with parentbased_ in front", name)
	}
	return s, nil
}

// chooser decides what is sampled before the SDK is asked, which spends an id,
// a span and a context on every request that it then drops. What it passes on,
// the SDK samples.
type chooser struct {
	embedded.Tracer
	sdk trace.Tracer
	sampling
}

// Start implements trace.Tracer. A span that is not chosen leaves the context as
// it is: the caller's trace id stays in it.
func (c chooser) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !c.chosen(trace.SpanContextFromContext(ctx)) {
		return ctx, noop.Span{}
	}
	return c.sdk.Start(ctx, name, opts...)
}

func (c chooser) chosen(parent trace.SpanContext) bool {
	switch {
	case !parent.IsValid():
		return c.ratio >= 1 || c.ratio > 0 && rand.Float64() < c.ratio
	case c.parentBased || !parent.IsRemote():
		return parent.IsSampled()
	}
	// The SDK's rule, by which all services choose the same traces.
	id := parent.TraceID()
	return c.ratio >= 1 || float64(binary.BigEndian.Uint64(id[8:])>>1) < c.ratio*(1<<63)
}

// Bounds of what is traced after the fact.
const (
	lateBurst    = 20
	lateInterval = 100 * time.Millisecond // to the next one, once the burst is spent
)

// lateTracer samples everything, so many in a time: failures come in floods.
type lateTracer struct {
	embedded.Tracer
	sdk trace.Tracer

	mu   sync.Mutex // guards what follows
	left int
	at   time.Time // when left was counted
}

func newLateTracer(sdk trace.Tracer) *lateTracer { return &lateTracer{sdk: sdk, left: lateBurst} }

// Start implements trace.Tracer.
func (l *lateTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !l.take(time.Now()) {
		return ctx, noop.Span{}
	}
	return l.sdk.Start(ctx, name, opts...)
}

func (l *lateTracer) take(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := now.Sub(l.at) / lateInterval; n > 0 {
		l.left = int(min(int64(l.left)+int64(n), lateBurst))
		l.at = now
	}
	if l.left == 0 {
		return false
	}
	l.left--
	return true
}
