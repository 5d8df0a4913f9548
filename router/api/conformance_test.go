package api

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The cases C01 to C17 and C24 of the public contract, at the level of the
// handler. Every answer is checked against the document by the harness.

func TestC01PutCreates(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	got := h.do("PUT", "/v1/conversations/chat-1", `{"metadata":{"user_id":"u_123"}}`).is(200)
	c := into[gotConversation](got)
	require.Equal(t, "chat-1", c.ID)
	require.JSONEq(t, `{"user_id":"u_123"}`, string(c.Metadata))
	require.Zero(t, c.Version+c.LastSeq+c.ArchivedSeq)
	require.False(t, c.Tombstoned)
	require.Equal(t, strings.Repeat("0", 64), c.Head)
	require.Equal(t, "2026-01-02T02:04:05.124456Z", c.CreatedAt, "UTC with six digits")
	require.Contains(t, string(got.body), `"archived_seq":0`)
}

func TestC02PutReplaces(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.do("PUT", "/v1/conversations/c", `{"metadata":{"a":1,"b":2}}`).is(200)
	replaced := into[gotConversation](h.do("PUT", "/v1/conversations/c", `{"metadata":{"b":3}}`).is(200))
	require.Equal(t, `{"b":3}`, string(replaced.Metadata))
	for _, body := range []string{"", "{}", `{"metadata":null}`, `{"other":[1]}`, " \n{} "} {
		kept := into[gotConversation](h.do("PUT", "/v1/conversations/c", body).is(200))
		require.Equal(t, `{"b":3}`, string(kept.Metadata), "%q", body)
		require.Zero(t, kept.Version)
	}
	replaced = into[gotConversation](h.do("PUT", "/v1/conversations/c", `{"metadata":{}}`).is(200))
	require.Equal(t, `{}`, string(replaced.Metadata))
}

func TestC03PutRefusesMetadata(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, metadata := range []string{`[]`, `"x"`, `5`, `true`} {
		h.do("PUT", "/v1/conversations/c", `{"metadata":`+metadata+`}`).fails(400, "invalid_metadata")
	}
	h.do("PUT", "/v1/conversations/c", `[]`).fails(400, "invalid_metadata")
	large := `{"metadata":{"a":"` + strings.Repeat("x", 16<<10-8) + `"}}`
	h.do("PUT", "/v1/conversations/c", large).is(200)
	h.do("PUT", "/v1/conversations/c", strings.Replace(large, "xx", "xxx", 1)).fails(400, "invalid_metadata")
	require.Equal(t, 2, h.store.state(), "only the put that was accepted changed something")
}

func TestC04GetMissing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.do("GET", "/v1/conversations/none", "").fails(404, "conversation_not_found")
	h.do("GET", "/v1/conversations/none/tail", "").fails(404, "conversation_not_found")
	h.do("GET", "/v1/conversations/none/messages", "").fails(404, "conversation_not_found")
}

func TestC05To07AppendRefusesMessages(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c") + "/messages"
	for _, body := range []string{
		`{"message":{"parts":[{"type":"text"}]}}`,
		`{"message":{"role":"user"}}`,
		`{"message":{"role":"user","parts":[]}}`,
		`{"message":{"role":"user","parts":[{"text":"x"}]}}`,
		`{"message":{"role":"","parts":[{"type":"text"}]}}`,
		`{}`, `{"msg":{}}`,
	} {
		h.do("POST", path, body).fails(400, "invalid_message")
	}
	h.do("POST", path, `{"message":{"role":"user","parts":[{"type":"text"}],"metadata":null}}`).fails(400, "invalid_metadata")
	h.do("POST", path, `{"message":{"role":"an unknown role","parts":[{"type":"text"}]}}`).is(201)
	page := into[gotPage](h.do("GET", path, "").is(200))
	require.Len(t, page.Messages, 1)
	require.Equal(t, `{}`, string(page.Messages[0].Metadata))
}

