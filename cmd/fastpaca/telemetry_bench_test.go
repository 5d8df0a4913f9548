package main

import (
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/fastpaca/fastpaca/dataplane/group"
)

// BenchmarkMeasureAppend is what all stages of one append cost together.
func BenchmarkMeasureAppend(b *testing.B) {
	m, _ := newMeasured(true, true)
	stages := group.Stages{Queue: 3e4, LogSync: 2e6, Replicate: 1e6, Apply: 1e5}
	record := func(span trace.Span) {
		routerMeasure{m}.Appended(span, 4e6, 5e4, 2e4, nil)
		forwardMeasure{m}.Appended(span, 1e3, 2e5, nil)
		nodeMeasure{m}.Appended(span, stages, nil)
		nodeMeasure{m}.Entry(8, 3200)
		nodeMeasure{m}.LogSynced(2e6)
	}
	sampled := trace.SpanFromContext(trace.ContextWithSpanContext(b.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})))
	for name, span := range map[string]trace.Span{"unsampled": nil, "sampled": sampled} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				record(span)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					record(span)
				}
			})
		})
	}
}

// BenchmarkChooser is what a request that is not traced pays for the choice.
func BenchmarkChooser(b *testing.B) {
	var c trace.Tracer = chooser{sdk: noop.Tracer{}, sampling: sampling{ratio: ratioDefault, parentBased: true}}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_, span := c.Start(ctx, "POST /v1/conversations/{id}/messages")
		if span.IsRecording() {
			b.Fatal("a tracer that records nothing")
		}
	}
}
