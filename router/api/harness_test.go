package api

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is a surface over a store, without a network.
type harness struct {
	t     testing.TB
	api   *API
	store *store
	log   *logBuffer
}

// logBuffer collects log lines from any goroutine.
type logBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newHarness(t testing.TB, changes ...func(*Config, *Deps)) *harness {
	t.Helper()
	s := newStore()
	return newHarnessOver(t, s, s, changes...)
}

func newHarnessOver(t testing.TB, backend rpc.Node, s *store, changes ...func(*Config, *Deps)) *harness {
	t.Helper()
	logged := &logBuffer{}
	cfg, deps := DefaultConfig(), Deps{Log: slog.New(slog.NewTextHandler(logged, nil)), Registerer: prometheus.NewRegistry()}
	for _, change := range changes {
		change(&cfg, &deps)
	}
	a, err := New(cfg, backend, deps)
	require.NoError(t, err)
	return &harness{t: t, api: a, store: s, log: logged}
}

// with returns the harness for another test, over the same store.
func (h *harness) with(t testing.TB) *harness {
	on := *h
	on.t = t
	return &on
}

// reply is an answer, already checked against the document.
type reply struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

// do sends a request; header holds names and values in turn. A body makes the
// request JSON unless a Content-Type is given.
func (h *harness) do(method, target, body string, header ...string) *reply {
	h.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[http.CanonicalHeaderKey(header[i])] = []string{header[i+1]}
	}
	return h.serve(r)
}

func (h *harness) serve(r *http.Request) *reply {
	h.t.Helper()
	w := httptest.NewRecorder()
	h.api.ServeHTTP(w, r)
	result := w.Result()
	body, err := io.ReadAll(result.Body)
	require.NoError(h.t, err)
	got := &reply{t: h.t, status: result.StatusCode, header: result.Header, body: body}
	if given := result.Header.Get("Content-Length"); given != "" && r.Method != http.MethodHead {
		require.Equal(h.t, strconv.Itoa(len(body)), given)
	}
	require.NotEmpty(h.t, result.Header.Get("X-Request-Id"))
	h.checkDocumented(r, got)
	return got
}

// checkDocumented fails the test unless the answer is one that the document
// describes for the operation, with a body of the documented schema.
func (h *harness) checkDocumented(r *http.Request, got *reply) {
	h.t.Helper()
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.Path
	}
	pattern, underV1 := strings.CutPrefix(h.api.mux.Find(chi.NewRouteContext(), r.Method, path), "/v1")
	item := h.api.documents.source.Paths[pattern]
	if !underV1 || item == nil {
		if got.status >= 400 && !strings.HasPrefix(path, "/health/") {
			h.checkSchema(schemaOf[Error](h.api.documents.source.Components.Schemas), got)
		}
		return
	}
	op := map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete}[r.Method]
	if op == nil {
		return
	}
	documented := op.Responses[strconv.Itoa(got.status)]
	require.NotNil(h.t, documented, "%s %s answered an undocumented %d: %s", r.Method, pattern, got.status, got.body)
	for name := range documented.Headers {
		if name == "Retry-After" || name == "X-Request-Id" || name == "X-Fastpaca-Last-Seq" {
			require.NotEmpty(h.t, got.header.Get(name), "%s %s %d lacks %s", r.Method, pattern, got.status, name)
		}
	}
	if documented.Content == nil {
		require.Empty(h.t, got.body)
		return
	}
	require.Equal(h.t, "application/json", got.header.Get("Content-Type"))
	media := documented.Content["application/json"]
	h.checkSchema(media.Schema, got)
	if got.status >= 400 {
		require.Contains(h.t, media.Examples, got.code(), "%s %s %d answered an undocumented code", r.Method, pattern, got.status)
	}
}

func (h *harness) checkSchema(schema *huma.Schema, got *reply) {
	h.t.Helper()
	var value any
	if err := json.Unmarshal(got.body, &value); err != nil {
		require.True(h.t, json.Valid(got.body), "not JSON: %s", got.body)
		return // a number that only the stored bytes can hold
	}
	var result huma.ValidateResult
	path := huma.NewPathBuffer(nil, 0)
	huma.Validate(h.api.documents.source.Components.Schemas, schema, path, huma.ModeReadFromServer, value, &result)
	require.Empty(h.t, result.Errors, "%s", got.body)
}

// code is the error code of a failure.
func (r *reply) code() string {
	var body struct{ Error string }
	_ = json.Unmarshal(r.body, &body)
	return body.Error
}

func (r *reply) fails(status int, code string) *reply {
	r.t.Helper()
	require.Equal(r.t, status, r.status, "%s", r.body)
	require.Equal(r.t, code, r.code(), "%s", r.body)
	return r
}

func (r *reply) is(status int) *reply {
	r.t.Helper()
	require.Equal(r.t, status, r.status, "%s", r.body)
	return r
}

// says compares the whole body.
func (r *reply) says(body string) *reply {
	r.t.Helper()
	require.Equal(r.t, body, string(r.body))
	return r
}

func into[T any](r *reply) T {
	r.t.Helper()
	var value T
	require.NoError(r.t, json.Unmarshal(r.body, &value), "%s", r.body)
	return value
}

// Types that answers are read into.
type (
	gotConversation struct {
		ID          string
		Version     uint64
		Tombstoned  bool
		Metadata    json.RawMessage
		LastSeq     uint64 `json:"last_seq"`
		ArchivedSeq uint64 `json:"archived_seq"`
		Head        string
		CreatedAt   string `json:"created_at"`
		UpdatedAt   string `json:"updated_at"`
	}
	gotMessage struct {
		Seq        uint64
		ID         string
		Role       string
		Parts      json.RawMessage
		Metadata   json.RawMessage
		TokenCount uint64 `json:"token_count"`
		InsertedAt string `json:"inserted_at"`
	}
	gotPage struct {
		Messages []gotMessage
		NextFrom uint64 `json:"next_from"`
		LastSeq  uint64 `json:"last_seq"`
	}
	gotList struct {
		Conversations []gotConversation
		Next          string
	}
)

func (p gotPage) seqs() []uint64 {
	seqs := []uint64{}
	for _, m := range p.Messages {
		seqs = append(seqs, m.Seq)
	}
	return seqs
}

// create makes a conversation and returns its path.
func (h *harness) create(id string) string {
	h.t.Helper()
	path := "/v1/conversations/" + id
	h.do("PUT", path, "").is(200)
	return path
}

const hello = `{"message":{"role":"user","parts":[{"type":"text","text":"hello"}]}}`

func (h *harness) appendN(path string, n int) {
	h.t.Helper()
	for range n {
		h.do("POST", path+"/messages", hello).is(201)
	}
}
