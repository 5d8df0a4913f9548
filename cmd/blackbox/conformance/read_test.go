package conformance

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

func TestC13Tail(t *testing.T) {
	a := setup(t)
	id := a.filled(10)
	for query, want := range map[string][]uint64{
		"?limit=3":              span(8, 10),
		"?limit=3&offset=3":     span(5, 7),
		"?limit=3&offset=8":     span(1, 2),
		"?limit=3&offset=10":    {},
		"?offset=100":           {},
		"":                      span(1, 10),
		"?limit=1000":           span(1, 10),
		"?limit=3&before=11":    span(8, 10),
		"?limit=3&before=5":     span(2, 4),
		"?limit=3&before=2":     span(1, 1),
		"?limit=3&before=1":     {},
		"?limit=3&before=10000": span(8, 10),
	} {
		require.Equal(t, want, seqs(a.tail(id, query)), "tail%s", query)
	}
	require.Empty(t, a.tail(a.created(), ""))
}

func TestTailDefaultLimit(t *testing.T) {
	a := setup(t)
	id := a.created()
	a.appended(id, http.StatusCreated, batch(numbers(150)...))
	require.Equal(t, span(51, 150), seqs(a.tail(id, "")))
	require.Equal(t, span(1, 100), seqs(a.messages(id, "").Messages))
}

func TestC14TailPages(t *testing.T) {
	a := setup(t)
	id := a.filled(10)
	var all []uint64
	for offset := 0; ; offset += 3 {
		page := seqs(a.tail(id, fmt.Sprintf("?limit=3&offset=%d", offset)))
		if len(page) == 0 {
			break
		}
		all = append(page, all...)
	}
	require.Equal(t, span(1, 10), all, "pages of 3 cover all ten exactly once")
	require.Equal(t, span(8, 10), seqs(a.tail(id, "?limit=3&offset=-5")), "a negative offset is 0")
	require.Equal(t, span(10, 10), seqs(a.tail(id, "?limit=0")), "limit 0 is 1")
}

// Paging below a sequence is what stays right while messages arrive.
func TestTailBeforeIsStable(t *testing.T) {
	a := setup(t)
	id := a.filled(6)
	all := a.tail(id, "?limit=2")
	for len(all) < 6 {
		a.appended(id, http.StatusCreated, text("meanwhile"))
		page := a.tail(id, fmt.Sprintf("?limit=2&before=%d", all[0].Seq))
		require.Len(t, page, 2)
		all = append(page, all...)
	}
	require.Equal(t, span(1, 6), seqs(all))
}

func TestC15Replay(t *testing.T) {
	a := setup(t)
	id := a.filled(10)
	for query, want := range map[string][]uint64{
		"?from=5":              span(5, 10),
		"?from=1&limit=3":      span(1, 3),
		"?from=100":            {},
		"?from=11":             {},
		"":                     span(1, 10),
		"?from=0":              span(1, 10),
		"?from_seq=5":          span(5, 10),
		"?from_seq=9&limit=1":  span(9, 9),
		"?from=3&limit=0":      span(3, 3),
		"?from=10&limit=1000":  span(10, 10),
		"?from=4&limit=3":      span(4, 6),
		"?limit=2":             span(1, 2),
		"?from=1&unknown=nope": span(1, 10),
	} {
		page := a.messages(id, query)
		require.Equal(t, want, seqs(page.Messages), "messages%s", query)
		require.NotNil(t, page.LastSeq, query)
		require.EqualValues(t, 10, *page.LastSeq, query)
		if len(want) > 0 {
			require.NotNil(t, page.NextFrom, query)
			require.Equal(t, want[len(want)-1]+1, *page.NextFrom, query)
		}
	}
}

