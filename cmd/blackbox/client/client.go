// Package client speaks the Fastpaca HTTP API for black-box suites. It keeps
// every answer as the bytes that came, so that a suite can compare them, and
// knows how to verify a conversation: dense sequences and the hash chain.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// requestTimeout bounds one exchange, so that a server that hangs fails a
// suite instead of stopping it.
const requestTimeout = 60 * time.Second

// Client talks to one server. Safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// New returns a client of the server at base, which is the URL before "/v1".
func New(base string) *Client {
	transport := &http.Transport{
		MaxIdleConns:        1024,
		MaxIdleConnsPerHost: 1024,
		IdleConnTimeout:     30 * time.Second,
	}
	return &Client{base: base, http: &http.Client{
		Transport: transport,
		Timeout:   requestTimeout,
		// A redirect would be an answer nobody documented.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Base returns the URL that paths are appended to.
func (c *Client) Base() string { return c.base }

// Reply is an answer, read to its end.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// Fault is the body of every error.
type Fault struct {
	Code    string `json:"error"`
	Message string `json:"message"`
	// What some errors add.
	CurrentVersion *uint64 `json:"current_version"`
	EarliestSeq    *uint64 `json:"earliest_seq"`
}

// Fault decodes an error body; the zero value stands for anything else.
func (r Reply) Fault() Fault {
	var f Fault
	if json.Unmarshal(r.Body, &f) != nil {
		return Fault{}
	}
	return f
}

// RetryAfter returns the seconds of the Retry-After header, and whether it is
// there and well-formed.
func (r Reply) RetryAfter() (int, bool) {
	n, err := strconv.Atoi(r.Header.Get("Retry-After"))
	return n, err == nil && n >= 0
}

// String shows the answer for failure messages, cut to a readable length.
func (r Reply) String() string {
	const limit = 600
	body := r.Body
	more := ""
	if len(body) > limit {
		body, more = body[:limit], "…"
	}
	return fmt.Sprintf("%d %s%s", r.Status, body, more)
}

// Header is one request header.
type Header struct{ Name, Value string }

// Do sends a request with the given target (an escaped path with its query)
// and reads the answer. A nil body sends none; the content type is JSON unless
// a header says otherwise.
func (c *Client) Do(ctx context.Context, method, target string, body []byte, headers ...Header) (Reply, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+target, reader)
	if err != nil {
		return Reply{}, fmt.Errorf("%s %s: %w", method, target, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		if h.Value == "" {
			req.Header.Del(h.Name)
			continue
		}
		req.Header.Set(h.Name, h.Value)
	}
	reply, err := c.http.Do(req)
	if err != nil {
		return Reply{}, fmt.Errorf("%s %s: %w", method, target, err)
	}
	defer func() { _ = reply.Body.Close() }()
	read, err := io.ReadAll(reply.Body)
	if err != nil {
		return Reply{}, fmt.Errorf("%s %s: read the answer: %w", method, target, err)
	}
	return Reply{Status: reply.StatusCode, Header: reply.Header, Body: read}, nil
}

// Path returns the path of a conversation, whatever its id holds.
func Path(id string) string {
	escaped := url.PathEscape(id)
	// A path segment of dots alone would be cleaned away on the way.
	switch id {
	case ".":
		escaped = "%2E"
	case "..":
		escaped = "%2E%2E"
	}
	return "/v1/conversations/" + escaped
}
