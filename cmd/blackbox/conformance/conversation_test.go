package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// instant is RFC 3339 in UTC with microseconds.
const instant = `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`

func TestC01PutCreates(t *testing.T) {
	a := setup(t)
	id := unique()
	reply := a.put(id, `{"metadata":{"user_id":"u_123"}}`)
	require.Equal(t, http.StatusOK, reply.Status, reply)
	requireJSON(t, reply)

	var put client.Conversation
	require.NoError(t, json.Unmarshal(reply.Body, &put))
	require.Equal(t, id, put.ID)
	require.JSONEq(t, `{"user_id":"u_123"}`, string(put.Metadata))
	require.Zero(t, put.Version)
	require.Zero(t, put.LastSeq)
	require.Zero(t, put.ArchivedSeq)
	require.False(t, put.Tombstoned)
	require.Equal(t, client.Head(nil), put.Head)
	require.Regexp(t, instant, put.CreatedAt)
	require.Regexp(t, instant, put.UpdatedAt)

	require.Equal(t, put, a.conversation(id), "what is read is what was answered")
}

// Clients look at fields by name, and some tell absent from zero.
func TestConversationHasAllFields(t *testing.T) {
	a := setup(t)
	var fields map[string]json.RawMessage
	reply := a.get(client.Path(a.created()))
	require.NoError(t, json.Unmarshal(reply.Body, &fields))
	for _, name := range []string{
		"id", "version", "tombstoned", "metadata", "last_seq", "archived_seq", "head", "created_at", "updated_at",
	} {
		require.Contains(t, fields, name)
	}
	require.JSONEq(t, `{}`, string(fields["metadata"]))
}

func TestC02PutReplacesMetadata(t *testing.T) {
	a := setup(t)
	id := unique()
	require.Equal(t, http.StatusOK, a.put(id, `{"metadata":{"a":1,"b":2}}`).Status)
	require.Equal(t, http.StatusOK, a.put(id, `{"metadata":{"c":3}}`).Status)
	require.JSONEq(t, `{"c":3}`, string(a.conversation(id).Metadata), "replaced, not merged")

	for _, body := range []string{"", "{}", `{"metadata":null}`} {
		reply := a.put(id, body)
		require.Equal(t, http.StatusOK, reply.Status, "%s: %s", body, reply)
		require.JSONEq(t, `{"c":3}`, string(a.conversation(id).Metadata), "left alone by %q", body)
	}
	require.Equal(t, http.StatusOK, a.put(id, `{"metadata":{}}`).Status)
	require.JSONEq(t, `{}`, string(a.conversation(id).Metadata))
}

func TestPutLeavesVersionAlone(t *testing.T) {
	a := setup(t)
	id := a.filled(2)
	before := a.conversation(id)
	require.Equal(t, http.StatusOK, a.put(id, `{"metadata":{"k":"v"}}`).Status)
	after := a.conversation(id)
	require.Equal(t, before.Version, after.Version)
	require.Equal(t, before.LastSeq, after.LastSeq)
	require.Equal(t, before.Head, after.Head)
	require.Equal(t, before.CreatedAt, after.CreatedAt)
	require.GreaterOrEqual(t, after.UpdatedAt, before.UpdatedAt)
}

func TestC03PutRefusesMetadata(t *testing.T) {
	a := setup(t)
	id := unique()
	tooLong := fmt.Sprintf(`{"k":%q}`, strings.Repeat("x", 16<<10))
	for _, metadata := range []string{`[]`, `"x"`, `5`, `true`, tooLong} {
		requireFault(t, a.put(id, `{"metadata":`+metadata+`}`), http.StatusBadRequest, "invalid_metadata")
	}
	requireFault(t, a.get(client.Path(id)), http.StatusNotFound, "conversation_not_found")

	most := fmt.Sprintf(`{"k":%q}`, strings.Repeat("x", 16<<10-len(`{"k":""}`)))
	require.Equal(t, http.StatusOK, a.put(id, `{"metadata":`+most+`}`).Status, "16 KiB is allowed")
}

func TestC04GetMissing(t *testing.T) {
	a := setup(t)
	requireFault(t, a.get(client.Path(unique())), http.StatusNotFound, "conversation_not_found")
}

