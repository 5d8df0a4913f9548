package cluster

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// outcome is what a client knows of an operation.
type outcome int

const (
	unknown outcome = iota // no answer, or one that says so
	acked
	refused // the cluster said that nothing happened
)

// operation is one append of one message with a text that no other append has,
// or one read of the tail.
type operation struct {
	conversation string
	client       int
	// called and returned are times since the history began; a retried append
	// lasts from its first call to its last answer.
	called, returned time.Duration
	outcome          outcome
	failures         []failure // answers that were none

	// Of an append.
	id, text string
	seq      uint64 // of an acked one
	// Of a read.
	read        bool
	consistency string
	seen        []client.Message // ascending, the newest last
}

// failure is an attempt that came to nothing, or to nobody knows what.
type failure struct {
	at     time.Duration
	answer string
}

func (o *operation) String() string {
	if o.read {
		return fmt.Sprintf("%s read of %d messages up to %d", o.consistency, len(o.seen), o.last())
	}
	return fmt.Sprintf("append of %q (id %q) at %d", o.text, o.id, o.seq)
}

// last is the newest sequence that a read saw.
func (o *operation) last() uint64 {
	if len(o.seen) == 0 {
		return 0
	}
	return o.seen[len(o.seen)-1].Seq
}

// history remembers operations. Safe for concurrent use; an operation belongs
// to its client until it was settled.
type history struct {
	began time.Time

	mu         sync.Mutex // guards the below and settled operations
	operations map[string][]*operation
	newest     map[string]time.Duration // call of the latest acked append
}

func newHistory() *history {
	return &history{began: time.Now(), operations: map[string][]*operation{}, newest: map[string]time.Duration{}}
}

func (h *history) now() time.Duration { return time.Since(h.began) }

// begin records an operation before it is sent.
func (h *history) begin(o *operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.called = h.now()
	h.operations[o.conversation] = append(h.operations[o.conversation], o)
}

// settle records what became of an operation.
func (h *history) settle(o *operation, what outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.outcome, o.returned = what, h.now()
	if what == acked && !o.read {
		h.newest[o.conversation] = max(h.newest[o.conversation], o.called)
	}
}

// failed records an attempt that came to nothing; the operation may go on.
func (h *history) failed(o *operation, answer string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.now()
	what := o.consistency + " read"
	if !o.read {
		what = fmt.Sprintf("append with id %q", o.id)
	}
	o.failures = append(o.failures, failure{at, fmt.Sprintf("%s, after %v: %s", what, (at - o.called).Round(time.Millisecond), answer)})
}

// appendedSince returns the conversations of which an append that was called
// after a time has been acked.
func (h *history) appendedSince(when time.Duration) map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]bool{}
	for conversation, called := range h.newest {
		if called >= when {
			out[conversation] = true
		}
	}
	return out
}

// outage is when the first append called after a time was acked, for each
// conversation, counted from that time.
func (h *history) outage(when time.Duration) map[string]time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]time.Duration{}
	for conversation, operations := range h.operations {
		for _, o := range operations {
			if o.read || o.outcome != acked || o.called < when {
				continue
			}
			if first, ok := out[conversation]; !ok || o.returned-when < first {
				out[conversation] = o.returned - when
			}
		}
	}
	return out
}

// failures returns what went wrong with operations on a conversation between two
// times.
func (h *history) failures(conversation string, from, to time.Duration) []failure {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []failure
	for _, o := range h.operations[conversation] {
		for _, f := range o.failures {
			if from <= f.at && f.at <= to {
				out = append(out, f)
			}
		}
	}
	return out
}

// troubles returns what went wrong with operations that began at or after a
// time, with the conversation in front.
func (h *history) troubles(since time.Duration) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for conversation, operations := range h.operations {
		for _, o := range operations {
			for _, f := range o.failures {
				if o.called >= since {
					out = append(out, fmt.Sprintf("%s at %v: %s", conversation, f.at, f.answer))
				}
			}
		}
	}
	return out
}

// count returns how many operations have the outcome.
func (h *history) count(what outcome) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, operations := range h.operations {
		for _, o := range operations {
			if o.outcome == what {
				n++
			}
		}
	}
	return n
}

// verify reads everything and holds it against the history. Nobody may be
// writing.
func (h *history) verify(t *testing.T, c *client.Client) {
	t.Helper()
	for _, conversation := range slices.Sorted(maps.Keys(h.operations)) {
		_, log, err := c.Verified(t.Context(), conversation)
		require.NoError(t, err)
		require.NoError(t, check(log, h.operations[conversation]), conversation)
	}
}

