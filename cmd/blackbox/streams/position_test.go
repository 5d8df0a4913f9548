package streams

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// script plays events, written as words, to a position: a number is a message,
// "c3" is caught_up 3, "t" the tombstone, "g" a gap, "|" begins another stream.
func script(p *Position, kind Transport, words string) error {
	p.Begin(kind)
	for word := range strings.FieldsSeq(words) {
		if word == "|" {
			p.Begin(kind)
			continue
		}
		e := Event{Type: "message"}
		switch word[0] {
		case 't':
			e.Type = "tombstone"
		case 'g':
			e = Event{Type: "gap", Expected: 1, Actual: 2}
		case 'c':
			e.Type = "caught_up"
			_, _ = fmt.Sscan(word[1:], &e.Seq)
			e.ID = fmt.Sprint(max(e.Seq, p.first-min(p.first, 1)))
		default:
			_, _ = fmt.Sscan(word, &e.Seq)
			e.Version, e.ID = e.Seq, word
			e.Message = json.RawMessage(fmt.Sprintf(`{"seq":%d}`, e.Seq))
		}
		if err := p.Take(&e); err != nil {
			return err
		}
	}
	return nil
}

// A checker that believes everything would make every suite pass.
func TestPositionTakesWhatMayCome(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		from  uint64
		words string
		wrong string // part of the error; none if empty
	}{
		{1, "1 2 3 c3 4 5 t", ""},
		{1, "c0 1 2 t", ""},
		{0, "c7 8 9 t", ""},
		{20, "c10 20 21", ""},
		{5, "5 6 c6 | 7 c7 8 | c8 9 c9", "again"},
		{5, "5 6 | 7 c7 8 | c8 9", ""},
		{0, "| | c3 | 4 c4", ""},
		{1, "1 3", "want seq 2"},
		{1, "1 1", "want seq 2"},
		{1, "2", "want seq 1"},
		{1, "1 2 c3", "caught_up 3"},
		{1, "1 2 c1", "caught_up 1"},
		{20, "c21", "caught_up 21"},
		{0, "4", "before caught_up"},
		{0, "c3 5", "want seq 4"},
		{1, "t", "before caught_up"},
		{1, "c0 t 1", "after the tombstone"},
		{1, "c0 t t", "after the tombstone"},
		{1, "g", "gap"},
	} {
		for _, kind := range Transports() {
			err := script(NewPosition(NewRecord(), tc.from), kind, tc.words)
			if tc.wrong == "" {
				require.NoError(t, err, "%d: %s", tc.from, tc.words)
			} else {
				require.ErrorContains(t, err, tc.wrong, "%d: %s", tc.from, tc.words)
			}
		}
	}
}

func TestPositionTellsWhereItIs(t *testing.T) {
	t.Parallel()
	p := NewPosition(NewRecord(), 0)
	require.NoError(t, script(p, SSE, "c3 4 5 t"))
	require.True(t, p.Done)
	require.EqualValues(t, 6, p.Next)
	require.EqualValues(t, 3, *p.CaughtUp)
	require.Equal(t, 2, p.Seen)
}

func TestPositionWantsTheIDsOfEvents(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "1", "3", "x"} {
		e := Event{Type: "message", Seq: 2, ID: id}
		p := NewPosition(NewRecord(), 2)
		p.Begin(SSE)
		require.ErrorContains(t, p.Take(&e), "the id", id)
	}
}

func TestRecordComparesWhatClientsWereTold(t *testing.T) {
	t.Parallel()
	r := NewRecord()
	one := Event{Seq: 1, Version: 1, Message: json.RawMessage(`{"a":1}`)}
	require.NoError(t, r.add(&one))
	require.NoError(t, r.add(&one))
	other := one
	other.Message = json.RawMessage(`{"a": 1}`)
	require.ErrorContains(t, r.add(&other), "another client")
	other = one
	other.Version = 2
	require.ErrorContains(t, r.add(&other), "version 2")

	require.NoError(t, r.Check([]client.Message{{Raw: one.Message}, {}}))
	require.ErrorContains(t, r.Check(nil), "ends at 0")
	require.ErrorContains(t, r.Check([]client.Message{{Raw: other.Message[:1]}}), "a read gives")
}
