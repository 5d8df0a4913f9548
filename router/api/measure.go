package api

import (
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Measure is told what appends cost. Implementations are called on the path of
// every append, concurrently: they must be cheap and must not block.
type Measure interface {
	// Appended: an append that the data plane was asked for ended, with err. All
	// of it took total, from the parsed request header to the written answer:
	// receive until the data plane was called, the call, and respond. span is the
	// request's, nil unless it is sampled.
	Appended(span trace.Span, total, receive, respond time.Duration, err error)
}

func (a *API) measureAppend(x *exchange, called, answered, written time.Time, err error) {
	if a.measure != nil {
		a.measure.Appended(x.span, written.Sub(x.started), called.Sub(x.started), written.Sub(answered), err)
	}
}
