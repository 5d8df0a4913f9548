package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// batch is the body that appends the texts as one command.
func batch(texts ...string) string {
	messages := make([]string, len(texts))
	for i, s := range texts {
		messages[i] = fmt.Sprintf(`{"role":"user","parts":[{"type":"text","text":%q}]}`, s)
	}
	return `{"messages":[` + strings.Join(messages, ",") + `]}`
}

func numbers(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(i + 1)
	}
	return out
}

func TestC17Batch(t *testing.T) {
	a := setup(t)
	id := a.created()
	got := a.appended(id, http.StatusCreated, batch("hello", "12345678"))
	require.EqualValues(t, 1, got.Seq)
	require.EqualValues(t, 1, got.Version, "one version step")
	require.EqualValues(t, 3, got.TokenCount, "of both")
	require.NotNil(t, got.LastSeq)
	require.EqualValues(t, 2, *got.LastSeq)
	require.Len(t, got.Messages, 2)
	for i, m := range got.Messages {
		require.EqualValues(t, i+1, m.Seq)
		require.EqualValues(t, i+1, m.TokenCount)
	}

	second := a.appended(id, http.StatusCreated, batch("a", "b", "c"))
	require.EqualValues(t, 3, second.Seq)
	require.EqualValues(t, 2, second.Version)
	log := a.verified(id)
	require.Equal(t, span(1, 5), seqs(log), "in order")
	require.Equal(t, "c", log[4].TextOf())
}

func TestBatchIDs(t *testing.T) {
	a := setup(t)
	id := a.created()
	got := a.appended(id, http.StatusCreated, `{"messages":[
		{"id":"one","role":"user","parts":[{"type":"text","text":"1"}]},
		{"role":"user","parts":[{"type":"text","text":"2"}]}]}`)
	require.Equal(t, "one", got.Messages[0].ID)
	require.Empty(t, got.Messages[1].ID)
	require.Equal(t, "one", a.tail(id, "")[0].ID)
}

func TestBatchIsAtomic(t *testing.T) {
	a := setup(t)
	id := a.created()
	good := `{"role":"user",` + onePart + `}`
	for _, bad := range []string{
		`{"role":"user"}`,
		`5`,
		`null`,
	} {
		body := `{"messages":[` + good + `,` + good + `,` + bad + `]}`
		requireFault(t, a.post(id, body), http.StatusBadRequest, "invalid_message")
		requireUntouched(a, id)
	}
	stale := strings.Replace(batch("a", "b"), "{", `{"if_version":7,`, 1)
	requireFault(t, a.post(id, stale), http.StatusConflict, "conflict")
	requireUntouched(a, id)
	right := strings.Replace(batch("a", "b"), "{", `{"if_version":0,`, 1)
	require.EqualValues(t, 1, a.appended(id, http.StatusCreated, right).Version)
}

func TestBatchBounds(t *testing.T) {
	a := setup(t)
	id := a.created()
	for name, body := range map[string]string{
		"none":         `{"messages":[]}`,
		"1001":         batch(numbers(1001)...),
		"null":         `{"messages":null}`,
		"not an array": `{"messages":{"role":"user"}}`,
		"both":         `{"message":{"role":"user",` + onePart + `},"messages":[{"role":"user",` + onePart + `}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			requireFault(t, connect(t, a.Base()).post(id, body), http.StatusBadRequest, "")
		})
	}
	requireUntouched(a, id)
	got := a.appended(id, http.StatusCreated, batch(numbers(1000)...))
	require.Len(t, got.Messages, 1000)
	require.EqualValues(t, 1000, *got.LastSeq)
	require.Len(t, a.verified(id), 1000)
}
