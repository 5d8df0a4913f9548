package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// named is the body that appends a message with an id and a text.
func named(id, s string) string { return string(client.TextBody(id, s)) }

func TestC24SameMessageIDSameContent(t *testing.T) {
	a := setup(t)
	id := a.created()
	first := a.appended(id, http.StatusCreated, named("m1", "hello"))
	require.False(t, first.Duplicate)
	require.Nil(t, first.Revises)

	again := a.appended(id, http.StatusOK, named("m1", "hello"))
	require.True(t, again.Duplicate)
	again.Duplicate = false
	require.Equal(t, first, again, "the first answer")
	require.Len(t, a.verified(id), 1, "one message")
	require.Equal(t, "m1", a.tail(id, "")[0].ID)
	require.EqualValues(t, 1, a.conversation(id).Version)
}

func TestC24SameMessageIDOtherContent(t *testing.T) {
	a := setup(t)
	id := a.created()
	first := a.appended(id, http.StatusCreated, named("m1", "one"))
	a.appended(id, http.StatusCreated, text("between"))

	second := a.appended(id, http.StatusCreated, named("m1", "two"))
	require.EqualValues(t, 3, second.Seq)
	require.NotNil(t, second.Revises)
	require.EqualValues(t, 1, *second.Revises)
	require.False(t, second.Duplicate)

	third := a.appended(id, http.StatusCreated, named("m1", "three"))
	require.EqualValues(t, 4, third.Seq)
	require.NotNil(t, third.Revises)
	require.EqualValues(t, 3, *third.Revises, "the newest before it")

	again := a.appended(id, http.StatusOK, named("m1", "one"))
	require.True(t, again.Duplicate)
	require.Equal(t, first.Seq, again.Seq)
	require.Equal(t, first.Version, again.Version)
	require.EqualValues(t, 3, a.appended(id, http.StatusOK, named("m1", "two")).Seq)
	require.Len(t, a.verified(id), 4)
}

// Role and metadata are content as much as the parts are.
func TestC24ContentIsRolePartsAndMetadata(t *testing.T) {
	a := setup(t)
	id := a.created()
	base := `"id":"m","role":"user",` + onePart
	a.appended(id, http.StatusCreated, message(base))
	a.appended(id, http.StatusOK, message(base))
	a.appended(id, http.StatusOK, message(base+`,"token_count":99`))
	for i, other := range []string{
		strings.Replace(base, `"user"`, `"assistant"`, 1),
		base + `,"metadata":{"a":1}`,
		`"id":"m","role":"user","parts":[{"type":"text","text":"y"}]`,
	} {
		require.EqualValues(t, i+2, a.appended(id, http.StatusCreated, message(other)).Seq, other)
	}
}

// A retry is recognised before anything else is looked at: the guard it
// carries is stale by its own first success.
func TestRetryWithStaleGuard(t *testing.T) {
	a := setup(t)
	id := a.created()
	body := strings.Replace(named("m1", "hello"), "{", `{"if_version":0,`, 1)
	first := a.appended(id, http.StatusCreated, body)
	a.appended(id, http.StatusCreated, text("later"))
	require.Equal(t, first.Seq, a.appended(id, http.StatusOK, body).Seq)

	// A revision is a new append: its guard counts.
	stale := strings.Replace(named("m1", "other"), "{", `{"if_version":0,`, 1)
	requireFault(t, a.post(id, stale), http.StatusConflict, "conflict")
}

func TestRetryAfterTombstone(t *testing.T) {
	a := setup(t)
	id := a.created()
	key := client.Header{Name: "Idempotency-Key", Value: "k1"}
	a.appended(id, http.StatusCreated, named("m1", "hello"))
	second := a.appended(id, http.StatusCreated, text("keyed"), key)
	require.Equal(t, http.StatusNoContent, a.delete(id).Status)

	require.EqualValues(t, 1, a.appended(id, http.StatusOK, named("m1", "hello")).Seq)
	reply := a.post(id, text("keyed"), key)
	require.Less(t, reply.Status, 300, reply)
	require.Contains(t, string(reply.Body), fmt.Sprintf(`"seq":%d`, second.Seq))
	requireFault(t, a.post(id, named("m1", "revised")), http.StatusGone, "conversation_tombstoned")
}

func TestMessageIDsAreOfOneConversation(t *testing.T) {
	a := setup(t)
	for range 2 {
		a.appended(a.created(), http.StatusCreated, named("shared", "hello"))
	}
	longest := strings.Repeat("i", 128)
	id := a.created()
	a.appended(id, http.StatusCreated, named(longest, "hello"))
	require.Equal(t, longest, a.tail(id, "")[0].ID)
}

