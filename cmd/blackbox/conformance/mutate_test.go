package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// request is a request in pieces that can be broken one by one. Framing is
// left whole: a wrong Content-Length only tests the patience of both sides.
type request struct {
	method, path string
	query        [][2]string // escaped
	headers      []client.Header
	body         []byte
}

// valid returns a random request that the server would take, apart from those
// to a conversation that is missing or tombstoned.
func (m *mutator) valid() *request {
	id := m.live
	switch m.rand.IntN(8) {
	case 0:
		id = m.tombstoned
	case 1:
		id = m.missing
	}
	path := client.Path(id)
	kind := client.Header{Name: "Content-Type", Value: "application/json"}
	switch m.rand.IntN(10) {
	case 0:
		return &request{method: http.MethodGet, path: path, query: [][2]string{{"consistency", "leader"}}}
	case 1:
		return &request{method: http.MethodPut, path: path, headers: []client.Header{kind}, body: []byte(`{"metadata":{"user_id":"u_123","n":[1,2.5,{"a":null}]}}`)}
	case 2:
		position := pick(m.rand, [][2]string{{"offset", "1"}, {"before", "4"}})
		return &request{method: http.MethodGet, path: path + "/tail", query: [][2]string{{"limit", "3"}, position}}
	case 3:
		return &request{method: http.MethodGet, path: path + "/messages", query: [][2]string{{"from", "2"}, {"limit", "2"}}}
	case 4:
		return &request{method: http.MethodGet, path: "/v1/conversations", query: [][2]string{{"prefix", m.live[:20]}, {"limit", "10"}, {"after", ""}}}
	case 5:
		return &request{method: http.MethodPost, path: path + "/messages", headers: []client.Header{kind}, body: []byte(
			`{"messages":[{"id":"a","role":"user","parts":[{"type":"text","text":"one"}]},` +
				`{"role":"tool","parts":[{"type":"tool-x","output":{"ok":true}}],"metadata":{},"token_count":7}],"if_version":null}`)}
	default:
		return &request{method: http.MethodPost, path: path + "/messages",
			headers: []client.Header{kind, {Name: "Idempotency-Key", Value: fmt.Sprint(m.rand.Uint32())}},
			body:    []byte(`{"message":{"id":"m","role":"user","parts":[{"type":"text","text":"hello \u00e9"}],"metadata":{"a":1},"token_count":2}}`)}
	}
}

func (q *request) target() string {
	if len(q.query) == 0 {
		return q.path
	}
	pairs := make([]string, len(q.query))
	for i, p := range q.query {
		pairs[i] = p[0] + "=" + p[1]
	}
	return q.path + "?" + strings.Join(pairs, "&")
}

func (q *request) encode(host string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: %s\r\n", q.method, q.target(), host)
	for _, h := range q.headers {
		fmt.Fprintf(&out, "%s: %s\r\n", h.Name, h.Value)
	}
	fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n", len(q.body))
	out.Write(q.body)
	return out.Bytes()
}

// String shows the request for failure messages, whole but for long bodies.
func (q *request) String() string { return fmt.Sprintf("%.4000q", q.encode("server")) }

func (q *request) writes() bool {
	return q.method == http.MethodPut || q.method == http.MethodPost || q.method == http.MethodDelete
}

// conversation returns the id that the path names, if it names one that can be
// asked for.
func (q *request) conversation() (string, bool) {
	rest, ok := strings.CutPrefix(q.path, "/v1/conversations/")
	if !ok {
		return "", false
	}
	segment, _, _ := strings.Cut(rest, "/")
	id, err := url.PathUnescape(segment)
	return id, err == nil && id != ""
}

// mutate breaks one thing.
func (q *request) mutate(r *rand.Rand) {
	switch n := r.IntN(12); {
	case n < 4 && len(q.body) > 0:
		q.mutateJSON(r)
	case n < 6 && len(q.body) > 0:
		q.body = mutateBytes(r, q.body)
	case n < 8 && len(q.query) > 0:
		i := r.IntN(len(q.query))
		q.query[i][r.IntN(2)] = url.QueryEscape(pick(r, hostileStrings))
	case n < 9:
		q.mutatePath(r)
	case n < 10:
		q.method = pick(r, []string{"GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"})
	default:
		q.headers = append(slices.Clone(q.headers), pick(r, hostileHeaders))
	}
}

func (q *request) mutatePath(r *rand.Rand) {
	at := 1 + r.IntN(len(q.path))
	junk := pick(r, []string{"%00", "%ff", "%2F", "%", "%zz", "/", "//", "..", "/../", "%2e%2e", "é", "x", ";", "+", "%F0%9F%98%80", strings.Repeat("y", 600)})
	q.path = q.path[:at] + junk + q.path[at:]
}

