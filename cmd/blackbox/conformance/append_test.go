package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const onePart = `"parts":[{"type":"text","text":"x"}]`

// requireUntouched checks that a conversation is as empty as it was made.
func requireUntouched(a api, id string) {
	a.t.Helper()
	got := a.conversation(id)
	require.Zero(a.t, got.Version)
	require.Zero(a.t, got.LastSeq)
	require.Equal(a.t, got.CreatedAt, got.UpdatedAt)
}

func TestC05AppendRefusesMessages(t *testing.T) {
	a := setup(t)
	id := a.created()
	for name, body := range map[string]string{
		"no role":               message(onePart),
		"role of another type":  message(`"role":5,` + onePart),
		"role null":             message(`"role":null,` + onePart),
		"role too long":         message(fmt.Sprintf(`"role":%q,`, strings.Repeat("r", 65)) + onePart),
		"no parts":              message(`"role":"user"`),
		"parts null":            message(`"role":"user","parts":null`),
		"parts empty":           message(`"role":"user","parts":[]`),
		"parts not an array":    message(`"role":"user","parts":{"type":"text"}`),
		"part not an object":    message(`"role":"user","parts":["text"]`),
		"part without type":     message(`"role":"user","parts":[{"text":"x"}]`),
		"type of another type":  message(`"role":"user","parts":[{"type":5}]`),
		"second part is broken": message(`"role":"user","parts":[{"type":"text","text":"x"},{"text":"y"}]`),
		"no message":            `{}`,
		"no message but guard":  `{"if_version":0}`,
		"message null":          `{"message":null}`,
		"message not an object": `{"message":"hello"}`,
		"message an array":      `{"message":[]}`,
		"id of another type":    message(`"id":5,"role":"user",` + onePart),
		"id too long":           message(fmt.Sprintf(`"id":%q,"role":"user",`, strings.Repeat("i", 129)) + onePart),
	} {
		t.Run(name, func(t *testing.T) {
			requireFault(t, connect(t, a.Base()).post(id, body), http.StatusBadRequest, "invalid_message")
		})
	}
	requireUntouched(a, id)
}

func TestC06Roles(t *testing.T) {
	a := setup(t)
	id := a.created()
	requireFault(t, a.post(id, message(`"role":"",`+onePart)), http.StatusBadRequest, "invalid_message")
	requireUntouched(a, id)
	for i, role := range []string{"user", "tool", "robot", "ролі", strings.Repeat("r", 64)} {
		got := a.appended(id, http.StatusCreated, message(fmt.Sprintf(`"role":%q,`, role)+onePart))
		require.EqualValues(t, i+1, got.Seq)
		require.Equal(t, role, a.tail(id, "?limit=1")[0].Role)
	}
}

func TestC07MessageMetadata(t *testing.T) {
	a := setup(t)
	id := a.created()
	for _, metadata := range []string{`null`, `[]`, `"x"`, `5`} {
		body := message(`"role":"user",` + onePart + `,"metadata":` + metadata)
		requireFault(t, a.post(id, body), http.StatusBadRequest, "invalid_metadata")
	}
	requireUntouched(a, id)

	a.appended(id, http.StatusCreated, message(`"role":"user",`+onePart))
	a.appended(id, http.StatusCreated, message(`"role":"user",`+onePart+`,"metadata":{"b":1,"a":[2]}`))
	tail := a.tail(id, "")
	require.Equal(t, `{}`, string(tail[0].Metadata))
	require.Equal(t, `{"b":1,"a":[2]}`, string(tail[1].Metadata))
}

func TestC08SequencesAndVersions(t *testing.T) {
	a := setup(t)
	id := a.created()
	for want := uint64(1); want <= 3; want++ {
		got := a.appended(id, http.StatusCreated, text("x"))
		require.Equal(t, want, got.Seq)
		require.Equal(t, want, got.Version)
	}
	got := a.conversation(id)
	require.EqualValues(t, 3, got.LastSeq)
	require.EqualValues(t, 3, got.Version)
	for _, m := range a.tail(id, "") {
		require.Regexp(t, instant, m.InsertedAt)
		require.Equal(t, "user", m.Role)
	}
}

