package api

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// instant is a data plane that answers at once.
type instant struct {
	rpc.Node
	reply rpc.AppendReply
	page  rpc.Page
	conv  rpc.Conversation
}

func (n *instant) Append(context.Context, *rpc.AppendRequest) (*rpc.AppendReply, error) {
	return &n.reply, nil
}

func (n *instant) Tail(context.Context, *rpc.TailRequest) (*rpc.Page, error) { return &n.page, nil }

func (n *instant) Conversation(context.Context, rpc.Key, rpc.ReadOptions) (*rpc.Conversation, error) {
	return &n.conv, nil
}

// sink is a response writer that costs next to nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

type bodyReader struct{ bytes.Reader }

func (*bodyReader) Close() error { return nil }

// body400 is an append of about 400 bytes, with an id or without.
func body400(id string) []byte {
	if id != "" {
		id = `"id":"` + id + `",`
	}
	return []byte(`{"message":{` + id + `"role":"user","parts":[{"type":"text","text":"` + strings.Repeat("Hello wor ", 30) + `"}],"metadata":{"a":1}}}`)
}

func benchAPI(b *testing.B) *API {
	backend := &instant{reply: rpc.AppendReply{Seq: 7, LastSeq: 7, Version: 7, TokenCount: 75, Messages: []rpc.Appended{{Seq: 7, TokenCount: 75}}}}
	message := rpc.Message{Seq: 1, JSON: []byte(`{"seq":1,` + strings.Repeat(" ", 380) + `}`)}
	for range 100 {
		backend.page.Messages = append(backend.page.Messages, message)
	}
	a, err := New(DefaultConfig(), backend, Deps{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Registerer: prometheus.NewRegistry()})
	require.NoError(b, err)
	return a
}

func serveMany(b *testing.B, a *API, method, target string, body []byte, status int) {
	location, err := url.Parse(target)
	require.NoError(b, err)
	w := &sink{header: http.Header{}}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		reader := &bodyReader{}
		reader.Reset(body)
		r := (&http.Request{
			Method: method, URL: location, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: reader, ContentLength: int64(len(body)),
			Header: http.Header{"Content-Type": {"application/json"}},
		}).WithContext(ctx)
		clear(w.header)
		a.ServeHTTP(w, r)
		if w.status != status {
			b.Fatal(w.status)
		}
	}
}

// BenchmarkAppendHandler is everything between net/http and the data plane.
func BenchmarkAppendHandler(b *testing.B) {
	for name, id := range map[string]string{"plain": "", "with id": "msg_0123456789abcdef"} {
		b.Run(name, func(b *testing.B) {
			serveMany(b, benchAPI(b), "POST", "/v1/conversations/chat-0123456789/messages", body400(id), 201)
		})
	}
}

func BenchmarkTailHandler(b *testing.B) {
	serveMany(b, benchAPI(b), "GET", "/v1/conversations/chat-0123456789/tail?limit=100", nil, 200)
}

func BenchmarkGetHandler(b *testing.B) {
	serveMany(b, benchAPI(b), "GET", "/v1/conversations/chat-0123456789", nil, 200)
}

// BenchmarkRequestOnly is what the benchmarks above spend on making requests.
func BenchmarkRequestOnly(b *testing.B) {
	ctx := b.Context()
	body := body400("")
	b.ReportAllocs()
	for b.Loop() {
		reader := &bodyReader{}
		reader.Reset(body)
		r := (&http.Request{Method: "POST", Body: reader, Header: http.Header{"Content-Type": {"application/json"}}}).WithContext(ctx)
		if r.Body == nil {
			b.Fatal()
		}
	}
}

func BenchmarkParseAppend(b *testing.B) {
	for name, id := range map[string]string{"plain": "", "with id": "msg_0123456789abcdef"} {
		b.Run(name, func(b *testing.B) {
			body := body400(id)
			var parsed batch
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := parsed.parse(body); err != nil {
					b.Fatal(err)
				}
				parsed.reset()
			}
		})
	}
}
