package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// FuzzAppendBody sends any body to the handler. It must answer 201 or a 4xx;
// what it accepts must come back byte for byte, as the standard library reads
// the body.
func FuzzAppendBody(f *testing.F) {
	for _, s := range []string{
		hello, message(`"role":"u",` + okParts + `,"id":"1","metadata":{"a":[1.0]},"token_count":3`),
		`{"messages":[{"role":"u",` + okParts + `},{"role":"\u0061","parts":[{"type":"t","text":"\ud800\n"}]}],"if_version":0}`,
		`{"message":{"role":"u","parts":[{"type":"x"},5]}}`, `{"message":{"metadata":null}}`, ``, `{}`, `[]`,
		`{"messages":[{"id":"a","role":"u",` + okParts + `},{"id":"a","role":"u",` + okParts + `}]}`,
		`{"message":{"role":"u","parts":[ {"type" : "t","text":"` + strings.Repeat("x", 50) + `"} ]},"if_version":null}`,
	} {
		f.Add([]byte(s))
	}
	shared := newHarness(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		h := shared.with(t)
		path := h.create("c")
		defer delete(h.store.byKey, "c")
		before := h.store.state()
		r := httptest.NewRequest("POST", path+"/messages", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		got := h.serve(r)
		if got.status != 201 {
			require.GreaterOrEqual(t, got.status, 400)
			require.Less(t, got.status, 500)
			require.Equal(t, before, h.store.state(), "a refused append changed something")
			if got.code() == "invalid_json" {
				require.False(t, strict(body), "%q", body)
			}
			return
		}
		require.True(t, strict(body), "%q", body)
		var sent struct {
			Message  *json.RawMessage
			Messages []json.RawMessage
		}
		require.NoError(t, json.Unmarshal(exactNames(t, body), &sent))
		if sent.Message != nil {
			sent.Messages = append(sent.Messages, *sent.Message)
		}
		held := h.store.byKey["c"].messages
		at := 0
		for _, raw := range sent.Messages {
			members := membersOf(t, raw)
			if at == len(held) {
				break // the rest repeats ids of the same batch
			}
			stored := membersOf(t, held[at].JSON)
			if string(members["id"]) != "" && string(members["id"]) != "null" && string(stored["id"]) != string(members["id"]) {
				continue // a duplicate within the batch
			}
			require.Equal(t, string(members["role"]), string(stored["role"]))
			require.Equal(t, string(members["parts"]), string(stored["parts"]))
			if members["metadata"] != nil {
				require.Equal(t, string(members["metadata"]), string(stored["metadata"]))
			} else {
				require.Equal(t, "{}", string(stored["metadata"]))
			}
			at++
		}
	})
}

// membersOf splits an object into its raw members, by decoded name.
func membersOf(t *testing.T, raw []byte) map[string]json.RawMessage {
	t.Helper()
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(raw, &members))
	return members
}

// exactNames drops the members that encoding/json would take for others
// because it folds case.
func exactNames(t *testing.T, body []byte) []byte {
	t.Helper()
	all := membersOf(t, body)
	kept := map[string]json.RawMessage{}
	for _, name := range []string{"message", "messages"} {
		if raw, ok := all[name]; ok {
			kept[name] = raw
		}
	}
	var out bytes.Buffer
	out.WriteByte('{')
	for name, raw := range kept { // Marshal would compact the raw values
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%q:%s", name, raw)
	}
	out.WriteByte('}')
	return out.Bytes()
}

// FuzzID puts any text into the path, encoded, and as it is.
func FuzzID(f *testing.F) {
	for _, s := range []string{"a", "a/b", "a%2Fb", "é ☃", "+", "..", ".", "a?b#c", "%", "%zz", "\x00", "\xff", strings.Repeat("x", 512), strings.Repeat("é", 256), "", " ", "a;b", "{id}", "*"} {
		f.Add(s)
	}
	shared := newHarness(f)
	f.Fuzz(func(t *testing.T, id string) {
		h := shared.with(t)
		defer delete(h.store.byKey, rpc.Key(id))
		before := h.store.state()
		target := "/v1/conversations/" + url.PathEscape(id)
		location, err := url.ParseRequestURI(target)
		require.NoError(t, err)
		r := httptest.NewRequest("PUT", "/", nil)
		r.URL = location
		got := h.serve(r)
		valid := len(id) <= 512 && id != "" && utf8.ValidString(id) && !strings.Contains(id, "\x00")
		if !valid {
			require.Contains(t, []int{400, 404}, got.status, "%q", id)
			require.Equal(t, before, h.store.state())
			return
		}
		require.Equal(t, 200, got.status, "%q", id)
		require.Equal(t, id, into[gotConversation](got).ID)
		r = httptest.NewRequest("GET", "/", nil)
		r.URL, err = url.ParseRequestURI(target + "/tail")
		require.NoError(t, err)
		h.serve(r).is(200)
		// The same bytes unescaped, if they make a URL at all.
		if raw, err := url.ParseRequestURI("/v1/conversations/" + id); err == nil {
			r = httptest.NewRequest("GET", "/", nil)
			r.URL = raw
			require.Less(t, h.serve(r).status, 500)
		}
	})
}

