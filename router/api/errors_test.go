package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// failing makes the data plane answer everything with the error.
func (h *harness) failing(err error) {
	h.store.setFault(func(context.Context, string) error { return err })
}

func TestErrorsOfTheDataPlane(t *testing.T) {
	t.Parallel()
	cases := []struct {
		err        error
		status     int
		code       string
		retryAfter string
	}{
		{rpc.ErrNotFound, 404, "conversation_not_found", ""},
		{rpc.ErrTombstoned, 410, "conversation_tombstoned", ""},
		{rpc.ErrIdempotencyConflict, 409, "idempotency_conflict", ""},
		{&rpc.VersionConflictError{Current: 12}, 409, "conflict", ""},
		{rpc.ErrUnavailable, 503, "unavailable", "1"},
		{&rpc.NotLeaderError{Group: 3, Leader: "secret-node"}, 503, "unavailable", "1"},
		{rpc.ErrClosed, 503, "unavailable", "1"},
		{rpc.ErrOverloaded, 503, "overloaded", "1"},
		{rpc.ErrStorageFull, 503, "storage_full", "5"},
		{rpc.ErrOutcomeUnknown, 504, "outcome_unknown", "1"},
		{rpc.ErrCorrupt, 500, "storage_corrupt", ""},
		{context.DeadlineExceeded, 504, "outcome_unknown", "1"},
		{context.Canceled, 504, "outcome_unknown", "1"},
		{errors.New("secret-detail"), 500, "internal", ""},
	}
	for _, tc := range cases {
		t.Run(tc.err.Error(), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.failing(fmt.Errorf("append at secret-node: %w", tc.err))
			got := h.do("POST", "/v1/conversations/c/messages", hello).fails(tc.status, tc.code)
			require.Equal(t, tc.retryAfter, got.header.Get("Retry-After"))
			require.Equal(t, "no-store", got.header.Get("Cache-Control"))
			require.NotContains(t, string(got.body), "secret", "nothing internal leaks")
			if tc.status >= 500 {
				require.Contains(t, string(got.body), `"request_id":"`+got.header.Get("X-Request-Id")+`"`)
				require.Contains(t, h.log.String(), "secret-node", "the cause is logged")
				require.Equal(t, 1, strings.Count(h.log.String(), "\n"), "once")
			}
		})
	}
}

func TestErrorsOfReads(t *testing.T) {
	t.Parallel()
	cases := []struct {
		err    error
		status int
		code   string
	}{
		{context.DeadlineExceeded, 503, "unavailable"},
		{rpc.ErrMinSeqTimeout, 503, "unavailable"},
		{rpc.ErrUnavailable, 503, "unavailable"},
		{rpc.ErrCorrupt, 500, "storage_corrupt"},
		{rpc.ErrOverloaded, 503, "overloaded"},
	}
	for _, tc := range cases {
		h := newHarness(t)
		h.failing(tc.err)
		for _, path := range []string{"/c", "/c/tail", "/c/messages", ""} {
			h.do("GET", "/v1/conversations"+path, "").fails(tc.status, tc.code)
		}
	}
	h := newHarness(t)
	h.failing(&rpc.CursorExpiredError{Earliest: 9})
	h.do("GET", "/v1/conversations/c/messages", "").fails(416, "cursor_expired")
}

// Every sentinel of the data plane that a client can cause is in the table.
func TestSentinelsAreDistinct(t *testing.T) {
	t.Parallel()
	for _, s := range sentinels {
		require.Same(t, s.kind, failureOf(fmt.Errorf("wrapped: %w", s.err), true).kind)
	}
	unknown := failureOf(rpc.ErrEpochFenced, true)
	require.Same(t, kindInternal, unknown.kind)
	require.ErrorIs(t, unknown, rpc.ErrEpochFenced)
	require.Equal(t, "not_found: There is nothing at this path.", (&failure{kind: kindNotFound}).Error())
}

// What is wrong with the request is told in a fixed order, and before the data
// plane is asked.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(c *Config, _ *Deps) { c.MaxBodyBytes = 1000 })
	long := strings.Repeat("x", 513)
	big := strings.Repeat(" ", 1001)
	cases := []struct {
		name, method, target, body string
		header                     []string
		status                     int
		code                       string
	}{
		{"id before type", "POST", "/v1/conversations/" + long + "/messages", big, []string{"Content-Type", "text/plain"}, 400, "invalid_id"},
		{"type before size", "POST", "/v1/conversations/c/messages", big, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type"},
		{"key before size", "POST", "/v1/conversations/c/messages", big, []string{"Idempotency-Key", ""}, 400, "invalid_parameter"},
		{"size before JSON", "POST", "/v1/conversations/c/messages", big, nil, 413, "payload_too_large"},
		{"JSON before message", "POST", "/v1/conversations/c/messages", `{"message":{},}`, nil, 400, "invalid_json"},
		{"message before conversation", "POST", "/v1/conversations/c/messages", `{"message":{}}`, nil, 400, "invalid_message"},
		{"conversation last", "POST", "/v1/conversations/c/messages", hello, nil, 404, "conversation_not_found"},
		{"parameter before conversation", "GET", "/v1/conversations/c/tail?limit=x", "", nil, 400, "invalid_parameter"},
		{"id before parameter", "GET", "/v1/conversations/%00/tail?limit=x", "", nil, 400, "invalid_id"},
		{"metadata before conversation", "PUT", "/v1/conversations/c", `{"metadata":[]}`, nil, 400, "invalid_metadata"},
	}
	for _, tc := range cases {
		got := h.do(tc.method, tc.target, tc.body, tc.header...)
		require.Equal(t, tc.status, got.status, tc.name)
		require.Equal(t, tc.code, got.code(), tc.name)
	}
	require.Zero(t, h.store.state())
}

