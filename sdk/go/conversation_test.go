package fastpaca

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// requestOf returns the request that a call makes of a server that answers it
// with a body.
func requestOf(t *testing.T, answer string, call func(*Client) error) (method, uri, body string, header http.Header) {
	t.Helper()
	client, _ := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		method, uri, body, header = r.Method, r.RequestURI, string(b), r.Header
		if answer == "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answerJSON(w, 200, answer)
	})
	require.NoError(t, call(client))
	return method, uri, body, header
}

func TestRequests(t *testing.T) {
	t.Parallel()
	const info, page = `{"id":"c","metadata":{}}`, `{"messages":[],"next_from":1,"last_seq":0}`
	hello := TextMessage("user", "hi")
	hello.ID = "m1"
	const message = `{"id":"m1","role":"user","parts":[{"type":"text","text":"hi"}]}`
	for name, c := range map[string]struct {
		call   func(*Client) error
		answer string
		want   string
		header string // one that is set, as "Name: value"
	}{
		"put nothing": {func(c *Client) error { _, err := c.Conversation("c").Put(t.Context(), nil); return err }, info, `PUT /v1/conversations/c {}`, "Content-Type: application/json"},
		"put metadata": {func(c *Client) error {
			_, err := c.Conversation("c").Put(t.Context(), map[string]int{"a": 1})
			return err
		}, info, `PUT /v1/conversations/c {"metadata":{"a":1}}`, ""},
		"get": {func(c *Client) error { _, err := c.Conversation("c").Get(t.Context()); return err }, info, `GET /v1/conversations/c `, "Accept: application/json"},
		"get, fresh": {func(c *Client) error {
			_, err := c.Conversation("c").Get(t.Context(), WithConsistency(Linearizable), AtLeast(7))
			return err
		}, info, `GET /v1/conversations/c?consistency=linearizable `, "X-Fastpaca-Min-Seq: 7"},
		"tombstone": {func(c *Client) error { return c.Conversation("c").Tombstone(t.Context()) }, "", `DELETE /v1/conversations/c `, ""},
		"append": {func(c *Client) error { _, err := c.Conversation("c").Append(t.Context(), hello); return err }, appended,
			`POST /v1/conversations/c/messages {"message":` + message + `}`, ""},
		"append, guarded": {func(c *Client) error {
			_, err := c.Conversation("c").Append(t.Context(), hello, IfVersion(0), IdempotencyKey("k"))
			return err
		}, appended, `POST /v1/conversations/c/messages {"message":` + message + `,"if_version":0}`, "Idempotency-Key: k"},
		"batch": {func(c *Client) error {
			_, err := c.Conversation("c").AppendBatch(t.Context(), []NewMessage{hello, hello}, IfVersion(3))
			return err
		}, `{"seq":1,"version":4,"token_count":0,"last_seq":2,"messages":[{"seq":1,"token_count":0},{"seq":2,"token_count":0}]}`,
			`POST /v1/conversations/c/messages {"messages":[` + message + `,` + message + `],"if_version":3}`, ""},
		"tail":        {func(c *Client) error { _, err := c.Conversation("c").Tail(t.Context(), 0); return err }, page, `GET /v1/conversations/c/tail `, ""},
		"tail, some":  {func(c *Client) error { _, err := c.Conversation("c").Tail(t.Context(), 5); return err }, page, `GET /v1/conversations/c/tail?limit=5 `, ""},
		"tail before": {func(c *Client) error { _, err := c.Conversation("c").TailBefore(t.Context(), 9, 5); return err }, page, `GET /v1/conversations/c/tail?limit=5&before=9 `, ""},
		"replay":      {func(c *Client) error { _, err := c.Conversation("c").Replay(t.Context(), 5, 6); return err }, page, `GET /v1/conversations/c/messages?from=5&limit=6 `, ""},
		"stale replay": {func(c *Client) error {
			_, err := c.Conversation("c").Replay(t.Context(), 0, 0, WithConsistency(Stale))
			return err
		}, page, `GET /v1/conversations/c/messages?consistency=stale `, ""},
		"list": {func(c *Client) error { _, err := c.List(t.Context(), ListQuery{}); return err }, `{"conversations":[]}`, `GET /v1/conversations `, ""},
		"list, all said": {func(c *Client) error {
			_, err := c.List(t.Context(), ListQuery{Prefix: "a&b/", Limit: 2, After: "x+y", Consistency: Stale})
			return err
		}, `{"conversations":[]}`, `GET /v1/conversations?prefix=a%26b%2F&limit=2&after=x%2By&consistency=stale `, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method, uri, body, header := requestOf(t, c.answer, c.call)
			require.Equal(t, c.want, method+" "+uri+" "+body)
			if name, value, some := strings.Cut(c.header, ": "); some {
				require.Equal(t, value, header.Get(name))
			}
		})
	}
}