func TestRetriesAtTheSameTime(t *testing.T) {
	a := setup(t)
	id := a.created()
	statuses, answers := together(a, 20, id, named("m1", "hello"))
	require.Equal(t, 1, statuses[http.StatusCreated], statuses)
	require.Equal(t, 19, statuses[http.StatusOK], statuses)
	require.Equal(t, map[uint64]int{1: 20}, answers, "one sequence")
	require.Len(t, a.verified(id), 1)
}

// together posts the same body n times at once, and counts statuses and seqs.
func together(a api, n int, id, body string, headers ...client.Header) (statuses map[int]int, answers map[uint64]int) {
	statuses, answers = map[int]int{}, map[uint64]int{}
	var (
		wg sync.WaitGroup
		mu sync.Mutex // guards the maps
	)
	for range n {
		wg.Go(func() {
			reply, err := a.Do(a.ctx, http.MethodPost, client.Path(id)+"/messages", []byte(body), headers...)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				a.t.Errorf("append: %v", err)
				return
			}
			statuses[reply.Status]++
			answers[seqOf(reply)]++
		})
	}
	wg.Wait()
	return statuses, answers
}

func TestIdempotencyKey(t *testing.T) {
	a := setup(t)
	id := a.created()
	key := client.Header{Name: "Idempotency-Key", Value: unique()}
	first := a.appended(id, http.StatusCreated, text("hello"), key)
	a.appended(id, http.StatusCreated, text("later"))

	reply := a.post(id, text("hello"), key)
	require.Contains(t, []int{http.StatusOK, http.StatusCreated}, reply.Status, reply)
	require.Equal(t, first.Seq, seqOf(reply), "the first answer")
	requireFault(t, a.post(id, text("other"), key), http.StatusConflict, "idempotency_conflict")
	require.Len(t, a.verified(id), 2)

	// A key belongs to a conversation.
	require.EqualValues(t, 1, a.appended(a.created(), http.StatusCreated, text("other"), key).Seq)
}

func TestIdempotencyKeyOfBatch(t *testing.T) {
	a := setup(t)
	id := a.created()
	key := client.Header{Name: "Idempotency-Key", Value: "batch"}
	first := a.appended(id, http.StatusCreated, batch("a", "b", "c"), key)
	reply := a.post(id, batch("a", "b", "c"), key)
	require.Contains(t, []int{http.StatusOK, http.StatusCreated}, reply.Status, reply)
	require.Equal(t, first.Seq, seqOf(reply))
	require.Len(t, a.verified(id), 3)
	requireFault(t, a.post(id, batch("a", "b"), key), http.StatusConflict, "idempotency_conflict")
}

func TestIdempotencyKeysAtTheSameTime(t *testing.T) {
	a := setup(t)
	id := a.created()
	key := client.Header{Name: "Idempotency-Key", Value: "once"}
	statuses, answers := together(a, 20, id, text("hello"), key)
	require.Equal(t, 20, statuses[http.StatusOK]+statuses[http.StatusCreated], statuses)
	require.Equal(t, map[uint64]int{1: 20}, answers)
	require.Len(t, a.verified(id), 1)
}

func TestIdempotencyKeyBounds(t *testing.T) {
	a := setup(t)
	id := a.created()
	longest := client.Header{Name: "Idempotency-Key", Value: strings.Repeat("k", 255)}
	a.appended(id, http.StatusCreated, text("x"), longest)
	tooLong := client.Header{Name: "Idempotency-Key", Value: strings.Repeat("k", 256)}
	requireFault(t, a.post(id, text("x"), tooLong), http.StatusBadRequest, "")
	require.EqualValues(t, 1, a.conversation(id).LastSeq)
}

// A batch may hold messages that are known beside new ones: each id is in the
// log once.
func TestBatchWithKnownMessages(t *testing.T) {
	a := setup(t)
	id := a.created()
	a.appended(id, http.StatusCreated, named("m1", "one"))
	one := `{"id":"m1","role":"user","parts":[{"type":"text","text":"one"}]}`
	two := `{"id":"m2","role":"user","parts":[{"type":"text","text":"two"}]}`
	body := `{"messages":[` + one + `,` + two + `]}`
	got := a.appended(id, http.StatusCreated, body)
	require.EqualValues(t, 1, got.Messages[0].Seq)
	require.EqualValues(t, 2, got.Messages[1].Seq)
	require.EqualValues(t, 2, got.Version)

	again := a.appended(id, http.StatusOK, body)
	require.True(t, again.Duplicate)
	require.EqualValues(t, 2, again.Messages[1].Seq)
	log := a.verified(id)
	require.Len(t, log, 2)
	require.Equal(t, []string{"m1", "m2"}, []string{log[0].ID, log[1].ID})
}

// seqOf returns the seq of an append's answer, 0 when it has none.
func seqOf(reply client.Reply) uint64 {
	var out client.Appended
	if json.Unmarshal(reply.Body, &out) != nil {
		return 0
	}
	return out.Seq
}
