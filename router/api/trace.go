package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// slowRequest is how long a request takes that is recorded although it was not
// chosen to be.
const slowRequest = time.Second

// ofServer is made once: options made at each call cost an allocation.
var ofServer = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// startTrace starts the request's span when it is sampled: because its client
// says so, or by the tracer's choice. It returns the context to serve with. To
// all others it costs a look at the header and the tracer's choice.
func (a *API) startTrace(r *http.Request, op *operation, x *exchange) context.Context {
	ctx := r.Context()
	if a.tracer == nil {
		return ctx
	}
	if len(r.Header["Traceparent"]) > 0 {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
		x.trace = trace.SpanContextFromContext(ctx)
	}
	ctx, span := a.tracer.Start(ctx, op.spanName, ofServer...)
	if span.IsRecording() {
		x.span, x.trace = span, span.SpanContext()
		span.SetAttributes(describe(r, op, x)...)
	}
	return ctx
}

func describe(r *http.Request, op *operation, x *exchange) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("http.request.method", r.Method),
		attribute.String("http.route", basePath+op.Path),
		attribute.String("url.path", r.URL.Path),
		attribute.String("user_agent.original", r.UserAgent()),
		attribute.String("fastpaca.request_id", x.requestID),
	}
}

// endTrace ends the request's span. A request that failed or took long gets one
// now if its client did not decide otherwise.
func (a *API) endTrace(x *exchange) {
	span := x.span
	if span == nil {
		if a.late == nil || x.op == nil || x.op.streams || x.trace.IsValid() {
			return
		}
		if x.status < http.StatusInternalServerError && time.Since(x.started) < slowRequest {
			return
		}
		_, span = a.late.Start(context.Background(), x.op.spanName, trace.WithTimestamp(x.started), trace.WithNewRoot(),
			trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
				attribute.String("http.request.method", x.op.Method),
				attribute.String("http.route", basePath+x.op.Path),
				attribute.String("fastpaca.request_id", x.requestID)))
		if span.SpanContext().IsSampled() {
			x.trace = span.SpanContext()
		}
	}
	span.SetAttributes(attribute.Int("http.response.status_code", x.status))
	if f := x.failed; f != nil && x.status >= http.StatusInternalServerError {
		span.SetAttributes(attribute.String("error.type", f.code))
		span.SetStatus(codes.Error, f.Error())
	}
	span.End()
}

// traceID is the log attribute that names the request's trace, and an empty one
// when there is none, which is not logged.
func (x *exchange) traceID() slog.Attr {
	if !x.trace.IsValid() {
		return slog.Attr{}
	}
	return slog.String("trace_id", x.trace.TraceID().String())
}