func TestUnroutedRequests(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, path := range []string{"/", "/v1", "/v1/", "/v2/conversations", "/v1/conversations/", "/v1/conversations/a/b", "/v1/conversations/a/messages/", "/metrics", "/v1/health/live", "/conversations"} {
		for _, method := range []string{"GET", "POST", "FOO"} {
			h.do(method, path, "").fails(404, "not_found")
		}
	}
	for _, tc := range []struct{ method, path, allow string }{
		{"POST", "/v1/conversations/c", "DELETE, GET, HEAD, PUT"},
		{"PATCH", "/v1/conversations/c", "DELETE, GET, HEAD, PUT"},
		{"FOO", "/v1/conversations/a%2Fb", "DELETE, GET, HEAD, PUT"},
		{"DELETE", "/v1/conversations/c/messages", "GET, HEAD, POST"},
		{"PUT", "/v1/conversations/c/tail", "GET, HEAD"},
		{"POST", "/v1/conversations", "GET, HEAD"},
		{"OPTIONS", "/health/live", "GET, HEAD"},
		{"POST", "/docs", "GET, HEAD"},
	} {
		got := h.do(tc.method, tc.path, "").fails(405, "method_not_allowed")
		require.Equal(t, tc.allow, got.header.Get("Allow"), tc.path)
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c")
	h.appendN(path, 3)
	got := h.do("HEAD", path, "").is(200)
	require.Equal(t, "3", got.header.Get("X-Fastpaca-Last-Seq"))
	h.do("HEAD", "/v1/conversations/none", "").is(404)
	h.do("HEAD", "/v1/nothing", "").is(404)
	h.do("HEAD", "/health/live", "").is(200)
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, sane := range []string{"a", "Req-1_2.3:4/5+6=7@8~9", strings.Repeat("x", 128)} {
		require.Equal(t, sane, h.do("GET", "/health/live", "", "X-Request-Id", sane).header.Get("X-Request-Id"))
	}
	seen := map[string]bool{}
	for _, insane := range []string{"", " ", "a b", "a\"b", "é", "a\x00", strings.Repeat("x", 129)} {
		id := h.do("GET", "/health/live", "", "X-Request-Id", insane).header.Get("X-Request-Id")
		require.NotEqual(t, insane, id)
		require.True(t, saneRequestID(id))
		require.False(t, seen[id])
		seen[id] = true
	}
	require.NotEqual(t, newRequestIDs().prefix, newRequestIDs().prefix)
}

func TestPanics(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.store.setFault(func(context.Context, string) error { panic("secret-detail") })
	got := h.do("GET", "/v1/conversations/c", "", "X-Request-Id", "req-7").fails(500, "internal")
	got.says(`{"error":"internal","message":"The server failed to handle the request.","request_id":"req-7"}`)
	require.Equal(t, 1, strings.Count(h.log.String(), "request panicked"))
	require.Contains(t, h.log.String(), "secret-detail")
	require.Contains(t, h.log.String(), "req-7")
	require.Contains(t, h.log.String(), "errors_test.go", "the stack")
	require.Zero(t, h.api.InFlight())

	t.Run("after the answer was begun", func(t *testing.T) {
		h := newHarness(t)
		h.api.mux.Get("/broken", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("half"))
			panic("too late")
		})
		require.PanicsWithValue(t, http.ErrAbortHandler, func() { h.do("GET", "/broken", "") })
		require.Equal(t, 1, strings.Count(h.log.String(), "too late"))
	})
	t.Run("on purpose", func(t *testing.T) {
		h := newHarness(t)
		h.store.setFault(func(context.Context, string) error { panic(http.ErrAbortHandler) })
		require.PanicsWithValue(t, http.ErrAbortHandler, func() { h.do("GET", "/v1/conversations/c", "") })
		require.Empty(t, h.log.String())
	})
}

func TestFloodsAreLoggedOnceASecond(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.failing(rpc.ErrOverloaded)
	for range 50 {
		h.do("POST", "/v1/conversations/c/messages", hello).fails(503, "overloaded")
	}
	require.LessOrEqual(t, strings.Count(h.log.String(), "overloaded"), 25)

	var r repeats
	start := time.Now()
	_, ok := r.allow(kindOverloaded, start)
	require.True(t, ok)
	for range 3 {
		_, ok = r.allow(kindOverloaded, start.Add(999*time.Millisecond))
		require.False(t, ok)
	}
	_, ok = r.allow(kindStorageFull, start)
	require.True(t, ok, "kinds do not hide each other")
	suppressed, ok := r.allow(kindOverloaded, start.Add(time.Second))
	require.True(t, ok)
	require.Equal(t, 3, suppressed)
	for range 3 {
		_, ok = r.allow(kindInternal, start)
		require.True(t, ok)
	}
}

func TestDebugLogNamesRequests(t *testing.T) {
	t.Parallel()
	logged := &logBuffer{}
	h := newHarness(t, func(_ *Config, d *Deps) {
		d.Log = slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	h.do("GET", "/v1/conversations/c", "", "X-Request-Id", "req-9").is(404)
	require.Contains(t, logged.String(), "req-9")
	require.Contains(t, logged.String(), "status=404")
}
