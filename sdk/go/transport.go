package fastpaca

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

// Retry says how failed requests are repeated: those that got no answer, and
// those answered 408, 429, 502, 503 or 504. Every request of this package is
// safe to repeat, appends because their messages have ids.
type Retry struct {
	// Attempts is how often a request is sent at most; 1 never repeats.
	Attempts int
	// MinWait is about the first wait; each further one is twice as long. Waits
	// are random between half of that and all of it, and begin when the
	// server's Retry-After is over.
	MinWait time.Duration
	// MaxWait bounds each wait. A server that asks for longer than this ends the
	// call with its error, which tells how long.
	MaxWait time.Duration
}

// DefaultRetry outlasts a failover and gives up on a server that is not there in
// about three seconds.
var DefaultRetry = Retry{Attempts: 6, MinWait: 100 * time.Millisecond, MaxWait: 10 * time.Second}

func (r Retry) validate() error {
	if r.Attempts < 1 || r.MinWait < 0 || r.MaxWait < r.MinWait {
		return invalid("retry %+v: want at least one attempt, and waits of 0 <= MinWait <= MaxWait", r)
	}
	return nil
}

// backoff is the wait before attempt n, from 1 for the second.
func (r Retry) backoff(n int) time.Duration {
	d := r.MinWait << min(n-1, 20)
	if d > r.MaxWait || d < r.MinWait { // it may have overflowed
		d = r.MaxWait
	}
	return jittered(d)
}

// jittered is a random duration from half of d to d.
func jittered(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2)
}

// wait blocks for d or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxResponseBytes bounds an answer. A page holds at most 16 MiB of messages.
const maxResponseBytes = 64 << 20

// Do sends a request of the generated client, as often as it takes. The answer's
// body is in memory, so that one that breaks off is tried again too. Its errors
// are *Error without an Op.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, failed := c.attempt(req, attempt)
		if failed == nil {
			return resp, nil
		}
		failed.Attempts = attempt
		if !failed.Retryable || attempt >= c.retry.Attempts {
			return nil, failed
		}
		if err := c.pause(req.Context(), failed, attempt); err != nil {
			return nil, err
		}
	}
}

// pause waits before the next attempt, or returns why there is none.
func (c *Client) pause(ctx context.Context, failed *Error, attempt int) error {
	if failed.RetryAfter > c.retry.MaxWait {
		return failed
	}
	d := failed.RetryAfter + c.retry.backoff(attempt)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return failed // it would only be a later way to say less
	}
	if err := c.wait(ctx, d); err != nil {
		stopped := canceled(ctx, failed)
		stopped.Attempts = attempt
		return stopped
	}
	return nil
}

// attempt sends a request once and reads its answer.
func (c *Client) attempt(req *http.Request, n int) (*http.Response, *Error) {
	ctx := req.Context()
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	once := req.Clone(ctx)
	if req.GetBody != nil && n > 1 {
		body, err := req.GetBody()
		if err != nil {
			return nil, networkFailure(req.Context(), err)
		}
		once.Body = body
	}
	c.dress(once)
	resp, err := c.http.Do(once)
	if err != nil {
		return nil, networkFailure(req.Context(), err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := readAll(resp)
	if err != nil {
		return nil, networkFailure(req.Context(), err)
	}
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return nil, failureOf(resp, body)
	case resp.StatusCode != http.StatusNoContent && !isJSON(resp.Header), len(body) > maxResponseBytes:
		return nil, &Error{Status: resp.StatusCode, Code: CodeUnexpectedResponse, Message: strangeAnswer(resp, body)}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// dress adds the client's own headers.
func (c *Client) dress(req *http.Request) {
	for name, values := range c.header {
		req.Header[name] = values
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
}

// readAll reads a body, one byte more than is allowed at most.
func readAll(resp *http.Response) ([]byte, error) {
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 {
		buf.Grow(int(min(n, maxResponseBytes)) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(io.LimitReader(resp.Body, maxResponseBytes+1))
	return buf.Bytes(), err
}

// decode returns a function that takes what the generated client returns, reads
// the answer into a value (nil for none), and names the operation in errors.
func decode(into any, op string) func(*http.Response, error) error {
	return func(resp *http.Response, err error) error {
		if err != nil {
			return named(op, err)
		}
		if into == nil {
			return nil
		}
		body, err := io.ReadAll(resp.Body)
		if err == nil {
			err = json.Unmarshal(body, into)
		}
		if err != nil {
			return &Error{
				Op: op, Status: resp.StatusCode, Code: CodeUnexpectedResponse, Err: err,
				Message: fmt.Sprintf("the answer does not have the form it should: %v", err),
			}
		}
		return nil
	}
}

// named puts the operation into an error of Do, and makes an Error of one that
// the generated client has before it sends anything.
func named(op string, err error) *Error {
	var own *Error
	if !errors.As(err, &own) {
		own = &Error{Code: CodeInvalid, Message: err.Error(), Err: err}
	}
	own.Op = op
	return own
}
