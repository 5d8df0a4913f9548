package conformance

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

func TestUnknownRoutes(t *testing.T) {
	a := setup(t)
	for _, path := range []string{
		"/v1/nope", "/v1", "/v2/conversations/x", "/nope", "/v1/conversations/x/nope", "/v1/conversations/x/tail/y", "/health/nope",
	} {
		requireFault(t, a.get(path), http.StatusNotFound, "")
	}
}

func TestUnknownMethods(t *testing.T) {
	a := setup(t)
	id := a.filled(1)
	before := a.conversation(id)
	for _, c := range []struct{ method, path string }{
		{http.MethodPatch, client.Path(id)},
		{http.MethodPost, client.Path(id)},
		{http.MethodDelete, client.Path(id) + "/messages"},
		{http.MethodPut, client.Path(id) + "/messages"},
		{http.MethodPost, client.Path(id) + "/tail"},
		{http.MethodPost, "/v1/conversations"},
		{http.MethodPost, "/health/live"},
		{"BREW", client.Path(id)},
	} {
		requireFault(t, a.request(c.method, c.path, "{}"), http.StatusMethodNotAllowed, "")
	}
	require.Equal(t, before, a.conversation(id))
}

func TestBrokenJSON(t *testing.T) {
	a := setup(t)
	id := a.created()
	for _, body := range []string{
		`{`, `{"message":`, `nonsense`, `{"message":{}}trailing`, `{"message":{},}`, `{'message':{}}`, "\x00", `{"metadata":{}}}`,
		"\xef\xbb\xbf{", `NaN`, `{"message":{"role":"user","parts":[{"type":"text","n":01}]}}`,
		`{"message":{"role":"user","parts":[{"type":"text","n":+1}]}}`, `{"message":{"role":"user","parts":[{"type":"text","s":"\x"}]}}`,
	} {
		requireFault(t, a.post(id, body), http.StatusBadRequest, "invalid_json")
		requireFault(t, a.put(id, body), http.StatusBadRequest, "invalid_json")
	}
	for _, body := range []string{`[]`, `"x"`, `5`, `null`} {
		requireFault(t, a.post(id, body), http.StatusBadRequest, "")
	}
	requireFault(t, a.request(http.MethodPost, client.Path(id)+"/messages", "",
		client.Header{Name: "Content-Type", Value: "application/json"}), http.StatusBadRequest, "")
	requireUntouched(a, id)
}

func TestContentTypes(t *testing.T) {
	a := setup(t)
	id := a.created()
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data"} {
		header := client.Header{Name: "Content-Type", Value: kind}
		requireFault(t, a.post(id, text("x"), header), http.StatusUnsupportedMediaType, "")
		reply := a.request(http.MethodPut, client.Path(id), "{}", header)
		requireFault(t, reply, http.StatusUnsupportedMediaType, "")
	}
	requireUntouched(a, id)
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"} {
		a.appended(id, http.StatusCreated, text("x"), client.Header{Name: "Content-Type", Value: kind})
	}
}

// sized returns the body of a message whose one text has n bytes.
func sized(n int) string { return text(strings.Repeat("x", n)) }

func TestMessageTooLarge(t *testing.T) {
	a := setup(t)
	id := a.created()
	requireFault(t, a.post(id, sized(1<<20)), http.StatusRequestEntityTooLarge, "payload_too_large")
	requireUntouched(a, id)
	a.appended(id, http.StatusCreated, sized(1<<20-1024))
	require.Len(t, a.tail(id, "")[0].TextOf(), 1<<20-1024)
}

func TestBodyTooLarge(t *testing.T) {
	a := setup(t)
	id := a.created()
	large := make([]string, 9)
	for i := range large {
		large[i] = strings.Repeat("x", 1<<20-1024)
	}
	requireFault(t, a.post(id, batch(large...)), http.StatusRequestEntityTooLarge, "payload_too_large")
	requireFault(t, a.put(id, `{"metadata":{"k":"`+strings.Repeat("x", 9<<20)+`"}}`),
		http.StatusRequestEntityTooLarge, "payload_too_large")
	requireUntouched(a, id)
	a.appended(id, http.StatusCreated, batch(large[:7]...))
	require.Len(t, a.verified(id), 7)
}

// A body that does not say how long it is counts as much.
func TestChunkedBodyTooLarge(t *testing.T) {
	a := setup(t)
	id := a.created()
	base, err := url.Parse(a.Base())
	require.NoError(t, err)
	if base.Scheme != "http" {
		t.Skip("needs a plain connection")
	}
	conn, err := net.Dial("tcp", base.Host)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	answers := make(chan *http.Response, 1)
	failures := make(chan error, 1)
	go func() {
		reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			failures <- err
			return
		}
		answers <- reply
	}()
	_, err = fmt.Fprintf(conn, "POST %s/messages HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
		client.Path(id), base.Host)
	require.NoError(t, err)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<20, strings.Repeat(" ", 1<<20))
	// The server may stop reading as soon as it knows, so writes may fail.
	for range 9 {
		if _, err := io.WriteString(conn, chunk); err != nil {
			break
		}
	}
	select {
	case reply := <-answers:
		defer func() { _ = reply.Body.Close() }()
		require.Equal(t, http.StatusRequestEntityTooLarge, reply.StatusCode)
	case err := <-failures:
		require.NoError(t, err)
	}
	requireUntouched(a, id)
}