func TestC08AppendCounts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c")
	h.do("POST", path+"/messages", hello).is(201).says(`{"seq":1,"version":1,"token_count":1}`)
	h.do("POST", path+"/messages", hello).is(201).says(`{"seq":2,"version":2,"token_count":1}`)
}

func TestC09TokenCounts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c") + "/messages"
	two := `{"type":"text","text":"1234567"},{"type":"text","text":"1234567"}`
	cases := []struct {
		parts, given string
		want         uint64
	}{
		{`{"type":"text","text":"hello"}`, `5`, 5},
		{`{"type":"text","text":"hello"}`, `0`, 0},
		{`{"type":"text","text":"hello"}`, ``, 1},
		{`{"type":"text","text":"hello"}`, `-3`, 1},
		{`{"type":"text","text":"hello"}`, `"x"`, 1},
		{`{"type":"text","text":"hello"}`, `1.5`, 1},
		{`{"type":"text","text":"hello"}`, `1e2`, 1},
		{`{"type":"text","text":"hello"}`, `null`, 1},
		{`{"type":"text","text":"hello"}`, `9007199254740991`, 9007199254740991},
		{`{"type":"text","text":"hello"}`, `9007199254740992`, 1},
		{`{"type":"text","text":"hello"}`, `99999999999999999999999`, 1},
		{two, ``, 2},
		{`{"type":"text","text":"h\u00e9llo\n12"}`, ``, 2},
		{`{"type":"text","text":["hello"]},{"type":"x"}`, ``, 0},
	}
	for _, tc := range cases {
		given := ""
		if tc.given != "" {
			given = `,"token_count":` + tc.given
		}
		got := into[gotMessage](h.do("POST", path, `{"message":{"role":"user","parts":[`+tc.parts+`]`+given+`}}`).is(201))
		require.Equal(t, tc.want, got.TokenCount, "%+v", tc)
		stored := into[gotPage](h.do("GET", path+"?from="+fmt.Sprint(got.Seq), "").is(200))
		require.Equal(t, tc.want, stored.Messages[0].TokenCount, "%+v", tc)
	}
}

func TestC10VersionGuard(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c") + "/messages"
	guarded := func(version string) string { return strings.TrimSuffix(hello, "}") + `,"if_version":` + version + `}` }
	h.do("POST", path, guarded("0")).is(201)
	h.do("POST", path, guarded("0")).fails(409, "conflict").
		says(`{"error":"conflict","message":"Version mismatch (current: 1)","current_version":1}`)
	h.do("POST", path, guarded("1")).is(201)
	h.do("POST", path, guarded("null")).is(201)
	h.do("POST", path, guarded("18446744073709551615")).fails(409, "conflict")
	for _, bad := range []string{`"1"`, `1.0`, `1e0`, `true`, `[]`, `-1`, `18446744073709551616`} {
		h.do("POST", path, guarded(bad)).fails(400, "invalid_parameter")
	}
}

func TestC11AppendToMissingAndTombstoned(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.do("POST", "/v1/conversations/none/messages", hello).fails(404, "conversation_not_found")
	h.do("POST", "/v1/conversations/none/messages", `{}`).fails(400, "invalid_message")
	path := h.create("c")
	h.do("DELETE", path, "").is(204)
	h.do("POST", path+"/messages", hello).fails(410, "conversation_tombstoned")
	h.do("POST", path+"/messages", strings.TrimSuffix(hello, "}")+`,"if_version":9}`).fails(410, "conversation_tombstoned")
	h.do("PUT", path, `{"metadata":{}}`).fails(410, "conversation_tombstoned")
}

func TestC12Delete(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c")
	h.appendN(path, 2)
	h.do("DELETE", path, "").is(204).says("")
	h.do("DELETE", path, "").is(204)
	h.do("DELETE", "/v1/conversations/none", "").fails(404, "conversation_not_found")
	c := into[gotConversation](h.do("GET", path, "").is(200))
	require.True(t, c.Tombstoned)
	require.Equal(t, []uint64{1, 2}, into[gotPage](h.do("GET", path+"/tail", "").is(200)).seqs())
}

