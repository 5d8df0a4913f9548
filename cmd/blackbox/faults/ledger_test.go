package faults

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// outcome is what a client knows of an append it asked for.
type outcome int

const (
	unknown outcome = iota // no answer, or one that says so
	acked
	refused // the server said that nothing was appended
)

// attempt is one append of one message with a text that no other append has.
type attempt struct {
	conversation, id, text string
	outcome                outcome
	seq                    uint64 // of an acked one
}

// ledger remembers attempts. Safe for concurrent use.
type ledger struct {
	mu       sync.Mutex // guards attempts
	attempts []*attempt
}

// begin records an attempt before it is sent.
func (l *ledger) begin(conversation, id, text string) *attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &attempt{conversation: conversation, id: id, text: text}
	l.attempts = append(l.attempts, a)
	return a
}

// settle records what became of an attempt.
func (l *ledger) settle(a *attempt, o outcome, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.outcome, a.seq = o, seq
}

// count returns how many attempts have the outcome.
func (l *ledger) count(o outcome) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, a := range l.attempts {
		if a.outcome == o {
			n++
		}
	}
	return n
}

// send appends an attempt's message and settles it by the answer. The error
// is nil only for an acked one.
func (l *ledger) send(t *testing.T, c *client.Client, a *attempt) error {
	t.Helper()
	got, err := c.Append(t.Context(), a.conversation, client.TextBody(a.id, a.text))
	switch status, isStatus := statusOf(err); {
	case err == nil:
		l.settle(a, acked, got.Seq)
	case isStatus && status != http.StatusGatewayTimeout:
		// Only 504 leaves the outcome open; everything else promises that
		// nothing was appended.
		l.settle(a, refused, 0)
	}
	return err
}

// retryUnknown asks again for every attempt with a message id whose outcome is
// unknown. That is what ids are for, so each must succeed.
func (l *ledger) retryUnknown(t *testing.T, c *client.Client) {
	t.Helper()
	for _, a := range l.attempts {
		if a.outcome == unknown && a.id != "" {
			require.NoError(t, l.send(t, c, a))
		}
	}
}

// verify reads everything and holds it against the ledger. Nobody may be
// writing.
func (l *ledger) verify(t *testing.T, c *client.Client) {
	t.Helper()
	byConversation := map[string][]*attempt{}
	for _, a := range l.attempts {
		byConversation[a.conversation] = append(byConversation[a.conversation], a)
	}
	for _, id := range slices.Sorted(maps.Keys(byConversation)) {
		_, log, err := c.Verified(t.Context(), id)
		require.NoError(t, err)
		require.NoError(t, check(log, byConversation[id]), id)
	}
}

// check holds one conversation's log against its attempts.
func check(log []client.Message, attempts []*attempt) error {
	at := map[string]uint64{}
	for _, m := range log {
		text := m.TextOf()
		if first, twice := at[text]; twice {
			return fmt.Errorf("text %q is there twice, at %d and %d", text, first, m.Seq)
		}
		at[text] = m.Seq
	}
	for _, a := range attempts {
		seq, there := at[a.text]
		delete(at, a.text)
		switch {
		case a.outcome == acked && !there:
			return fmt.Errorf("append %q was acknowledged at %d and is lost", a.text, a.seq)
		case a.outcome == acked && seq != a.seq:
			return fmt.Errorf("append %q was acknowledged at %d and is at %d", a.text, a.seq, seq)
		case a.outcome == refused && there:
			return fmt.Errorf("append %q was refused and is there at %d", a.text, seq)
		}
		if there && log[seq-1].ID != a.id {
			return fmt.Errorf("append %q has id %q, want %q", a.text, log[seq-1].ID, a.id)
		}
	}
	for text, seq := range at {
		return fmt.Errorf("message %d holds %q, which nobody appended", seq, text)
	}
	return nil
}

// The ledger itself must see every way of breaking the promise.
func TestLedgerSees(t *testing.T) {
	t.Parallel()
	message := func(seq uint64, text string) client.Message {
		return client.Message{Seq: seq, Parts: fmt.Appendf(nil, `[{"text":%q}]`, text)}
	}
	ab := []client.Message{message(1, "a"), message(2, "b")}
	for name, c := range map[string]struct {
		log      []client.Message
		attempts []*attempt
		want     string
	}{
		"all well":           {ab, []*attempt{{text: "a", outcome: acked, seq: 1}, {text: "b"}, {text: "c"}, {text: "d", outcome: refused}}, ""},
		"lost":               {ab[:1], []*attempt{{text: "a"}, {text: "b", outcome: acked, seq: 2}}, "is lost"},
		"moved":              {ab, []*attempt{{text: "a"}, {text: "b", outcome: acked, seq: 1}}, "is at 2"},
		"refused, but there": {ab, []*attempt{{text: "a"}, {text: "b", outcome: refused}}, "was refused"},
		"twice":              {[]client.Message{message(1, "a"), message(2, "a")}, []*attempt{{text: "a"}}, "twice"},
		"from nowhere":       {ab, []*attempt{{text: "a"}}, "nobody"},
		"another id":         {ab[:1], []*attempt{{text: "a", id: "x"}}, "has id"},
	} {
		err := check(c.log, c.attempts)
		if c.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
	}
}
