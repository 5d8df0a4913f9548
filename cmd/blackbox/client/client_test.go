package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers for one conversation of the given messages.
func serve(t *testing.T, head string, lastSeq int, messages ...string) *Client {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/conversations/{id}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"id":%q,"last_seq":%d,"head":%q}`, r.PathValue("id"), lastSeq, head)
	})
	mux.HandleFunc("GET /v1/conversations/{id}/messages", func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.FormValue("from"))
		page := messages[min(from-1, len(messages)):]
		page = page[:min(2, len(page))]
		fmt.Fprintf(w, `{"messages":[%s]}`, strings.Join(page, ","))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	c := New(server.URL)
	t.Cleanup(c.Close)
	return c
}

func TestHeadVectors(t *testing.T) {
	t.Parallel()
	require.Equal(t, strings.Repeat("00", 32), Head(nil))
	// Computed with sha256sum over the bytes: 32 zero bytes, the
	// sequence as eight bytes, the JSON; then again over that.
	one := Message{Seq: 1, Raw: []byte(`{"seq":1}`)}
	two := Message{Seq: 2, Raw: []byte(`{"seq":2}`)}
	require.Equal(t, "39143cc9f92268124e3b56624a186eac7b3cd4a4b4e8f9ada3662dc0fb0ffbb6", Head([]Message{one}))
	require.Equal(t, "d0435198d08c92761ea7e890f6e558ba7f1fe1ce1a78b24df8cdfdca2aab14c1", Head([]Message{one, two}))
}

func TestVerifiedTakesATrueLog(t *testing.T) {
	t.Parallel()
	raw := []string{`{"seq":1, "parts":[{"text":"a"}]}`, `{"seq":2}`, `{"seq":3}`}
	var log []Message
	for i, r := range raw {
		log = append(log, Message{Seq: uint64(i) + 1, Raw: []byte(r)})
	}
	c := serve(t, Head(log), 3, raw...)
	_, got, err := c.Verified(t.Context(), "x")
	require.NoError(t, err)
	require.Len(t, got, 3)
	require.Equal(t, raw[0], string(got[0].Raw), "the bytes served, spaces and all")
	require.Equal(t, "a", got[0].TextOf())
}

func TestVerifiedRefuses(t *testing.T) {
	t.Parallel()
	one := `{"seq":1}`
	head := Head([]Message{{Seq: 1, Raw: []byte(one)}})
	for name, c := range map[string]*Client{
		"a message less than last_seq says": serve(t, head, 2, one),
		"a message more":                    serve(t, head, 0, one),
		"another head":                      serve(t, strings.Repeat("0", 64), 1, one),
		"a hole":                            serve(t, head, 2, one, `{"seq":3}`),
		"a repeat":                          serve(t, head, 2, one, one),
		"bytes that differ":                 serve(t, head, 1, `{"seq": 1}`),
	} {
		_, _, err := c.Verified(t.Context(), "x")
		require.Error(t, err, name)
	}
}

func TestPathEscapes(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"a":     "/v1/conversations/a",
		"a/b?c": "/v1/conversations/a%2Fb%3Fc",
		".":     "/v1/conversations/%2E",
		"..":    "/v1/conversations/%2E%2E",
		"ü%":    "/v1/conversations/%C3%BC%25",
	} {
		require.Equal(t, want, Path(id))
	}
}

func TestReplyReadsErrors(t *testing.T) {
	t.Parallel()
	r := Reply{Status: 409, Body: []byte(`{"error":"conflict","message":"m","current_version":4}`)}
	require.EqualValues(t, 4, *r.Fault().CurrentVersion)
	require.Equal(t, "conflict", r.Fault().Code)
	require.Zero(t, Reply{Body: []byte("<html>")}.Fault())
	_, ok := r.RetryAfter()
	require.False(t, ok)
	seconds, ok := Reply{Header: http.Header{"Retry-After": {"2"}}}.RetryAfter()
	require.True(t, ok)
	require.Equal(t, 2, seconds)
}

func TestTextBody(t *testing.T) {
	t.Parallel()
	require.JSONEq(t, `{"message":{"role":"user","parts":[{"type":"text","text":"a\"b"}]}}`, string(TextBody("", `a"b`)))
	require.JSONEq(t, `{"message":{"id":"i","role":"user","parts":[{"type":"text","text":""}]}}`, string(TextBody("i", "")))
}
