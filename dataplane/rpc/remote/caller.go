package remote

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// caller is the span that a write is made in. It travels only when it is
// sampled, so that the others pay nothing; a nil one is of those.
type caller struct {
	trace [traceBytes]byte
	state string
}

const (
	traceBytes    = 16 + 8 + 1 // trace id, span id, flags
	maxTraceState = 512
)

// callerOf returns the span of the context if it is sampled.
func callerOf(ctx context.Context) *caller {
	span := trace.SpanFromContext(ctx).SpanContext()
	if !span.IsSampled() {
		return nil
	}
	c := new(caller)
	id, parent := span.TraceID(), span.SpanID()
	copy(c.trace[:], id[:])
	copy(c.trace[len(id):], parent[:])
	c.trace[traceBytes-1] = byte(span.TraceFlags())
	if state := span.TraceState().String(); len(state) <= maxTraceState {
		c.state = state
	}
	return c
}

func (c *caller) size() int {
	if c == nil {
		return 0
	}
	return sizeBytes(traceBytes) + sizeBytes(len(c.state))
}

func (c *caller) append(b []byte) []byte {
	if c == nil {
		return b
	}
	return appendBytes(appendBytes(b, writeTrace, c.trace[:]), writeTraceState, c.state)
}

// decodeCaller reads what append wrote. What is not of its form is no reason to
// refuse a write: it is ignored.
func decodeCaller(id, state []byte) *caller {
	if len(id) != traceBytes || trace.TraceFlags(id[traceBytes-1])&trace.FlagsSampled == 0 || len(state) > maxTraceState {
		return nil
	}
	return &caller{trace: [traceBytes]byte(id), state: string(state)}
}

// context returns ctx with the span as its remote parent.
func (c *caller) context(ctx context.Context) context.Context {
	if c == nil {
		return ctx
	}
	state, err := trace.ParseTraceState(c.state)
	if err != nil {
		state = trace.TraceState{}
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(c.trace[:16]), SpanID: trace.SpanID(c.trace[16:24]),
		TraceFlags: trace.TraceFlags(c.trace[24]) & trace.FlagsSampled, TraceState: state, Remote: true,
	}))
}
