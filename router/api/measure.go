package api

import (
	"context"
	"time"
)

// Measure is told what appends cost. Implementations are called on the path of
// every append, concurrently: they must be cheap and must not block.
type Measure interface {
	// Appended: an append that the data plane was asked for ended, with err. All
	// of it took total, from the parsed request header to the written answer:
	// receive until the data plane was called, the call, and respond.
	Appended(ctx context.Context, total, receive, respond time.Duration, err error)
}

func (a *API) measureAppend(ctx context.Context, x *exchange, called, answered, written time.Time, err error) {
	if a.measure != nil {
		a.measure.Appended(ctx, written.Sub(x.started), called.Sub(x.started), written.Sub(answered), err)
	}
}
