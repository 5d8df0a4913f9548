package fastpaca

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// canned answers every request at once, so that only the client is measured.
type canned string

func (c canned) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	return &http.Response{
		StatusCode: 201, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
		ContentLength: int64(len(c)), Body: io.NopCloser(strings.NewReader(string(c))),
	}, nil
}

// What an append costs the client's CPU, network excluded.
func BenchmarkAppend(b *testing.B) {
	client, err := New("http://host", WithHTTPClient(&http.Client{Transport: canned(appended)}))
	require.NoError(b, err)
	c, m := client.Conversation("chat-123"), TextMessage("user", strings.Repeat("x", 300))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Append(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

// The same request without this package, to compare with.
func BenchmarkBareRequest(b *testing.B) {
	client := &http.Client{Transport: canned(appended)}
	body := []byte(`{"message":{"role":"user","parts":[{"type":"text","text":"` + strings.Repeat("x", 300) + `"}]}}`)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := client.Post("http://host/v1/conversations/chat-123/messages", contentType, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// What a live message costs, of 300 bytes.
func BenchmarkTakeMessage(b *testing.B) {
	data := []byte(`{"type":"message","seq":1,"version":1,"message":` + strings.Replace(messageJSON(1), "message 1", strings.Repeat("x", 300), 1) + `}`)
	s := subscription{yield: func(Event, error) bool { return true }}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		s.next = 1
		if err := s.take(data); err != nil {
			b.Fatal(err)
		}
	}
}