// mutateJSON replaces, removes, repeats or renames something inside the body.
func (q *request) mutateJSON(r *rand.Rand) {
	spots := tokens(q.body)
	if len(spots) == 0 {
		q.body = mutateBytes(r, q.body)
		return
	}
	spot := pick(r, spots)
	value := pick(r, hostileValues)
	q.body = slices.Concat(q.body[:spot[0]], []byte(value), q.body[spot[1]:])
}

// tokens returns where the scalars, keys and brackets of a JSON text lie.
func tokens(body []byte) [][2]int {
	var spots [][2]int
	decoder := json.NewDecoder(bytes.NewReader(body))
	for {
		start := int(decoder.InputOffset())
		if _, err := decoder.Token(); err != nil {
			return spots
		}
		end := int(decoder.InputOffset())
		// The decoder's offset is where the last token ended: what lies between
		// is separators, which stay.
		for start < end && strings.IndexByte(" \t\r\n,:", body[start]) >= 0 {
			start++
		}
		spots = append(spots, [2]int{start, end})
	}
}

func mutateBytes(r *rand.Rand, body []byte) []byte {
	body = slices.Clone(body)
	at := r.IntN(len(body))
	switch r.IntN(5) {
	case 0:
		body[at] ^= 1 << r.IntN(8)
		return body
	case 1:
		return body[:at]
	case 2:
		return slices.Delete(body, at, min(len(body), at+1+r.IntN(8)))
	case 3:
		return slices.Insert(body, at, []byte(pick(r, hostileStrings))...)
	default:
		end := min(len(body), at+1+r.IntN(20))
		return slices.Insert(body, at, slices.Clone(body[at:end])...)
	}
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

var hostileStrings = []string{
	"", "x", "-1", "0", "1.5", "1e400", "9223372036854775808", "18446744073709551616", "NaN", "null", "true", " 1", "1 ", "+1", "0x1",
	"\x00", "\xff\xfe", "\u2028", "é", "'; DROP TABLE messages; --", "../../etc/passwd", "${jndi:x}", "<script>", `"`, `\`, "{", "]",
	strings.Repeat("9", 400), strings.Repeat("a", 5000),
}

var hostileValues = []string{
	`null`, `true`, `-1`, `0`, `1.5`, `1e400`, `-0`, `9223372036854775808`, `18446744073709551615`, `123456789012345678901234567890`,
	`""`, `"x"`, `"\u0000"`, `"\ud800"`, `"é"`, "\"\xff\"", `"` + strings.Repeat("k", 70_000) + `"`, `[]`, `{}`, `[[]]`, `[null]`, `[{}]`, `{"type":"text"}`,
	`{"type":5}`, `[{"type":"text","text":null}]`, `{"":{}}`, strings.Repeat("[", 12_000) + strings.Repeat("]", 12_000), strings.Repeat(`{"a":`, 3000) + `1` + strings.Repeat(`}`, 3000),
	`nul`, `NaN`, `'x'`, ``, `,`, `}`, `"unterminated`, `"message"`, `"messages"`, `"role"`, `"parts"`, `"metadata"`, `"if_version"`, `"id"`, `"type"`,
}

var hostileHeaders = []client.Header{
	{Name: "Content-Type", Value: "text/plain"},
	{Name: "Content-Type", Value: ""},
	{Name: "Content-Type", Value: "application/json; charset=utf-16"},
	{Name: "Content-Type", Value: ";;;"},
	{Name: "Content-Encoding", Value: "gzip"},
	{Name: "Accept", Value: "text/html"},
	{Name: "Accept", Value: "application/cbor"},
	{Name: "Accept-Encoding", Value: "gzip, br;q=2"},
	{Name: "Idempotency-Key", Value: ""},
	{Name: "Idempotency-Key", Value: "é\xff"},
	{Name: "Idempotency-Key", Value: strings.Repeat("k", 300)},
	{Name: "X-Fastpaca-Min-Seq", Value: "x"},
	{Name: "X-Fastpaca-Min-Seq", Value: "-1"},
	{Name: "X-Fastpaca-Min-Seq", Value: "0"},
	{Name: "X-Request-Id", Value: strings.Repeat("r", 4000)},
	{Name: "X-HTTP-Method-Override", Value: "DELETE"},
	{Name: "Origin", Value: "null"},
	{Name: "Range", Value: "bytes=0-1"},
	{Name: "If-None-Match", Value: "*"},
	{Name: "Expect", Value: "100-continue"},
	{Name: "Connection", Value: "upgrade"},
	{Name: "Upgrade", Value: "websocket"},
	{Name: "X-Forwarded-For", Value: "\t"},
}