func TestC13To14Tail(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c")
	h.appendN(path, 10)
	cases := []struct {
		query string
		want  []uint64
	}{
		{"?limit=3", []uint64{8, 9, 10}},
		{"?limit=3&offset=3", []uint64{5, 6, 7}},
		{"?offset=100", []uint64{}},
		{"?offset=99999999999999999999999", []uint64{}},
		{"?limit=3&offset=-5", []uint64{8, 9, 10}},
		{"?limit=0", []uint64{10}},
		{"?limit=-7", []uint64{10}},
		{"?limit=2&before=9", []uint64{7, 8}},
		{"?limit=2&before=100", []uint64{9, 10}},
		{"?before=1", []uint64{}},
		{"?before=0", []uint64{}},
		{"?before=2&offset=0", []uint64{1}},
		{"?limit=1000&unknown=1", []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"?limit=100000", []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
	}
	for _, tc := range cases {
		got := h.do("GET", path+"/tail"+tc.query, "").is(200)
		require.Equal(t, tc.want, into[gotPage](got).seqs(), tc.query)
		require.Equal(t, "10", got.header.Get("X-Fastpaca-Last-Seq"))
	}
	h.do("GET", path+"/tail?offset=100", "").says(`{"messages":[]}`)

	var seen []uint64
	for offset := 0; ; offset += 3 {
		page := into[gotPage](h.do("GET", fmt.Sprintf("%s/tail?limit=3&offset=%d", path, offset), "").is(200)).seqs()
		if len(page) == 0 {
			break
		}
		seen = append(page, seen...)
	}
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, seen)
}

func TestC15Replay(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c")
	h.appendN(path, 10)
	cases := []struct {
		query string
		want  []uint64
		next  uint64
	}{
		{"", []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 11},
		{"?from=5", []uint64{5, 6, 7, 8, 9, 10}, 11},
		{"?from=1&limit=3", []uint64{1, 2, 3}, 4},
		{"?from=0&limit=1", []uint64{1}, 2},
		{"?from=-4&limit=1", []uint64{1}, 2},
		{"?from_seq=9", []uint64{9, 10}, 11},
		{"?from=10&from_seq=2", []uint64{10}, 11},
		{"?from=100", []uint64{}, 100},
		{"?from=11", []uint64{}, 11},
	}
	for _, tc := range cases {
		got := h.do("GET", path+"/messages"+tc.query, "").is(200)
		page := into[gotPage](got)
		require.Equal(t, tc.want, page.seqs(), tc.query)
		require.Equal(t, tc.next, page.NextFrom, tc.query)
		require.Equal(t, uint64(10), page.LastSeq)
		require.Equal(t, "10", got.header.Get("X-Fastpaca-Last-Seq"))
	}
	h.store.trim("c", 4)
	h.do("GET", path+"/messages?from=3", "").fails(416, "cursor_expired").
		says(`{"error":"cursor_expired","message":"Messages below sequence 4 are no longer held.","earliest_seq":4}`)
	require.Equal(t, []uint64{4}, into[gotPage](h.do("GET", path+"/messages?from=4&limit=1", "").is(200)).seqs())
}

