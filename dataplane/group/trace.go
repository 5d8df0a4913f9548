package group

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// maxLinks bounds the other traces that a span names.
const maxLinks = 16

// traced is the span of an append that is sampled, and nil for all others. It
// costs what looking for the span costs.
func traced(ctx context.Context) trace.Span {
	span := trace.SpanFromContext(ctx)
	if !span.SpanContext().IsSampled() {
		return nil
	}
	return span
}

// sharing returns links to the sampled appends of an entry, when it carries
// several.
func sharing(members []*proposal) []trace.Link {
	sampled := 0
	for _, p := range members {
		if p.span != nil {
			sampled++
		}
	}
	if sampled < 2 {
		return nil
	}
	links := make([]trace.Link, 0, min(sampled, maxLinks+1))
	for _, p := range members {
		if p.span != nil && len(links) <= maxLinks {
			links = append(links, trace.Link{SpanContext: p.span.SpanContext()})
		}
	}
	return links
}

// trace records an append that was sampled: one span for the node and one for
// each stage. They are made after the fact, so that others pay nothing. An
// entry that carried several sampled appends links each to the others.
func (g *Group) trace(ctx context.Context, p *passage, s Stages, err error) {
	ended := time.Now()
	began := ended.Add(-s.Total())
	ctx, span := g.opts.Tracer.Start(ctx, "append in group", trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(began),
		trace.WithAttributes(attribute.Int("fastpaca.group", int(g.opts.Group)), attribute.String("fastpaca.node", g.opts.NodeID)))
	own := p.span.SpanContext()
	at := began
	for _, stage := range []struct {
		name string
		took time.Duration
	}{{"queue", s.Queue}, {"log sync", s.LogSync}, {"replicate", s.Replicate}, {"apply", s.Apply}} {
		if stage.took < 0 {
			break
		}
		_, part := g.opts.Tracer.Start(ctx, stage.name, trace.WithTimestamp(at))
		at = at.Add(stage.took)
		if stage.name == "replicate" {
			for _, link := range p.shared {
				if !link.SpanContext.Equal(own) {
					part.AddLink(link)
				}
			}
		}
		part.End(trace.WithTimestamp(at))
	}
	if err != nil {
		span.RecordError(err, trace.WithTimestamp(ended))
		span.SetStatus(codes.Error, err.Error())
	}
	span.End(trace.WithTimestamp(ended))
}
