package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

type listing struct {
	Conversations []client.Conversation `json:"conversations"`
	Next          *string               `json:"next"`
}

func (a api) list(query url.Values) listing {
	a.t.Helper()
	reply := a.get("/v1/conversations?" + query.Encode())
	require.Equal(a.t, http.StatusOK, reply.Status, reply)
	requireJSON(a.t, reply)
	var out listing
	require.NoError(a.t, json.Unmarshal(reply.Body, &out), reply)
	require.NotNil(a.t, out.Conversations, reply)
	return out
}

func ids(conversations []client.Conversation) []string {
	out := make([]string, len(conversations))
	for i, c := range conversations {
		out[i] = c.ID
	}
	return out
}

// Conversations of one prefix live in many groups; a listing shows them as if
// they lived in one.
func TestListAcrossGroups(t *testing.T) {
	a := setup(t)
	run := unique()
	var want []string
	for i := range 60 {
		id := fmt.Sprintf("%s/%02d", run, i)
		require.NoError(t, a.Create(a.ctx, id))
		want = append(want, id)
	}
	slices.Sort(want)

	whole := a.list(url.Values{"prefix": {run}, "limit": {"1000"}})
	require.Equal(t, want, ids(whole.Conversations), "ascending")
	require.Empty(t, pointee(whole.Next), "nothing follows")

	var paged []string
	query := url.Values{"prefix": {run}, "limit": {"7"}}
	for page := 0; ; page++ {
		require.Less(t, page, 60, "a listing must end")
		got := a.list(query)
		require.LessOrEqual(t, len(got.Conversations), 7)
		paged = append(paged, ids(got.Conversations)...)
		if pointee(got.Next) == "" {
			break
		}
		query.Set("after", *got.Next)
	}
	require.Equal(t, want, paged, "each exactly once")
}

func pointee(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func TestListShowsConversations(t *testing.T) {
	a := setup(t)
	run := unique()
	require.Equal(t, http.StatusOK, a.put(run+" ä/1", `{"metadata":{"k":"v"}}`).Status)
	a.appended(run+" ä/1", http.StatusCreated, text("x"))
	require.NoError(t, a.Create(a.ctx, run+" ä/2"))
	require.Equal(t, http.StatusNoContent, a.delete(run+" ä/2").Status)

	got := a.list(url.Values{"prefix": {run + " ä"}}).Conversations
	require.Len(t, got, 2)
	for _, c := range got {
		require.Equal(t, a.conversation(c.ID), c, "the same resource as when read alone")
	}
	require.Empty(t, a.list(url.Values{"prefix": {unique()}}).Conversations)
	first := a.list(url.Values{"prefix": {run}, "limit": {"1"}})
	require.Equal(t, []string{run + " ä/1"}, ids(first.Conversations))
	require.NotNil(t, first.Next)
	second := a.list(url.Values{"prefix": {run}, "after": {*first.Next}})
	require.Equal(t, []string{run + " ä/2"}, ids(second.Conversations), "the next page begins after this one")
}

func TestListRefusesQueries(t *testing.T) {
	a := setup(t)
	for _, query := range []string{"limit=x", "limit=1.5", "consistency=nope"} {
		requireFault(t, a.get("/v1/conversations?"+query), http.StatusBadRequest, "")
	}
}