// What is inside parts and metadata comes back byte for byte.
func TestC16ByteExactness(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c")
	parts := []string{
		`[{"type":"text","text":"h\u00e9llo \"w\\orld\" \/ ☃ 🐫","z":1,"a":{"b":[1,2.0,{"c":null}]}}]`,
		`[{"big":12345678901234567890,"type":"n","neg":-0,"exp":1e400,"small":1E-400,"float":2.0,"more":0.1000}]`,
		`[ { "type" : "spaced" , "x" : [ 1 , 2 ]	} , {"type":"text"} ]`,
		"[\n  {\"type\": \"tool-search\",\r\n   \"state\": \"output-available\"}\n]",
		`[{"type":"lone surrogates","\ud800":"\udc00 \ud83d \ud83d\ude00 \uDBFF"}]`,
		`[{"type":"nul","text":"a\u0000b","\u0000":1}]`,
		`[{"type":"html","text":"<script>&amp;</script>` + "\u2028\u2029\u007f" + `"}]`,
		`[{"\u0074ype":"escaped name"}]`,
		`[{"type":""}]`,
		`[{"type":"deep","x":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}]`,
	}
	for i, raw := range parts {
		metadata := fmt.Sprintf(`{ "order":["z","a"], "n":1.50,"i":%d,"s":"\ud800\u0000" }`, i)
		h.do("POST", path+"/messages", `{"message":{"role":"us\u0065r","id":"id \u0041","parts":`+raw+`,"metadata":`+metadata+`,"token_count":7}}`).is(201)
		want := fmt.Sprintf(`{"seq":%d,"id":"id \u0041","role":"us\u0065r","parts":%s,"metadata":%s,"token_count":7,"inserted_at":"`, i+1, raw, metadata)
		for _, read := range []string{"/messages?from=" + fmt.Sprint(i+1), "/tail?limit=1"} {
			got := h.do("GET", path+read, "").is(200)
			require.True(t, strings.HasPrefix(string(got.body), `{"messages":[`+want), "%s\n%s", got.body, want)
		}
	}
}

func TestC16MetadataOfConversations(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	raw := `{ "n":1e400, "z":{"b":2.0,"a":"\ud800"} }`
	h.do("PUT", "/v1/conversations/c", `{"metadata":`+raw+`}`).is(200)
	got := h.do("GET", "/v1/conversations/c", "").is(200)
	require.Contains(t, string(got.body), `"metadata":`+raw+`,"last_seq"`)
}

func TestC17Batch(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c")
	body := `{"messages":[{"role":"user","parts":[{"type":"text","text":"12345678"}],"id":"m\u0031"},{"role":"assistant","parts":[{"type":"text","text":"hello"}]}],"if_version":0}`
	h.do("POST", path+"/messages", body).is(201).
		says(`{"seq":1,"version":1,"token_count":3,"last_seq":2,"messages":[{"seq":1,"id":"m\u0031","token_count":2},{"seq":2,"token_count":1}]}`)
	c := into[gotConversation](h.do("GET", path, "").is(200))
	require.Equal(t, uint64(1), c.Version)
	require.Equal(t, uint64(2), c.LastSeq)
	// A client can recompute the head from what it reads.
	var head [32]byte
	for seq := range uint64(2) {
		raw := string(h.do("GET", fmt.Sprintf("%s/messages?limit=1&from=%d", path, seq+1), "").body)
		raw = strings.TrimPrefix(raw, `{"messages":[`)
		raw = raw[:strings.LastIndex(raw, `],"next_from"`)]
		head = sha256.Sum256(append(binary.BigEndian.AppendUint64(head[:], seq+1), raw...))
	}
	require.Equal(t, hex.EncodeToString(head[:]), c.Head)
	h.do("POST", path+"/messages", `{"messages":[{"role":"user","parts":[{"type":"text"}]},{"role":"user","parts":[]}]}`).fails(400, "invalid_message")
	require.Equal(t, []uint64{1, 2}, into[gotPage](h.do("GET", path+"/tail", "").is(200)).seqs(), "all or none")
}