// check holds one conversation's log, which is dense and true to its head,
// against what its clients saw.
func check(log []client.Message, operations []*operation) error {
	at := map[string]uint64{}
	for _, m := range log {
		text := m.TextOf()
		if first, twice := at[text]; twice {
			return fmt.Errorf("text %q is there twice, at %d and %d", text, first, m.Seq)
		}
		at[text] = m.Seq
	}
	appended := map[string]bool{}
	for _, o := range operations {
		if o.read {
			if err := checkRead(log, o); err != nil {
				return err
			}
			continue
		}
		appended[o.text] = true
		if err := checkAppend(log, o, at[o.text]); err != nil {
			return err
		}
	}
	for text, seq := range at {
		if !appended[text] {
			return fmt.Errorf("message %d holds %q, which nobody appended", seq, text)
		}
	}
	return linearizable(operations, at)
}

// checkAppend compares an append with where its text is, 0 for nowhere.
func checkAppend(log []client.Message, o *operation, seq uint64) error {
	switch {
	case o.outcome == acked && seq == 0:
		return fmt.Errorf("%v was acknowledged and is lost", o)
	case o.outcome == acked && seq != o.seq:
		return fmt.Errorf("%v was acknowledged and is at %d", o, seq)
	case o.outcome == refused && seq != 0:
		return fmt.Errorf("%v was refused and is there at %d", o, seq)
	case seq != 0 && log[seq-1].ID != o.id:
		return fmt.Errorf("%v has id %q", o, log[seq-1].ID)
	}
	return nil
}

// checkRead compares what a read saw with what is there: the same bytes, and
// no hole in between.
func checkRead(log []client.Message, o *operation) error {
	for i, m := range o.seen {
		switch {
		case m.Seq != o.last()-uint64(len(o.seen)-1-i):
			return fmt.Errorf("%v has a hole before %d", o, m.Seq)
		case m.Seq > uint64(len(log)):
			return fmt.Errorf("%v saw message %d, which is lost", o, m.Seq)
		case string(m.Raw) != string(log[m.Seq-1].Raw):
			return fmt.Errorf("%v saw message %d as %s, which is %s", o, m.Seq, m.Raw, log[m.Seq-1].Raw)
		}
	}
	return nil
}

// step is one operation as the model sees it: an append that made the
// conversation seq messages long, or a read that found it that long.
type step struct {
	read bool
	seq  uint64
	what *operation
}

// conversationModel is a conversation as the number of its messages. That is
// enough, because check has seen that every text is at one place and that
// every read saw the text of that place: an append can only have happened when
// it was its turn.
var conversationModel = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, _ any) (bool, any) {
		length, s := state.(uint64), input.(step)
		if s.read {
			return length == s.seq, length
		}
		return length+1 == s.seq, length + 1
	},
	DescribeOperation: func(input, _ any) string { return input.(step).what.String() },
}

// checkTimeout bounds the search for an order, which is linear in practice.
const checkTimeout = time.Minute

// linearizable searches an order of the operations that explains what every
// client saw, given where each text is. An append of unknown outcome that is
// there may have happened at any time after its call; one that is not there
// did not happen.
func linearizable(operations []*operation, at map[string]uint64) error {
	var (
		steps []porcupine.Operation
		end   time.Duration
	)
	for _, o := range operations {
		end = max(end, o.called, o.returned)
	}
	for _, o := range operations {
		s := step{read: o.read, seq: o.last(), what: o}
		returned := o.returned
		switch {
		case o.read && (o.outcome != acked || o.consistency == stale):
			continue
		case !o.read && at[o.text] == 0:
			continue
		case !o.read:
			s.seq = at[o.text]
			if o.outcome != acked {
				returned = end + 1
			}
		}
		steps = append(steps, porcupine.Operation{
			ClientId: o.client, Input: s, Call: int64(o.called), Return: int64(returned),
		})
	}
	switch porcupine.CheckOperationsTimeout(conversationModel, steps, checkTimeout) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("no verdict on %d operations within %v", len(steps), checkTimeout)
	}
	return fmt.Errorf("not linearizable: %s", explain(steps))
}

// explain names a read or an append that contradicts another, which is what
// almost every history that is not linearizable comes down to: one that
// returned before another was called, and yet saw or made a later state.
func explain(steps []porcupine.Operation) string {
	for _, a := range steps {
		for _, b := range steps {
			first, second := a.Input.(step), b.Input.(step)
			if a.Return < b.Call && (first.seq > second.seq || first.seq == second.seq && !second.read) {
				return fmt.Sprintf("%v [%v, %v] came before %v [%v, %v]", first.what, time.Duration(a.Call), time.Duration(a.Return),
					second.what, time.Duration(b.Call), time.Duration(b.Return))
			}
		}
	}
	return "no two operations contradict each other alone"
}

