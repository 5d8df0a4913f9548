package fastpaca

import (
	"net/http"
	"time"
)

// Option configures a Client.
type Option func(*Client)

// DefaultTimeout bounds an attempt unless WithTimeout says otherwise. It leaves
// the server the time that it gives itself.
const DefaultTimeout = 30 * time.Second

// WithTimeout bounds each attempt of a request, its answer included. The
// context bounds the call with all of its attempts. 0 is no bound.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// WithRetry replaces DefaultRetry.
func WithRetry(r Retry) Option { return func(c *Client) { c.retry = r } }

// WithReconnectLimit bounds how long a stream that broke tries to come back
// before it ends with the last error. 0, the default, is no bound: until the
// context ends.
func WithReconnectLimit(d time.Duration) Option { return func(c *Client) { c.reconnect = d } }

// WithHTTPClient sends requests through a copy of an HTTP client of your own,
// for its transport, its cookies or its certificates. Its Timeout, if set, also
// ends streams.
func WithHTTPClient(h *http.Client) Option {
	return func(c *Client) {
		own := *h
		c.http = &own
	}
}

// WithHeader sends a header with every request: for a proxy that wants a token.
func WithHeader(name, value string) Option {
	return func(c *Client) { c.header.Set(name, value) }
}
