package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// tryTimeout bounds one try; a client that waits longer has given up.
	tryTimeout = 10 * time.Second
	// pause is what a client waits before its second try, unless the answer
	// says otherwise.
	pause = 500 * time.Millisecond
	// longestPause bounds what an answer may say.
	longestPause = 5 * time.Second
	// firstPoll is how often a router that starts is tried.
	firstPoll = 5 * time.Millisecond
	// mostFirst bounds these tries under way at a time.
	mostFirst = 500
	// mostAnswer is as much of an answer as is read.
	mostAnswer = 64 << 10
)

// client speaks to routers as a client behind no load balancer does: a second
// try goes to another router. Its methods may be called concurrently.
type client struct {
	urls   []string
	prefix string
	http   *http.Client
}

func newClient(urls []string, prefix string) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = mostUnderWay
	return &client{urls: urls, prefix: prefix, http: &http.Client{Transport: transport, Timeout: tryTimeout}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// answer is what came of a request; status is 0 when nothing did.
type answer struct {
	status int
	after  time.Duration // to wait before another try
	body   []byte
	err    error
}

func (a answer) ok() bool { return a.err == nil && a.status >= 200 && a.status < 300 }

// String is the same for all failures of a kind: it names no address.
func (a answer) String() string {
	if system := syscall.Errno(0); errors.As(a.err, &system) {
		return system.Error()
	}
	if wrapped := errors.Unwrap(a.err); wrapped != nil {
		return wrapped.Error()
	}
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %s", a.status, bytes.TrimSpace(a.body))
}

func (c *client) do(ctx context.Context, method, url string, body []byte) answer {
	a := answer{after: pause}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		a.err = err
		return a
	}
	defer func() { _ = response.Body.Close() }()
	a.status = response.StatusCode
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds >= 0 {
		a.after = min(time.Duration(seconds)*time.Second, longestPause)
	}
	a.body, a.err = io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	return a
}

func (c *client) conversation(n int) string {
	return "/v1/conversations/" + c.prefix + "-" + strconv.Itoa(n)
}

func (c *client) url(n int) string { return c.urls[n%len(c.urls)] }

// append tries once. The same number makes the same message.
func (c *client) append(ctx context.Context, router, conversation, number int) answer {
	body := fmt.Appendf(nil, `{"message": {"id": "m%d", "role": "user", "parts": [{"type": "text", "text": "Message %d, of a length that messages have."}]}}`, number, number)
	return c.do(ctx, http.MethodPost, c.url(router)+c.conversation(conversation)+"/messages", body)
}

// create makes a conversation if it is not there.
func (c *client) create(ctx context.Context, conversation int) error {
	if a := c.do(ctx, http.MethodPut, c.url(conversation)+c.conversation(conversation), nil); !a.ok() {
		return fmt.Errorf("create: %v", a)
	}
	return nil
}

// lastSeq returns how many messages a conversation has.
func (c *client) lastSeq(ctx context.Context, conversation int) (int, error) {
	a := c.do(ctx, http.MethodGet, c.url(conversation)+c.conversation(conversation), nil)
	if !a.ok() {
		return 0, fmt.Errorf("count: %v", a)
	}
	var v struct {
		LastSeq int `json:"last_seq"`
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	return v.LastSeq, nil
}

// first appends to the conversation 0, which must exist, until it is answered,
// and returns when that was.
// Tries overlap: one that is made while a container's network comes up hangs for
// a second, and says nothing about the router.
func (c *client) first(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	var underWay sync.WaitGroup
	defer underWay.Wait()
	defer cancel()
	answered := make(chan time.Time, mostFirst)
	slots := make(chan struct{}, mostFirst)
	tick := time.NewTicker(firstPoll)
	defer tick.Stop()
	number := int(time.Now().UnixNano())
	for {
		select {
		case at := <-answered:
			return at, nil
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-tick.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		underWay.Go(func() {
			defer func() { <-slots }()
			if c.append(ctx, 0, 0, number).ok() {
				select {
				case answered <- time.Now():
				default:
				}
			}
		})
	}
}