func TestReadsOfMissing(t *testing.T) {
	a := setup(t)
	for _, suffix := range []string{"/tail", "/messages"} {
		requireFault(t, a.get(client.Path(unique())+suffix), http.StatusNotFound, "conversation_not_found")
	}
}

func TestC12Tombstone(t *testing.T) {
	a := setup(t)
	id := a.filled(3)
	before := a.conversation(id)
	for range 2 {
		reply := a.delete(id)
		require.Equal(t, http.StatusNoContent, reply.Status, reply)
		require.Empty(t, reply.Body)
	}
	requireFault(t, a.delete(unique()), http.StatusNotFound, "conversation_not_found")

	after := a.conversation(id)
	require.True(t, after.Tombstoned)
	require.Equal(t, before.Version, after.Version)
	require.Equal(t, before.Head, after.Head)
	require.Equal(t, span(1, 3), seqs(a.tail(id, "")))
	require.Equal(t, span(1, 3), seqs(a.messages(id, "").Messages))
}

func TestPutOnTombstone(t *testing.T) {
	a := setup(t)
	id := a.created()
	require.Equal(t, http.StatusNoContent, a.delete(id).Status)
	for _, body := range []string{"", `{"metadata":{"a":1}}`} {
		requireFault(t, a.put(id, body), http.StatusGone, "conversation_tombstoned")
	}
	got := a.conversation(id)
	require.True(t, got.Tombstoned, "not revived")
	require.JSONEq(t, `{}`, string(got.Metadata))
}

// Any characters are allowed in an id, and two ids are the same only if their
// bytes are.
func TestConversationIDs(t *testing.T) {
	a := setup(t)
	run := unique()
	for name, id := range map[string]string{
		"slash":            run + "/a/b",
		"slash at the end": run + "/",
		"slashes":          run + "//",
		"verb":             run + "/messages",
		"space and plus":   run + " +",
		"percent":          run + "%2F%",
		"query and anchor": run + "?a=b&c#d",
		"unicode":          run + "-ünï-😀-日本",
		"decomposed":       run + "-u\u0308",
		"quotes":           run + `"'\<>`,
		"control":          run + "\t\n\x7f",
		"dots":             run + "/../..",
		"512 bytes":        run + strings.Repeat("x", 512-len(run)),
	} {
		t.Run(name, func(t *testing.T) {
			a := connect(t, a.Base())
			require.NoError(t, a.Create(a.ctx, id))
			require.Equal(t, id, a.conversation(id).ID)
			require.EqualValues(t, 1, a.appended(id, http.StatusCreated, text("hello")).Seq)
			require.Equal(t, span(1, 1), seqs(a.tail(id, "")))
			require.Equal(t, http.StatusNoContent, a.delete(id).Status)
		})
	}
	requireFault(t, a.get(client.Path(run)), http.StatusNotFound, "conversation_not_found")
}

func TestConversationIDsRefused(t *testing.T) {
	a := setup(t)
	run := unique()
	for name, segment := range map[string]string{
		"513 bytes":     strings.Repeat("x", 513),
		"NUL":           run + "%00",
		"invalid UTF-8": run + "%ff%fe",
	} {
		t.Run(name, func(t *testing.T) {
			a := connect(t, a.Base())
			path := "/v1/conversations/" + segment
			requireFault(t, a.request(http.MethodPut, path, "{}"), http.StatusBadRequest, "")
			requireFault(t, a.get(path), http.StatusBadRequest, "")
			requireFault(t, a.get(path+"/tail"), http.StatusBadRequest, "")
			requireFault(t, a.request(http.MethodPost, path+"/messages", text("x")), http.StatusBadRequest, "")
			requireFault(t, a.request(http.MethodDelete, path, ""), http.StatusBadRequest, "")
		})
	}
}

// The dots that a URL cleaner would eat are ids like any other, when escaped.
func TestConversationIDsOfDots(t *testing.T) {
	a := setup(t)
	for _, id := range []string{".", ".."} {
		require.NoError(t, a.Create(a.ctx, id), id)
		require.Equal(t, id, a.conversation(id).ID)
	}
}
