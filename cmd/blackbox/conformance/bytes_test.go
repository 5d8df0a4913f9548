package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// rich are values that a decode and encode would change: key order, number
// spelling, escapes.
const rich = `{"type":"text","text":"é \u00e9 😀 \ud83d\ude00 \\ \" \/ \u2028 <&>",` +
	`"zeta":1,"alpha":{"z":[1,2,{"deep":[[],{}]}],"a":null},` +
	`"big":12345678901234567890123,"beyond":9007199254740993,"one":1.0,"exp":1e400,"small":1E-400,"minus":-0,` +
	`"empty":"","yes":true,"no":false,"nothing":null,"":"empty key"}`

func TestC16PartsComeBackByteForByte(t *testing.T) {
	a := setup(t)
	id := a.created()
	parts := `[` + rich + `,{"type":"tool-weather","input":{"b":2,"a":1}}]`
	a.appended(id, http.StatusCreated, message(`"role":"user","parts":`+parts+`,"metadata":`+rich))
	for _, got := range []client.Message{a.tail(id, "")[0], a.messages(id, "").Messages[0]} {
		require.Equal(t, parts, string(got.Parts))
		require.Equal(t, rich, string(got.Metadata))
	}
	a.verified(id)
}

func TestC16ConversationMetadataKeepsNumbersAndOrder(t *testing.T) {
	a := setup(t)
	id := unique()
	require.Equal(t, http.StatusOK, a.put(id, `{"metadata":`+rich+`}`).Status)
	require.Equal(t, compact(t, rich), compact(t, string(a.conversation(id).Metadata)))
}

// Space between tokens means nothing; tokens stay as they are.
func TestC16SpacesAroundTokens(t *testing.T) {
	a := setup(t)
	id := a.created()
	parts := "[ {\t\"type\" : \"text\" ,\r\n \"text\" : \" a  b \" , \"n\" : [ 1.50 , 2 ] } ]"
	a.appended(id, http.StatusCreated, " {\n\"message\" : { \"role\" : \"user\" , \"parts\" : "+parts+" } } ")
	require.Equal(t, compact(t, parts), compact(t, string(a.tail(id, "")[0].Parts)))
	a.verified(id)
}

func compact(t *testing.T, s string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, json.Compact(&out, []byte(s)))
	return out.String()
}

// Where JSON leaves a meaning open, the server either refuses or keeps the
// bytes; it never changes them.
func TestDoubtfulJSON(t *testing.T) {
	a := setup(t)
	for name, part := range map[string]string{
		"duplicate keys in a part":   `{"type":"text","text":"a","text":"b"}`,
		"duplicate type":             `{"type":"text","type":"other"}`,
		"NUL escape":                 `{"type":"text","text":"a\u0000b"}`,
		"lone high surrogate":        `{"type":"text","text":"\ud800"}`,
		"lone low surrogate":         `{"type":"text","text":"\udc00x"}`,
		"surrogates the wrong way":   `{"type":"text","text":"\udc00\ud800"}`,
		"noncharacter":               `{"type":"text","text":"\uffff"}`,
		"invalid UTF-8":              "{\"type\":\"text\",\"text\":\"\xff\"}",
		"overlong UTF-8":             "{\"type\":\"text\",\"text\":\"\xc0\x80\"}",
		"raw control character":      "{\"type\":\"text\",\"text\":\"a\x01b\"}",
		"byte order mark in a value": "{\"type\":\"text\",\"text\":\"\xef\xbb\xbf\"}",
	} {
		t.Run(name, func(t *testing.T) {
			a := connect(t, a.Base())
			id := a.created()
			reply := a.post(id, message(`"role":"user","parts":[`+part+`]`))
			if reply.Status == http.StatusBadRequest {
				requireFault(t, reply, http.StatusBadRequest, "")
				requireUntouched(a, id)
				return
			}
			require.Equal(t, http.StatusCreated, reply.Status, reply)
			require.Equal(t, `[`+part+`]`, string(a.tail(id, "")[0].Parts))
			a.verified(id)
		})
	}
}

// Clients take the last of two equal members, so a server that took the first
// would store something else than the client believes: duplicates where the
// server itself reads are refused.
func TestDuplicateMembersThatAreRead(t *testing.T) {
	a := setup(t)
	for name, body := range map[string]string{
		"message":    `{"message":{"role":"user",` + onePart + `},"message":{"role":"user",` + onePart + `}}`,
		"role":       message(`"role":"user","role":"other",` + onePart),
		"parts":      message(`"role":"user",` + onePart + `,` + onePart),
		"if_version": `{"if_version":0,"if_version":1,"message":{"role":"user",` + onePart + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			a := connect(t, a.Base())
			id := a.created()
			requireFault(t, a.post(id, body), http.StatusBadRequest, "")
			requireUntouched(a, id)
		})
	}
}

func TestDeepNesting(t *testing.T) {
	a := setup(t)
	for _, depth := range []int{50, 100_000} {
		id := a.created()
		deep := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		reply := a.post(id, message(fmt.Sprintf(`"role":"user","parts":[{"type":"text","deep":%s}]`, deep)))
		switch reply.Status {
		case http.StatusBadRequest:
			require.Greater(t, depth, 50, reply)
			requireFault(t, reply, http.StatusBadRequest, "")
		default:
			require.Equal(t, http.StatusCreated, reply.Status, reply)
			require.Contains(t, string(a.tail(id, "")[0].Parts), deep)
		}
	}
}
