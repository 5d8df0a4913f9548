package forward

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Measure is told what requests cost. Implementations are called on the path of
// every request, concurrently: they must be cheap and must not block.
type Measure interface {
	// Appended: an append ended, with err. span is its own, nil unless it is
	// sampled. Until the node that answered was
	// called it waited for wait: for a route, for other nodes, and between tries.
	// hop is what the call took beside what the node says that it needed, and all
	// of it when the node does not say.
	Appended(span trace.Span, wait, hop time.Duration, err error)
	// Read: a read ended, with err.
	Read(span trace.Span, op Read, c rpc.Consistency, took time.Duration, err error)
}

// Read is a kind of read.
type Read uint8

// The kinds of reads.
const (
	ReadConversation Read = iota
	ReadMessages
	ReadTail
	ReadList
	Reads // how many kinds there are
)

func (r Read) String() string {
	return [...]string{"conversation", "messages", "tail", "list", "unknown"}[min(r, Reads)]
}

// course is where the time of one request goes.
type course struct {
	began, called time.Time // called is of the last try, zero before
	tries         int
	span          trace.Span // nil unless the request is sampled
}

// begin starts the clock of a request, and its span if it is sampled. A request
// to several groups is of rpc.Groups.
func (f *Forwarder) begin(ctx context.Context, name string, group rpc.Group) (context.Context, course) {
	c := course{began: time.Now()}
	if f.cfg.Tracer != nil && trace.SpanFromContext(ctx).SpanContext().IsSampled() {
		ctx, c.span = f.cfg.Tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.began))
		if group < rpc.Groups {
			c.span.SetAttributes(attribute.Int("fastpaca.group", int(group)))
		}
	}
	return ctx, c
}

func (c *course) try() {
	c.called = time.Now()
	c.tries++
}

// end ends the span.
func (c *course) end(err error) {
	if c.span == nil {
		return
	}
	c.span.SetAttributes(attribute.Int("fastpaca.tries", c.tries))
	if !c.called.IsZero() {
		c.span.AddEvent("called", trace.WithTimestamp(c.called))
	}
	if err != nil {
		c.span.RecordError(err)
		c.span.SetStatus(codes.Error, err.Error())
	}
	c.span.End()
}

// appended measures an append that has ended.
func (f *Forwarder) appended(c *course, reply *rpc.AppendReply, err error) {
	if m := f.cfg.Measure; m != nil {
		ended := time.Now()
		wait, hop := ended.Sub(c.began), time.Duration(0)
		if c.tries > 0 {
			wait, hop = c.called.Sub(c.began), ended.Sub(c.called)
		}
		if err == nil {
			hop -= min(reply.Took, hop) // a node's clock may run faster
		}
		m.Appended(c.span, wait, hop, err)
	}
	c.end(err)
}

// readDone measures a read that has ended.
func (f *Forwarder) readDone(op Read, consistency rpc.Consistency, c *course, err error) {
	if m := f.cfg.Measure; m != nil {
		m.Read(c.span, op, consistency, time.Since(c.began), err)
	}
	c.end(err)
}