// Every id is one segment, and arrives as it is.
func TestOddIDs(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a/b", "/", "..", ".", "../../x", "🦙", "a b+c", "100%", "%2F", "a?b#c", "a:b@c", ";,=&", "\u202e", strings.Repeat("é", 256)} {
		_, uri, _, _ := requestOf(t, `{"id":"c","metadata":{}}`, func(c *Client) error {
			_, err := c.Conversation(id).Get(t.Context())
			return err
		})
		segment := strings.TrimPrefix(uri, "/v1/conversations/")
		require.NotContains(t, segment, "/", id)
		got, err := url.PathUnescape(segment)
		require.NoError(t, err)
		require.Equal(t, id, got)
	}
	client, _ := clientOf(t, func(_ http.ResponseWriter, r *http.Request) { t.Error(r.URL.String() + " was sent") })
	for _, id := range []string{"", "\x00", "a\x00b", "\xff", strings.Repeat("a", 513)} {
		c := client.Conversation(id)
		require.Equal(t, id, c.ID())
		_, err := c.Put(t.Context(), nil)
		require.Equal(t, CodeInvalid, failureIn(t, err).Code)
		_, err = c.Get(t.Context())
		require.Equal(t, CodeInvalid, failureIn(t, err).Code)
		require.Equal(t, CodeInvalid, failureIn(t, c.Tombstone(t.Context())).Code)
		_, err = c.Append(t.Context(), TextMessage("user", "hi"))
		require.Equal(t, CodeInvalid, failureIn(t, err).Code)
		_, err = c.Tail(t.Context(), 1)
		require.Equal(t, CodeInvalid, failureIn(t, err).Code)
		_, err = c.Replay(t.Context(), 1, 1)
		require.Equal(t, CodeInvalid, failureIn(t, err).Code)
		for _, err := range c.Subscribe(t.Context(), 1) {
			require.Equal(t, CodeInvalid, failureIn(t, err).Code)
		}
	}
}

// history is a server of one conversation of n messages, in pages of at most
// three whatever is asked for.
func history(t *testing.T, n int) *Conversation {
	client, _ := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		first, last := 1, n
		if strings.HasSuffix(r.URL.Path, "/tail") {
			if before := r.FormValue("before"); before != "" {
				_, _ = fmt.Sscan(before, &last)
				last--
			}
			first = max(1, last-2)
		} else {
			_, _ = fmt.Sscan(r.FormValue("from"), &first)
			last = min(n, first+2)
		}
		var messages []string
		for seq := first; seq <= last; seq++ {
			messages = append(messages, messageJSON(seq))
		}
		answerJSON(w, 200, fmt.Sprintf(`{"messages":[%s],"next_from":%d,"last_seq":%d}`, strings.Join(messages, ","), last+1, n))
	})
	return client.Conversation("c")
}

func messageJSON(seq int) string {
	return fmt.Sprintf(`{"seq":%d,"role":"user","parts":[{"type":"text","text":"message %d"}],"metadata":{},"token_count":2,"inserted_at":"2026-01-02T03:04:05.678901Z"}`, seq, seq)
}

func TestRangingOverPages(t *testing.T) {
	t.Parallel()
	for n := range 10 {
		c := history(t, n)
		var forward, backward []int64
		for m, err := range c.Messages(t.Context(), 0) {
			require.NoError(t, err)
			forward = append(forward, m.Seq)
		}
		for m, err := range c.Backward(t.Context(), 0) {
			require.NoError(t, err)
			backward = append(backward, m.Seq)
		}
		require.Len(t, forward, n)
		require.Len(t, backward, n)
		for i := range n {
			require.EqualValues(t, i+1, forward[i])
			require.EqualValues(t, n-i, backward[i])
		}
	}
	c := history(t, 9)
	for m := range c.Messages(t.Context(), 4) {
		require.EqualValues(t, 4, m.Seq)
		break
	}
	for m := range c.Backward(t.Context(), 4) {
		require.EqualValues(t, 3, m.Seq)
		break
	}
	before, err := c.TailBefore(t.Context(), 1, 5)
	require.NoError(t, err)
	require.Empty(t, before)
}

func TestRangesEndWithErrors(t *testing.T) {
	t.Parallel()
	client, _ := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 404, `{"error":"conversation_not_found","message":"x"}`)
	})
	c := client.Conversation("c")
	ended := 0
	for _, err := range c.Messages(t.Context(), 1) {
		require.ErrorIs(t, err, ErrNotFound)
		ended++
	}
	for _, err := range c.Backward(t.Context(), 0) {
		require.ErrorIs(t, err, ErrNotFound)
		ended++
	}
	for _, err := range client.Conversations(t.Context(), "") {
		require.ErrorIs(t, err, ErrNotFound)
		ended++
	}
	require.Equal(t, 3, ended)

	// A page that goes nowhere would be asked for for ever.
	client, _ = clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, `{"messages":[],"next_from":1,"last_seq":5}`)
	})
	for _, err := range client.Conversation("c").Messages(t.Context(), 1) {
		require.Equal(t, CodeUnexpectedResponse, failureIn(t, err).Code)
	}
}

func TestListing(t *testing.T) {
	t.Parallel()
	client, _ := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.FormValue("after") {
		case "":
			answerJSON(w, 200, `{"conversations":[{"id":"a","metadata":{"n":12345678901234567890},"head":"00"}],"next":"p2"}`)
		case "p2":
			answerJSON(w, 200, `{"conversations":[],"next":"p3"}`)
		default:
			answerJSON(w, 200, `{"conversations":[{"id":"b","metadata":{}}]}`)
		}
	})
	var ids []string
	for info, err := range client.Conversations(t.Context(), "") {
		require.NoError(t, err)
		ids = append(ids, info.ID)
		if info.ID == "a" {
			require.Equal(t, `{"n":12345678901234567890}`, string(info.Metadata))
		}
	}
	require.Equal(t, []string{"a", "b"}, ids)
}