// The checker itself must see every way of breaking the promise.
func TestHistorySees(t *testing.T) {
	t.Parallel()
	message := func(seq uint64, text string) client.Message {
		raw := fmt.Appendf(nil, `{"seq":%d,"parts":[{"text":%q}]}`, seq, text)
		return client.Message{Seq: seq, Parts: fmt.Appendf(nil, `[{"text":%q}]`, text), Raw: raw}
	}
	a, b := message(1, "a"), message(2, "b")
	ab := []client.Message{a, b}
	did := func(text string, seq uint64, called, returned time.Duration) *operation {
		return &operation{text: text, outcome: acked, seq: seq, called: called, returned: returned}
	}
	saw := func(called, returned time.Duration, seen ...client.Message) *operation {
		return &operation{read: true, outcome: acked, seen: seen, called: called, returned: returned}
	}
	maybe := func(text string, what outcome) *operation { return &operation{text: text, outcome: what} }
	for name, c := range map[string]struct {
		log        []client.Message
		operations []*operation
		want       string
	}{
		"all well":               {ab, []*operation{did("a", 1, 0, 1), did("b", 2, 2, 3), maybe("c", unknown), maybe("d", refused), saw(4, 5, a, b), saw(1, 2, a)}, ""},
		"unknown and there":      {ab, []*operation{did("a", 1, 0, 1), maybe("b", unknown), saw(2, 3, a), saw(4, 5, a, b)}, ""},
		"concurrent reads":       {ab, []*operation{did("a", 1, 0, 9), did("b", 2, 0, 9), saw(1, 8), saw(1, 8, a), saw(1, 8, b)}, ""},
		"lost":                   {ab[:1], []*operation{maybe("a", unknown), did("b", 2, 0, 1)}, "is lost"},
		"moved":                  {ab, []*operation{maybe("a", unknown), did("b", 1, 0, 1)}, "is at 2"},
		"refused, but there":     {ab, []*operation{maybe("a", unknown), maybe("b", refused)}, "was refused"},
		"twice":                  {[]client.Message{a, message(2, "a")}, []*operation{maybe("a", unknown)}, "twice"},
		"from nowhere":           {ab, []*operation{maybe("a", unknown)}, "nobody"},
		"another id":             {ab[:1], []*operation{{text: "a", id: "x"}}, "has id"},
		"a read with a hole":     {ab, []*operation{maybe("a", unknown), maybe("b", unknown), saw(0, 1, a, message(3, "c"))}, "a hole"},
		"a read of another text": {ab, []*operation{maybe("a", unknown), maybe("b", unknown), saw(0, 1, message(1, "b"))}, "which is"},
		"a read of what is lost": {ab[:1], []*operation{maybe("a", unknown), maybe("b", unknown), saw(0, 1, a, b)}, "is lost"},
		"a stale read":           {ab, []*operation{did("a", 1, 0, 1), did("b", 2, 2, 3), saw(4, 5, a)}, "not linearizable"},
		"reads that go back":     {ab, []*operation{did("a", 1, 0, 9), did("b", 2, 0, 9), saw(1, 2, a, b), saw(3, 4, a)}, "not linearizable"},
		"a stale read, wanted":   {ab, []*operation{did("a", 1, 0, 1), did("b", 2, 2, 3), {read: true, outcome: acked, consistency: stale, seen: ab[:1], called: 4, returned: 5}}, ""},
		"a false stale read":     {ab[:1], []*operation{did("a", 1, 0, 1), {read: true, outcome: acked, consistency: stale, seen: []client.Message{b}, called: 4, returned: 5}}, "is lost"},
		"a read of the future":   {ab, []*operation{did("a", 1, 0, 1), saw(1, 2, a, b), did("b", 2, 3, 4)}, "not linearizable"},
		"appends out of order":   {ab, []*operation{did("b", 2, 0, 1), did("a", 1, 2, 3)}, "not linearizable"},
	} {
		err := check(c.log, c.operations)
		if c.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestHistoryTellsOutages(t *testing.T) {
	t.Parallel()
	h := newHistory()
	for _, o := range []*operation{
		{conversation: "a", outcome: acked, called: 1, returned: 12},
		{conversation: "a", outcome: acked, called: 11, returned: 15},
		{conversation: "a", outcome: acked, called: 12, returned: 13, failures: []failure{{9, ""}, {12, "x"}, {14, ""}}},
		{conversation: "b", outcome: acked, called: 11, returned: 12, read: true},
		{conversation: "b", outcome: unknown, called: 11},
	} {
		h.operations[o.conversation] = append(h.operations[o.conversation], o)
	}
	require.Equal(t, map[string]time.Duration{"a": 3}, h.outage(10))
	require.Equal(t, []failure{{12, "x"}}, h.failures("a", 10, 13))
	require.Len(t, h.troubles(12), 3)
	require.Empty(t, h.troubles(13))
}