// A client that only ever follows next_from sees everything once, also what
// arrives while it reads.
func TestReplayFollowsNextFrom(t *testing.T) {
	a := setup(t)
	id := a.filled(5)
	var all []uint64
	from := uint64(1)
	for len(all) < 8 {
		page := a.messages(id, fmt.Sprintf("?from=%d&limit=2", from))
		all = append(all, seqs(page.Messages)...)
		if len(page.Messages) == 0 {
			a.appended(id, http.StatusCreated, text("later"))
			continue
		}
		from = *page.NextFrom
	}
	require.Equal(t, span(1, 8), all)
}

func TestReadsRefuseQueries(t *testing.T) {
	a := setup(t)
	id := a.filled(1)
	for _, target := range []string{
		"/tail?limit=x", "/tail?limit=1.5", "/tail?offset=x", "/tail?before=x",
		"/tail?limit=1e3", "/tail?limit=0x10", "/tail?consistency=eventually",
		"/messages?from=x", "/messages?from=1.5", "/messages?limit=ten", "/messages?from_seq=x", "/messages?from=", "/messages?limit=1&limit=2",
	} {
		requireFault(t, a.get(client.Path(id)+target), http.StatusBadRequest, "")
	}
}

// Both reads serve the same bytes for a message.
func TestReadsServeTheSameBytes(t *testing.T) {
	a := setup(t)
	id := a.filled(5)
	require.Equal(t, a.messages(id, "").Messages, a.tail(id, ""))
}

func TestConsistencyLevels(t *testing.T) {
	a := setup(t)
	id := a.filled(3)
	for _, suffix := range []string{"", "/tail", "/messages"} {
		for _, level := range []string{"leader", "linearizable", "stale"} {
			reply := a.get(client.Path(id) + suffix + "?consistency=" + level)
			require.Equal(t, http.StatusOK, reply.Status, reply)
			require.NotEmpty(t, reply.Header.Get("X-Fastpaca-Last-Seq"), "%s %s", suffix, level)
			if level != "stale" {
				require.Equal(t, "3", reply.Header.Get("X-Fastpaca-Last-Seq"), "%s %s", suffix, level)
			}
		}
		requireFault(t, a.get(client.Path(id)+suffix+"?consistency=nope"), http.StatusBadRequest, "")
	}
}

func TestMinSeq(t *testing.T) {
	a := setup(t)
	id := a.filled(2)
	wait := func(seq string) client.Header { return client.Header{Name: "X-Fastpaca-Min-Seq", Value: seq} }

	reply := a.get(client.Path(id)+"/tail", wait("2"))
	require.Equal(t, http.StatusOK, reply.Status, reply)

	// Asked for the next message before it is there, the answer holds it.
	type answer struct {
		reply client.Reply
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		reply, err := a.Do(a.ctx, http.MethodGet, client.Path(id)+"/tail", nil, wait("3"))
		answers <- answer{reply, err}
	}()
	a.appended(id, http.StatusCreated, text("awaited"))
	got := <-answers
	require.NoError(t, got.err)
	require.Equal(t, http.StatusOK, got.reply.Status, got.reply)
	page, err := client.DecodeMessages(got.reply.Body)
	require.NoError(t, err)
	require.Equal(t, span(1, 3), seqs(page.Messages))

	requireFault(t, a.get(client.Path(id)+"/tail", wait("x")), http.StatusBadRequest, "")
}

// The wait for a sequence is bounded and ends in an error that may be retried,
// never in an answer that lacks what was asked for.
func TestMinSeqNotReached(t *testing.T) {
	a := setup(t)
	id := a.filled(1)
	reply := a.get(client.Path(id), client.Header{Name: "X-Fastpaca-Min-Seq", Value: "1000"})
	require.Contains(t, []int{http.StatusServiceUnavailable, http.StatusGatewayTimeout}, reply.Status, reply)
	requireFault(t, reply, reply.Status, "")
	_, ok := reply.RetryAfter()
	require.True(t, ok, "Retry-After: %q", reply.Header.Get("Retry-After"))
}