func TestC24MessageIDs(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c") + "/messages"
	first := `{"message":{"id":"m1","role":"user","parts":[{"type":"text","text":"hello"}]}}`
	h.do("POST", path, first).is(201).says(`{"seq":1,"version":1,"token_count":1}`)
	h.do("POST", path, first).is(200).says(`{"seq":1,"version":1,"token_count":1,"duplicate":true}`)
	h.do("POST", path, strings.Replace(first, "hello", "other", 1)).is(201).says(`{"seq":2,"version":2,"token_count":1,"revises":1}`)
	h.do("POST", path, strings.TrimSuffix(first, "}")+`,"if_version":0}`).is(200).says(`{"seq":1,"version":1,"token_count":1,"duplicate":true}`)
	// Absent metadata is the same content as empty metadata; the id may be
	// spelt differently.
	h.do("POST", path, `{"message":{"metadata":{},"parts":[{"type":"text","text":"hello"}],"role":"user","id":"\u006d1"}}`).is(200)
	h.do("POST", path, strings.Replace(first, `"role"`, `"metadata":{"a":1},"role"`, 1)).is(201).says(`{"seq":3,"version":3,"token_count":1,"revises":2}`)
	batch := `{"messages":[{"id":"m1","role":"user","parts":[{"type":"text","text":"hello"}]},{"id":"m2","role":"user","parts":[{"type":"text"}]}]}`
	h.do("POST", path, batch).is(201).
		says(`{"seq":1,"version":4,"token_count":1,"last_seq":4,"messages":[{"seq":1,"id":"m1","token_count":1,"duplicate":true},{"seq":4,"id":"m2","token_count":0}]}`)
	require.Equal(t, []uint64{1, 2, 3, 4}, into[gotPage](h.do("GET", path, "").is(200)).seqs())
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	path := h.create("c") + "/messages"
	h.do("POST", path, hello, "Idempotency-Key", "k 1").is(201)
	h.do("POST", path, hello).is(201)
	h.do("POST", path, hello, "Idempotency-Key", "k 1").is(200).says(`{"seq":1,"version":1,"token_count":1,"duplicate":true}`)
	h.do("POST", path, hello+" ", "Idempotency-Key", "k 1").fails(409, "idempotency_conflict")
	h.do("POST", path, hello, "Idempotency-Key", "").fails(400, "invalid_parameter")
	h.do("POST", path, hello, "Idempotency-Key", strings.Repeat("k", 255)).is(201)
	h.do("POST", path, hello, "Idempotency-Key", strings.Repeat("k", 256)).fails(400, "invalid_parameter")
	h.do("POST", path, hello, "Idempotency-Key", "\xff").fails(400, "invalid_parameter")
}

func TestListPages(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var want []string
	for i := range 7 {
		id := fmt.Sprintf("chat-%d", i)
		h.create(id)
		want = append(want, id)
	}
	h.create("other%2F%C3%A9")
	var got []string
	query := "?prefix=chat-&limit=3"
	for pages := 0; ; pages++ {
		page := into[gotList](h.do("GET", "/v1/conversations"+query, "").is(200))
		for _, c := range page.Conversations {
			got = append(got, c.ID)
		}
		if page.Next == "" {
			require.Equal(t, 2, pages)
			break
		}
		query = "?prefix=chat-&limit=3&after=" + page.Next
	}
	require.Equal(t, want, got)
	full := into[gotList](h.do("GET", "/v1/conversations?prefix=chat-&limit=7", "").is(200))
	require.Len(t, full.Conversations, 7)
	h.do("GET", "/v1/conversations?prefix=chat-&after="+full.Next, "").is(200).says(`{"conversations":[]}`)
	all := into[gotList](h.do("GET", "/v1/conversations", "").is(200))
	require.Len(t, all.Conversations, 8)
	require.Equal(t, "other/é", all.Conversations[7].ID)
	require.Empty(t, all.Next)
	require.Len(t, into[gotList](h.do("GET", "/v1/conversations?prefix=other%2F%C3%A9", "").is(200)).Conversations, 1)
	h.do("GET", "/v1/conversations?prefix=none&consistency=stale", "").is(200).says(`{"conversations":[]}`)
	for _, query := range []string{"after=x", "after=k!", "after=k_w", "after=kIA_", "after=k", "after=kAA", "after=k" + strings.Repeat("A", 700), "prefix=%00", "prefix=%ff", "prefix=" + strings.Repeat("x", 513), "limit=x", "consistency=best"} {
		h.do("GET", "/v1/conversations?"+query, "").fails(400, "invalid_parameter")
	}
}