// FuzzQuery sends any query string to every read.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"", "limit=3", "limit=-1&offset=-1", "limit=1000000000000000000000", "before=2", "offset=1&before=2", "from=2&limit=1", "from_seq=2", "consistency=stale", "consistency=x",
		"limit=%zz", "limit=1;offset=2", "limit=1&limit=2", "prefix=c&after=kYw", "after=x", "&&&", "=", "%00=%00", "limit", "limit=", "limit=0x1", "limit=%31", "LIMIT=x",
	} {
		f.Add(s)
	}
	shared := newHarness(f)
	path := shared.create("c")
	shared.appendN(path, 5)
	f.Fuzz(func(t *testing.T, query string) {
		h := shared.with(t)
		before := h.store.state()
		for _, target := range []string{path, path + "/tail", path + "/messages", "/v1/conversations"} {
			r := httptest.NewRequest("GET", target, nil)
			r.URL.RawQuery = query
			got := h.serve(r)
			if got.status != 200 {
				require.Equal(t, 400, got.status)
				require.Equal(t, "invalid_parameter", got.code())
				continue
			}
			if strings.HasSuffix(target, "/tail") || strings.HasSuffix(target, "/messages") {
				seqs := into[gotPage](got).seqs()
				for i := 1; i < len(seqs); i++ {
					require.Equal(t, seqs[i-1]+1, seqs[i])
				}
			}
		}
		require.Equal(t, before, h.store.state())
	})
}

// TestMutations sends 10,000 random mutations of valid requests. None may get a
// 5xx, and none that gets a 4xx may change anything. (X-Fastpaca-Min-Seq is left
// out: to wait in vain for a sequence is answered 503.) The seed is fixed, so
// that a failure can be repeated; the fuzz targets look further.
func TestMutations(t *testing.T) {
	t.Parallel()
	const mutations = 10_000
	h := newHarness(t)
	h.appendN(h.create("c"), 3)
	h.create("a%2Fb")
	bodies := []string{
		hello,
		`{"messages":[{"id":"m1","role":"user","parts":[{"type":"text","text":"h\u00e9"}],"metadata":{"a":[1,2.5,null]},"token_count":4},{"role":"tool","parts":[{"type":"x","y":{"z":true}}]}],"if_version":3}`,
		`{"metadata":{"user_id":"u_123","n":[1,{"a":"b"}]}}`,
	}
	type request struct{ head, body string }
	var requests []request
	for _, body := range bodies {
		for _, target := range []string{"POST /v1/conversations/c/messages", "PUT /v1/conversations/c", "POST /v1/conversations/a%2Fb/messages"} {
			head := target + " HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
			requests = append(requests, request{head, body}, request{head + "Idempotency-Key: k1\r\n", body})
		}
	}
	for _, target := range []string{"GET /v1/conversations/c", "DELETE /v1/conversations/d", "GET /v1/conversations/c/tail?limit=3&offset=1", "GET /v1/conversations/c/messages?from=2&limit=1&consistency=stale", "GET /v1/conversations?prefix=c&limit=2&after=kYQ"} {
		requests = append(requests, request{target + " HTTP/1.1\r\nHost: h\r\n", ""})
	}
	random := rand.New(rand.NewPCG(1, 2))
	answered := map[int]int{}
	for i := range mutations {
		chosen := requests[random.IntN(len(requests))]
		mutateHead := chosen.body == "" || random.IntN(3) == 0
		if !mutateHead {
			chosen.body = mutate(random, chosen.body)
		}
		raw := fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", chosen.head, len(chosen.body), chosen.body)
		if mutateHead {
			raw = mutate(random, raw)
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			answered[0]++ // net/http refuses it before the handler
			continue
		}
		before := h.store.state()
		got := h.serve(r)
		answered[got.status]++
		if got.status >= 500 || got.status >= 400 && h.store.state() != before {
			t.Fatalf("mutation %d got %d and moved the state by %d\n%q", i, got.status, h.store.state()-before, raw)
		}
	}
	t.Log(answered)
	require.Greater(t, answered[200]+answered[201], mutations/20, "some mutations are still valid")
	require.Greater(t, answered[400], mutations/20)
}

// mutate changes a request in one to three places.
func mutate(random *rand.Rand, s string) string {
	tokens := []string{"{", "}", "[", "]", ",", ":", `"`, `\`, `\u0000`, `\ud800`, "null", "-1", "1e999", "%00", "%2F", "%ff", "\x00", "\xff", "é", "=", "&", "?", "/", " ", "\r\n", "message", "parts", "0", "99999999999999999999"}
	for range 1 + random.IntN(3) {
		at := random.IntN(len(s) + 1)
		switch random.IntN(5) {
		case 0: // insert
			s = s[:at] + tokens[random.IntN(len(tokens))] + s[at:]
		case 1: // delete
			s = s[:at] + s[min(at+1+random.IntN(8), len(s)):]
		case 2: // replace
			s = s[:at] + tokens[random.IntN(len(tokens))] + s[min(at+1, len(s)):]
		case 3: // repeat
			end := min(at+random.IntN(40), len(s))
			s = s[:end] + s[at:end] + s[end:]
		case 4: // flip a bit
			if at < len(s) {
				b := []byte(s)
				b[at] ^= 1 << random.IntN(8)
				s = string(b)
			}
		}
	}
	return s
}