func TestC09TokenCounts(t *testing.T) {
	a := setup(t)
	id := a.created()
	for _, c := range []struct {
		parts, count string
		want         uint64
	}{
		{`[{"type":"text","text":"hello"}]`, `5`, 5},
		{`[{"type":"text","text":"hello"}]`, `0`, 0},
		{`[{"type":"text","text":"hello"}]`, ``, 1},
		{`[{"type":"text","text":"hello"}]`, `-3`, 1},
		{`[{"type":"text","text":"hello"}]`, `"x"`, 1},
		{`[{"type":"text","text":"hello"}]`, `1.5`, 1},
		{`[{"type":"text","text":"hello"}]`, `null`, 1},
		{`[{"type":"text","text":"1234567"},{"type":"text","text":"1234567"}]`, ``, 2},
		{`[{"type":"image","url":"a long string that is not text"}]`, ``, 0},
		{`[{"type":"text","text":"ééé"}]`, ``, 1}, // six bytes
		{`[{"type":"text","text":"\u00e9\u00e9\u00e9\u00e9"}]`, ``, 2},
		{`[{"type":"text","text":12345678}]`, ``, 0},
	} {
		body := `"role":"user","parts":` + c.parts
		if c.count != "" {
			body += `,"token_count":` + c.count
		}
		got := a.appended(id, http.StatusCreated, message(body))
		require.Equal(t, c.want, got.TokenCount, body)
		require.Equal(t, c.want, a.tail(id, "?limit=1")[0].TokenCount, body)
	}
}

func TestC10IfVersion(t *testing.T) {
	a := setup(t)
	id := a.filled(2)
	guarded := func(version string) string {
		return `{"if_version":` + version + `,"message":{"role":"user",` + onePart + `}}`
	}
	for _, version := range []string{"0", "1", "3"} {
		fault := requireFault(t, a.post(id, guarded(version)), http.StatusConflict, "conflict")
		require.Equal(t, "Version mismatch (current: 2)", fault.Message)
		require.NotNil(t, fault.CurrentVersion)
		require.EqualValues(t, 2, *fault.CurrentVersion)
	}
	require.EqualValues(t, 2, a.conversation(id).LastSeq)
	require.EqualValues(t, 3, a.appended(id, http.StatusCreated, guarded("2")).Version)
	require.EqualValues(t, 4, a.appended(id, http.StatusCreated, guarded("null")).Version)
	for _, version := range []string{`"4"`, `4.5`, `-1`, `{}`} {
		requireFault(t, a.post(id, guarded(version)), http.StatusBadRequest, "")
	}
	require.EqualValues(t, 4, a.conversation(id).Version)
}

func TestC11AppendToMissingOrTombstoned(t *testing.T) {
	a := setup(t)
	missing := unique()
	requireFault(t, a.post(missing, text("x")), http.StatusNotFound, "conversation_not_found")
	requireFault(t, a.get("/v1/conversations/"+missing), http.StatusNotFound, "conversation_not_found")

	id := a.filled(1)
	require.Equal(t, http.StatusNoContent, a.delete(id).Status)
	requireFault(t, a.post(id, text("x")), http.StatusGone, "conversation_tombstoned")
	stale := `{"if_version":99,"message":{"role":"user",` + onePart + `}}`
	requireFault(t, a.post(id, stale), http.StatusGone, "conversation_tombstoned")
	require.EqualValues(t, 1, a.conversation(id).LastSeq)
}

// What is wrong with the request is said before what is wrong with the
// conversation.
func TestBadRequestComesBeforeNotFound(t *testing.T) {
	a := setup(t)
	requireFault(t, a.post(unique(), message(`"role":"user","parts":[]`)), http.StatusBadRequest, "invalid_message")
	requireFault(t, a.get("/v1/conversations/"+unique()+"/tail?limit=x"), http.StatusBadRequest, "")
	requireFault(t, a.put(unique(), `{"metadata":5}`), http.StatusBadRequest, "invalid_metadata")
}
