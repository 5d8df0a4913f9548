package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func parseBody(t testing.TB, body string) (*batch, *failure) {
	t.Helper()
	var b batch
	err := b.parse([]byte(body))
	if err == nil {
		return &b, nil
	}
	return &b, failureOf(err, true)
}

// message wraps the members of one message into a body.
func message(members string) string { return `{"message":{` + members + `}}` }

const okParts = `"parts":[{"type":"text"}]`

var brokenBodies = []struct {
	body, code, sentence string
}{
	// The JSON text.
	{``, "invalid_json", "not valid JSON"},
	{`   `, "invalid_json", "not valid JSON"},
	{`{`, "invalid_json", "at byte 1"},
	{`{"message"}`, "invalid_json", "at byte 10"},
	{hello + `x`, "invalid_json", "not valid JSON"},
	{hello + hello, "invalid_json", "more than one"},
	{hello + "\x00", "invalid_json", "not valid JSON"},
	{"\ufeff" + hello, "invalid_json", "at byte 0"},
	{strings.Replace(hello, "hello", "a\xffb", 1), "invalid_json", "UTF-8"},
	{strings.Replace(hello, "hello", "\xed\xa0\x80", 1), "invalid_json", "UTF-8"},
	{strings.Replace(hello, "hello", "a\x00b", 1), "invalid_json", "not valid JSON"},
	{strings.Replace(hello, "hello", `\x`, 1), "invalid_json", "not valid JSON"},
	{strings.Replace(hello, "hello", `\ud8`, 1), "invalid_json", "not valid JSON"},
	{message(`"role":'user',` + okParts), "invalid_json", "not valid JSON"},
	{message(`"role":"user",` + okParts + `,`), "invalid_json", "not valid JSON"},
	{message(`"role":"user","parts":[{"type":"text"},]`), "invalid_json", "not valid JSON"},
	{message(`"role":"user","parts":[{"type":"text"}}`), "invalid_json", "not valid JSON"},
	{message(`"role":"user",` + okParts + `,"n":01`), "invalid_json", "not valid JSON"},
	{message(`"role":"user",` + okParts + `,"n":NaN`), "invalid_json", "not valid JSON"},
	{message(`1:2`), "invalid_json", "not valid JSON"},
	{`{"a":` + strings.Repeat("[", 512) + strings.Repeat("]", 512) + `}`, "invalid_json", "nested deeper"},
	{`{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "invalid_json", "not valid JSON"},
	{strings.Repeat("[", 1<<20), "invalid_json", "not valid JSON"},
	// Duplicate names, anywhere, also when spelt differently.
	{`{"message":1,"message":2}`, "invalid_json", "duplicate"},
	{`{"x":1,"\u0078":2}`, "invalid_json", "duplicate"},
	{message(`"role":"a","role":"b",` + okParts), "invalid_json", "duplicate"},
	{message(`"role":"a","parts":[{"type":"a","type":"b"}]`), "invalid_json", "duplicate"},
	{message(`"role":"a","parts":[{"type":"a","x":[{"y":{"z":1,"z":1}}]}]`), "invalid_json", "duplicate"},
	{message(`"role":"a",` + okParts + `,"metadata":{"a":{"b":1,"\u0062":1}}`), "invalid_json", "duplicate"},
	{message(`"role":"a",` + okParts + `,"ignored":{"a":1,"a":1}`), "invalid_json", "duplicate"},
	// The frame.
	{`null`, "invalid_message", "must be an object"},
	{`[` + hello + `]`, "invalid_message", "must be an object"},
	{`"message"`, "invalid_message", "must be an object"},
	{`{}`, "invalid_message", "either message or messages"},
	{`{"message":{"role":"u",` + okParts + `},"messages":[]}`, "invalid_message", "must not be empty"},
	{`{"message":{"role":"u",` + okParts + `},"messages":[{"role":"u",` + okParts + `}]}`, "invalid_message", "either message or messages"},
	{`{"message":null}`, "invalid_message", "must be an object"},
	{`{"message":[]}`, "invalid_message", "must be an object"},
	{`{"messages":{}}`, "invalid_message", "must be an array"},
	{`{"messages":null}`, "invalid_message", "must be an array"},
	{`{"messages":[]}`, "invalid_message", "must not be empty"},
	{`{"messages":[5]}`, "invalid_message", "must be an object"},
	{`{"messages":[{"role":"u",` + okParts + `},{"role":"u"}]}`, "invalid_message", "messages[1].parts is missing"},
	{`{"messages":[` + strings.Repeat(`{"role":"u",`+okParts+`},`, 1000) + `{"role":"u",` + okParts + `}]}`, "invalid_message", "more than 1000"},
	// The message.
	{message(``), "invalid_message", "message.role is missing"},
	{message(okParts), "invalid_message", "message.role is missing"},
	{message(`"role":null,` + okParts), "invalid_message", "message.role must be"},
	{message(`"role":5,` + okParts), "invalid_message", "message.role must be"},
	{message(`"role":"",` + okParts), "invalid_message", "message.role must be"},
	{message(`"role":"` + strings.Repeat("r", 65) + `",` + okParts), "invalid_message", "message.role must be"},
	{message(`"role":"` + strings.Repeat("é", 33) + `",` + okParts), "invalid_message", "message.role must be"},
	{message(`"role":"a\u0000",` + okParts), "invalid_message", "message.role must be"},
	{message(`"role":"\ud83d",` + okParts), "invalid_message", "message.role must be"},
	{message(`"role":"\udc00\ud83d",` + okParts), "invalid_message", "message.role must be"},
	{message(`"role":"u"`), "invalid_message", "message.parts is missing"},
	{message(`"role":"u","parts":null`), "invalid_message", "must be an array"},
	{message(`"role":"u","parts":{"type":"text"}`), "invalid_message", "must be an array"},
	{message(`"role":"u","parts":"text"`), "invalid_message", "must be an array"},
	{message(`"role":"u","parts":[]`), "invalid_message", "must not be empty"},
	{message(`"role":"u","parts":["text"]`), "invalid_message", "string type"},
	{message(`"role":"u","parts":[[]]`), "invalid_message", "string type"},
	{message(`"role":"u","parts":[null]`), "invalid_message", "string type"},
	{message(`"role":"u","parts":[{}]`), "invalid_message", "string type"},
	{message(`"role":"u","parts":[{"type":5}]`), "invalid_message", "string type"},
	{message(`"role":"u","parts":[{"type":null}]`), "invalid_message", "string type"},
	{message(`"role":"u","parts":[{"type":"text"},{"Type":"text"}]`), "invalid_message", "string type"},
	{message(`"role":"u","parts":[{"x":{"type":"text"}}]`), "invalid_message", "string type"},
	{message(`"role":"u",` + okParts + `,"metadata":null`), "invalid_metadata", "message.metadata"},
	{message(`"role":"u",` + okParts + `,"metadata":[]`), "invalid_metadata", "message.metadata"},
	{message(`"role":"u",` + okParts + `,"metadata":"x"`), "invalid_metadata", "message.metadata"},
	{message(`"role":"u",` + okParts + `,"id":""`), "invalid_message", "message.id must be"},
	{message(`"role":"u",` + okParts + `,"id":5`), "invalid_message", "message.id must be"},
	{message(`"role":"u",` + okParts + `,"id":{}`), "invalid_message", "message.id must be"},
	{message(`"role":"u",` + okParts + `,"id":"` + strings.Repeat("i", 129) + `"`), "invalid_message", "message.id must be"},
	{message(`"role":"u",` + okParts + `,"id":"a\u0000b"`), "invalid_message", "message.id must be"},
	{message(`"role":"u",` + okParts + `,"id":"\ud800"`), "invalid_message", "message.id must be"},
	// Order within a message: role, parts, metadata, id.
	{message(`"id":5,"metadata":5,"parts":5,"role":5`), "invalid_message", "message.role"},
	{message(`"id":5,"metadata":5,"parts":5,"role":"u"`), "invalid_message", "message.parts"},
	{message(`"id":5,"metadata":5,` + okParts + `,"role":"u"`), "invalid_metadata", "message.metadata"},
	// Sizes.
	{message(`"role":"u","parts":[{"type":"` + strings.Repeat("x", rpc.MaxMessageBytes) + `"}]`), "payload_too_large", "A message is larger"},
}

func TestWhatIsWrongWithABody(t *testing.T) {
	t.Parallel()
	for _, tc := range brokenBodies {
		name := tc.body
		if len(name) > 60 {
			name = name[:60]
		}
		_, f := parseBody(t, tc.body)
		require.NotNil(t, f, name)
		require.Equal(t, tc.code, f.code, name)
		require.Contains(t, f.sentenceText(), tc.sentence, name)
	}
}

func TestWhatIsFineInABody(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		hello,
		" \t\r\n" + hello + " \t\r\n",
		`{"unknown":{"message":1},"message":{"role":"u",` + okParts + `,"createdAt":"x","seq":9,"inserted_at":1},"more":[]}`,
		message(`"role":"u",` + okParts + `,"id":null`),
		message(`"role":"` + strings.Repeat("r", 64) + `",` + okParts),
		message(`"role":"\ud83d\ude00 \ufffd",` + okParts + `,"id":"\ud83d\ude00"`),
		message(`"role":" ","parts":[{"type":""}],"id":" "`),
		message(`"role":"u","parts":[{"type":"t","\ud800":1,"x":"\udfff\u0000"}]`),
		message(`"role":"u","parts":[{"type":"t","a":{"x":1},"b":{"x":1}},{"type":"t"}]`),
		`{"a":` + strings.Repeat("[", 511) + strings.Repeat("]", 511) + `,` + hello[1:],
		`{"a":"` + strings.Repeat(`[{\"`, 5000) + `",` + hello[1:],
		`{"messages":[` + strings.Repeat(`{"role":"u",`+okParts+`},`, 999) + `{"role":"u",` + okParts + `}]}`,
		`{"\u006dessage":{"\u0072ole":"u","p\u0061rts":[{"typ\u0065":"text"}]}}`,
	} {
		_, f := parseBody(t, body)
		if f != nil {
			require.Fail(t, f.Error(), body[:min(len(body), 80)])
		}
	}
}

// Lone surrogates decode to U+FFFD, so two names that differ in them only are
// one name to a reader.
func TestNamesThatDifferInLoneSurrogatesOnly(t *testing.T) {
	t.Parallel()
	_, f := parseBody(t, message(`"role":"u","parts":[{"type":"t","\ud800":1,"\udfff":2}]`))
	require.NotNil(t, f)
	require.Contains(t, f.sentenceText(), "duplicate")
}

func TestContentIsTheClientsBytes(t *testing.T) {
	t.Parallel()
	b, f := parseBody(t, `{"messages":[ { "metadata" : { "b":1, "a":2 } , "parts" : [ {"type":"x" } ] , "role" : "r\u0061" , "token_count" : 12 , "id" : "\u0069" , "other":1 }, {"role":"u",`+okParts+`}]}`)
	require.Nil(t, f)
	require.Equal(t, `"id":"\u0069","role":"r\u0061","parts":[ {"type":"x" } ],"metadata":{ "b":1, "a":2 },"token_count":12`, string(b.messages[0].Content))
	require.Equal(t, "i", b.messages[0].ID)
	require.Equal(t, uint64(12), b.messages[0].TokenCount)
	require.Equal(t, `"role":"u","parts":[{"type":"text"}],"metadata":{},"token_count":0`, string(b.messages[1].Content))
	require.Empty(t, b.messages[1].ID)
	require.Zero(t, b.messages[1].Digest)
}

// The digest is stored with the message id for as long as the message is hot,
// so its definition must not change: SHA-256 of the three members as they are
// in the content.
func TestDigest(t *testing.T) {
	t.Parallel()
	digest := func(members string) string {
		b, f := parseBody(t, message(`"id":"1",`+members))
		require.Nil(t, f)
		return hex.EncodeToString(b.messages[0].Digest[:])
	}
	framed := sha256.Sum256([]byte(`"role":"user","parts":[{"type":"text"}],"metadata":{}`))
	require.Equal(t, hex.EncodeToString(framed[:]), digest(`"role":"user",`+okParts))
	require.Equal(t, hex.EncodeToString(framed[:]), digest(okParts+`,"token_count":5,"metadata":{},"role":"user"`), "order and token count do not matter")
	different := []string{
		`"role":"user",` + okParts,
		`"role":"use\u0072",` + okParts,
		`"role":"user","parts":[{"type": "text"}]`,
		`"role":"user",` + okParts + `,"metadata":{"a":1}`,
		`"role":"user",` + okParts + `,"metadata":{ }`,
	}
	seen := map[string]string{}
	for _, members := range different {
		d := digest(members)
		require.NotContains(t, seen, d, members)
		seen[d] = members
	}
}

func TestContentIsBounded(t *testing.T) {
	t.Parallel()
	// One message of exactly the bound.
	frame := len(`"role":"u","parts":[{"type":""}],"metadata":{},"token_count":0`)
	exact := func(n int) string {
		return message(`"role":"u","parts":[{"type":"` + strings.Repeat("x", n-frame) + `"}]`)
	}
	_, f := parseBody(t, exact(rpc.MaxMessageBytes))
	require.Nil(t, f)
	_, f = parseBody(t, exact(rpc.MaxMessageBytes+1))
	require.Equal(t, "payload_too_large", f.code)
	// Messages that fit one by one but not together.
	big := `{"role":"u","parts":[{"type":"` + strings.Repeat("x", 1<<20-200) + `"}]},`
	_, f = parseBody(t, `{"messages":[`+strings.Repeat(big, 8)+`{"role":"u","parts":[{"type":"`+strings.Repeat("x", 2000)+`"}]}]}`)
	require.NotNil(t, f)
	require.Equal(t, "payload_too_large", f.code)
}

func TestABatchIsReusable(t *testing.T) {
	t.Parallel()
	var b batch
	bodies := []string{
		`{"messages":[{"id":"1","role":"u",` + okParts + `},{"id":"2","role":"u",` + okParts + `}],"if_version":3}`,
		`{"message":{`, hello, `{}`,
		`{"message":{"role":"u",` + okParts + `,"\u0069d":"x"}}`,
		`{"messages":[` + strings.Repeat(`{"role":"u",`+okParts+`},`, 200) + `{"role":"u",` + okParts + `}]}`,
		hello,
	}
	for _, body := range bodies {
		fresh, wantFailure := parseBody(t, body)
		err := b.parse([]byte(body))
		if wantFailure != nil {
			require.Equal(t, wantFailure.code, failureOf(err, true).code)
		} else {
			require.NoError(t, err)
			require.Equal(t, fresh.messages, b.messages)
			require.Equal(t, fresh.guarded, b.guarded)
			require.Equal(t, fresh.ifVersion, b.ifVersion)
			require.Equal(t, fresh.many, b.many)
		}
		b.reset()
		require.Empty(t, b.messages)
		require.Nil(t, b.text)
	}
}

func TestReplyOfABatchThatTheKeyAnswered(t *testing.T) {
	t.Parallel()
	// An Idempotency-Key answers with the first append's messages, whatever
	// their number.
	b, f := parseBody(t, hello)
	require.Nil(t, f)
	got := b.appendReply(nil, &rpc.AppendReply{Seq: 4, LastSeq: 4, Version: 2, Duplicate: true, Messages: []rpc.Appended{{Seq: 4, Revises: 3}}})
	require.Equal(t, `{"seq":4,"version":2,"token_count":0,"duplicate":true,"revises":3}`, string(got))
	b.many = true
	got = b.appendReply(nil, &rpc.AppendReply{Seq: 4, LastSeq: 5, Version: 2, Messages: []rpc.Appended{{Seq: 4, Revises: 3}, {Seq: 5}}})
	require.Equal(t, `{"seq":4,"version":2,"token_count":0,"last_seq":5,"messages":[{"seq":4,"token_count":0,"revises":3},{"seq":5,"token_count":0}]}`, string(got))
}

func TestErrorsNameTheMessage(t *testing.T) {
	t.Parallel()
	for i := range 3 {
		messages := []string{`{"role":"u",` + okParts + `}`, `{"role":"u",` + okParts + `}`, `{"role":"u",` + okParts + `}`}
		messages[i] = `{"role":"u","parts":[{}]}`
		_, f := parseBody(t, `{"messages":[`+strings.Join(messages, ",")+`]}`)
		require.NotNil(t, f)
		require.Equal(t, fmt.Sprintf("messages[%d].parts must hold only objects with a string type.", i), f.sentenceText())
	}
}
