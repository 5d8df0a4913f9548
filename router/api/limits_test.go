package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestContentTypes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c")
	for _, good := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", `application/json; charset="utf-8"`, "application/json;profile=x"} {
		h.do("POST", path+"/messages", hello, "Content-Type", good).is(201)
		h.do("PUT", path, "{}", "Content-Type", good).is(200)
	}
	for _, bad := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "application/json; charset", "application/vnd.api+json", "json", "application/json, text/plain"} {
		h.do("POST", path+"/messages", hello, "Content-Type", bad).fails(415, "unsupported_media_type")
		h.do("PUT", path, "{}", "Content-Type", bad).fails(415, "unsupported_media_type")
	}
	for _, coding := range []string{"gzip", "br", "identity, gzip", ""} {
		h.do("POST", path+"/messages", hello, "Content-Encoding", coding).fails(415, "unsupported_media_type")
		h.do("PUT", path, "", "Content-Encoding", coding, "Content-Type", "application/json").fails(415, "unsupported_media_type")
	}
	h.do("POST", path+"/messages", hello, "Content-Encoding", "identity").is(201)

	without := func(method, target, body string, length int64) *http.Request {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		r.ContentLength = length
		return r
	}
	h.serve(without("POST", path+"/messages", hello, int64(len(hello)))).fails(415, "unsupported_media_type")
	h.serve(without("PUT", path, "{}", 2)).fails(415, "unsupported_media_type")
	h.serve(without("PUT", path, "{}", -1)).fails(415, "unsupported_media_type")
	h.serve(without("PUT", path, "", 0)).is(200)
	h.serve(without("PUT", path, "", -1)).is(200)
	twice := httptest.NewRequest("POST", path+"/messages", strings.NewReader(hello))
	twice.Header["Content-Type"] = []string{"application/json", "application/json"}
	h.serve(twice).fails(415, "unsupported_media_type")
}

func TestBodySizes(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c") + "/messages"
	limit := int(DefaultConfig().MaxBodyBytes)
	padded := func(n int) string { return hello + strings.Repeat(" ", n-len(hello)) }
	send := func(body string, length int64) *reply {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = length
		return h.serve(r)
	}
	send(padded(limit), int64(limit)).is(201)
	send(padded(limit), -1).is(201)
	send(padded(limit+1), int64(limit+1)).fails(413, "payload_too_large")
	got := send(padded(limit+1), -1).fails(413, "payload_too_large")
	require.Equal(t, "close", got.header.Get("Connection"))
	require.Zero(t, h.api.buffered.Load(), "the budget is given back")
}

func TestBodiesThatBreakOff(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c") + "/messages"
	send := func(body io.Reader) *reply {
		r := httptest.NewRequest("POST", path, body)
		r.Header.Set("Content-Type", "application/json")
		return h.serve(r)
	}
	send(io.MultiReader(strings.NewReader(`{"mess`), iotest.ErrReader(io.ErrUnexpectedEOF))).fails(400, "incomplete_body")
	send(io.MultiReader(strings.NewReader(`{"mess`), iotest.ErrReader(fmt.Errorf("read: %w", os.ErrDeadlineExceeded)))).fails(408, "request_timeout")
	send(iotest.OneByteReader(strings.NewReader(hello))).is(201)
	send(iotest.DataErrReader(strings.NewReader(hello))).is(201)
}

func TestTheMemoryBudget(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c") + "/messages"
	h.api.buffered.Store(h.api.cfg.MaxBufferedBytes)
	h.do("POST", path, hello).is(201)
	big := strings.Replace(hello, "hello", strings.Repeat("x", 200<<10), 1)
	got := h.do("POST", path, big).fails(503, "overloaded")
	require.Equal(t, "1", got.header.Get("Retry-After"))
	h.api.buffered.Store(0)
	h.do("POST", path, big).is(201)
	require.Zero(t, h.api.buffered.Load())
	h.api.buffered.Store(h.api.cfg.MaxBufferedBytes)
	h.do("GET", path+"?from=1&limit=1", "").is(200)
	h.do("GET", path+"?from=2", "").fails(503, "overloaded")
	h.do("PUT", "/v1/conversations/c", `{"metadata":{"x":"`+strings.Repeat("x", 15<<10)+`"}}`).is(200)
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config, _ *Deps) { c.MaxInFlight = 2 })
	path := h.create("c")
	h.api.inFlight.Store(2)
	r := httptest.NewRequest("POST", path+"/messages", iotest.ErrReader(errors.New("the body was read")))
	r.Header.Set("Content-Type", "application/json")
	got := h.serve(r).fails(503, "overloaded")
	require.Equal(t, "1", got.header.Get("Retry-After"))
	h.do("GET", "/health/ready", "").is(200)
	require.Equal(t, 2, h.api.InFlight())
	h.api.inFlight.Store(1)
	h.do("GET", path, "").is(200)
	require.Equal(t, 1, h.api.InFlight())
}

func TestReadsAreBoundedInTime(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config, _ *Deps) { c.MinSeqWait = time.Millisecond })
	path := h.create("c")
	h.appendN(path, 3)
	for _, read := range []string{path, path + "/tail", path + "/messages"} {
		h.do("GET", read, "", "X-Fastpaca-Min-Seq", "3").is(200)
		got := h.do("GET", read, "", "X-Fastpaca-Min-Seq", "4").fails(503, "unavailable")
		require.Equal(t, "1", got.header.Get("Retry-After"))
	}
	h.store.setFault(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() })
	h.do("GET", path, "", "X-Fastpaca-Min-Seq", "4").fails(503, "unavailable")
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := DefaultConfig()
	require.NoError(t, good.Validate())
	_, err := New(Config{}, newStore(), Deps{Log: slog.New(slog.DiscardHandler)})
	for _, name := range []string{"MaxBodyBytes", "MaxInFlight", "RequestTimeout", "IdleTimeout"} {
		require.ErrorContains(t, err, name)
	}
	bad := DefaultConfig()
	bad.MaxBodyBytes, bad.WriteTimeout, bad.DrainDelay = 9<<20, time.Second, -1
	err = bad.Validate()
	require.ErrorContains(t, err, "bound of the data plane")
	require.ErrorContains(t, err, "WriteTimeout")
	require.ErrorContains(t, err, "DrainDelay")
	bad = DefaultConfig()
	bad.MaxBufferedBytes = 1 << 20
	require.ErrorContains(t, bad.Validate(), "MaxBufferedBytes")
	_, err = New(good, nil, Deps{})
	require.ErrorContains(t, err, "required")
}
