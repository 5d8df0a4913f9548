package archive

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// C20, and the public query: rows are there once however often they are
// written, in order, with their exact bytes.
func TestWriteIsIdempotent(t *testing.T) {
	t.Parallel()
	s, url := fresh(t)
	runs := []Run{run("a", [32]byte{}, texts(1, 5)...), run("b/é", [32]byte{}, texts(1, 3)...), run("empty", [32]byte{})}
	var heads [][32]byte
	for range 3 {
		var err error
		heads, err = s.Write(t.Context(), runs)
		require.NoError(t, err)
	}
	require.Equal(t, int64(8), archivetest.Query[int64](t, url, "SELECT count(*) FROM messages"))
	require.Equal(t, int64(3), archivetest.Query[int64](t, url, "SELECT count(*) FROM conversations"))
	seqs := archivetest.Query[[]int64](t, url, "SELECT array_agg(seq) FROM (SELECT * FROM messages WHERE conversation_id = $1 ORDER BY seq) m", "a")
	require.Equal(t, []int64{1, 2, 3, 4, 5}, seqs)
	require.Equal(t, "message 2", archivetest.Query[string](t, url, "SELECT parts->0->>'text' FROM messages WHERE conversation_id = 'b/é' AND seq = 2"))
	require.Equal(t, `{"k": 1}`, archivetest.Query[string](t, url, "SELECT metadata::text FROM conversations WHERE id = 'a'"))
	require.Equal(t, string(text(2).JSON), archivetest.Query[string](t, url, "SELECT convert_from(body, 'UTF8') FROM messages WHERE conversation_id = 'a' AND seq = 2"))

	// The chain goes on where it ended.
	more, err := s.Write(t.Context(), []Run{run("a", heads[0], texts(6, 9)...)})
	require.NoError(t, err)
	var want [32]byte
	for _, m := range texts(1, 9) {
		want = state.Chain(want, m.Seq, m.JSON)
	}
	require.Equal(t, want, more[0])
	held, err := s.Held(t.Context(), []Want{{"a", 9}, {"a", 5}, {"a", 10}, {"none", 0}, {"none", 3}, {"empty", 0}})
	require.NoError(t, err)
	require.Equal(t, Held{Exists: true, ArchivedSeq: 9, UpdatedAt: day.Add(9 * time.Second), Hash: want, HasHash: true}, held[0])
	require.Equal(t, heads[0], held[1].Hash)
	require.False(t, held[2].HasHash)
	require.Equal(t, Held{HasHash: true}, held[3])
	require.Equal(t, Held{}, held[4])
	require.True(t, held[5].Exists)
}

// The query of SCHEMA.md that proves a transcript without the server.
func TestDocumentedProof(t *testing.T) {
	t.Parallel()
	s, url := fresh(t)
	_, err := s.Write(t.Context(), []Run{run("a", [32]byte{}, texts(1, 9)...)})
	require.NoError(t, err)
	schema, err := os.ReadFile("SCHEMA.md")
	require.NoError(t, err)
	_, proof, _ := strings.Cut(string(schema), "    WITH m AS")
	proof, _, _ = strings.Cut("WITH m AS"+proof, ";")
	proof = "SELECT coalesce(array_agg(seq), '{}') FROM (" + proof + ") wrong"
	require.Empty(t, archivetest.Query[[]int64](t, url, proof, "a"))
	archivetest.Shared(t).Exec(t, url, "UPDATE messages SET body = body || ' ' WHERE seq = 6")
	require.Equal(t, []int64{6}, archivetest.Query[[]int64](t, url, proof, "a"))
}

// A holder that was paused comes after its successor: nothing goes back.
func TestConversationsNeverGoBack(t *testing.T) {
	t.Parallel()
	s, url := fresh(t)
	late := run("a", [32]byte{}, texts(1, 3)...)
	late.Conversation.Metadata = []byte(`{"old":true}`)
	early := run("a", [32]byte{}, texts(1, 5)...)
	early.Conversation.Tombstoned = true
	_, err := s.Write(t.Context(), []Run{early})
	require.NoError(t, err)
	_, err = s.Write(t.Context(), []Run{late})
	require.NoError(t, err)
	require.Equal(t, "5 5 t {\"k\": 1} {\"k\": 1}", archivetest.Query[string](t, url,
		"SELECT archived_seq || ' ' || last_seq || ' ' || (CASE WHEN tombstoned THEN 't' ELSE 'f' END) || ' ' || metadata || ' ' || convert_from(metadata_raw, 'UTF8') FROM conversations"))
	require.True(t, archivetest.Query[bool](t, url,
		"SELECT c.head = m.hash FROM conversations c JOIN messages m ON m.conversation_id = c.id AND m.seq = c.archived_seq"))
}

// Other content at the same place is reported, and neither overwritten nor
// half-written.
func TestDivergence(t *testing.T) {
	t.Parallel()
	s, url := fresh(t)
	_, err := s.Write(t.Context(), []Run{run("a", [32]byte{}, texts(1, 3)...)})
	require.NoError(t, err)
	other := run("a", [32]byte{}, text(1), message(2, `"role":"user"`), text(3), text(4))
	_, err = s.Write(t.Context(), []Run{other, run("b", [32]byte{}, text(1))})
	var diverged *DivergenceError
	require.ErrorAs(t, err, &diverged)
	require.Equal(t, []Divergence{{Key: "a", Seqs: []uint64{2, 3}}}, diverged.Found) // 3 has another hash
	require.NotErrorIs(t, err, rpc.ErrArchiveUnavailable)
	require.Equal(t, int64(3), archivetest.Query[int64](t, url, "SELECT count(*) FROM messages"))

	// A row whose content was changed, and its hash not.
	archivetest.Shared(t).Exec(t, url, "UPDATE messages SET body = 'x' WHERE seq = 1")
	_, err = s.Write(t.Context(), []Run{run("a", [32]byte{}, texts(1, 3)...)})
	require.ErrorAs(t, err, &diverged)
	require.Equal(t, []uint64{1}, diverged.Found[0].Seqs)
}

func TestChainMustEndInHead(t *testing.T) {
	t.Parallel()
	s, _ := fresh(t)
	r := run("a", [32]byte{}, texts(1, 3)...)
	r.Conversation.Head = [32]byte{1}
	_, err := s.Write(t.Context(), []Run{r})
	var chain *ChainError
	require.ErrorAs(t, err, &chain)
	require.ErrorIs(t, err, rpc.ErrCorrupt)
}

func TestRowsThatCannotBeArchived(t *testing.T) {
	t.Parallel()
	s, _ := fresh(t)
	for _, key := range []rpc.Key{"\x00tenant", "a\x00b", "\xff", ""} {
		_, err := s.Write(t.Context(), []Run{run(key, [32]byte{}, text(1))})
		var row *RowError
		require.ErrorAs(t, err, &row, "%q", key)
		require.ErrorIs(t, err, ErrInvalidKey)
	}
	_, err := s.Write(t.Context(), []Run{run("a", [32]byte{}, rpc.Message{Seq: 1, JSON: []byte("{}")})})
	var row *RowError
	require.ErrorAs(t, err, &row)
	require.Equal(t, uint64(1), row.Seq)
}

// Everything a client may send is kept byte for byte, whatever jsonb thinks of
// it, and the columns say whether they are exact.
func TestOddMessages(t *testing.T) {
	t.Parallel()
	s, url := fresh(t)
	var messages []rpc.Message
	var exact []bool
	for _, c := range cleaning {
		part := c.in
		messages = append(messages, message(uint64(len(messages)+1),
			`"role":"\u00e9","parts":[{"type":"x","v":`+part+`}],"metadata":{"m":`+part+`},"token_count":18446744073709551615`))
		exact = append(exact, false) // the count does not fit
	}
	_, err := s.Write(t.Context(), []Run{run("odd", [32]byte{}, messages...)})
	require.NoError(t, err)
	got, err := s.Messages(t.Context(), Range{Key: "odd", Low: 1, High: uint64(len(messages)), MaxBytes: 16 << 20})
	require.NoError(t, err)
	require.Equal(t, messages, got)
	require.Equal(t, exact, archivetest.Query[[]bool](t, url, "SELECT array_agg(exact ORDER BY seq) FROM messages"))
	require.Equal(t, "é", archivetest.Query[string](t, url, "SELECT DISTINCT role FROM messages"))
}

// A value that Postgres refuses although it looks clean takes only its own
// column with it.
func TestRefusedValueIsIsolated(t *testing.T) {
	t.Parallel()
	s, url := fresh(t)
	runs := []Run{run("a", [32]byte{}, texts(1, 20)...)}
	r, _, err := newRows(runs)
	require.NoError(t, err)
	bad := `{"broken`
	r.parts[7], r.metadata[12] = []byte(bad), []byte(bad)
	require.True(t, rejectedData(s.write(t.Context(), r)))
	require.NoError(t, s.isolate(t.Context(), r))
	require.NoError(t, s.write(t.Context(), r))
	require.Equal(t, []int64{8}, archivetest.Query[[]int64](t, url, "SELECT array_agg(seq) FROM messages WHERE parts IS NULL"))
	require.Equal(t, []int64{8, 13}, archivetest.Query[[]int64](t, url, "SELECT array_agg(seq ORDER BY seq) FROM messages WHERE NOT exact"))
}

// Runs may be cut anywhere, repeated and overlap: what is held is the same.
func TestAnyCutsGiveTheSame(t *testing.T) {
	t.Parallel()
	s, _ := fresh(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		key := rpc.Key(fmt.Sprintf("conversation %d", n))
		total := rapid.Uint64Range(1, 30).Draw(rt, "messages")
		heads := make([][32]byte, total+1)
		for _, m := range texts(1, total) {
			heads[m.Seq] = state.Chain(heads[m.Seq-1], m.Seq, m.JSON)
		}
		for done := uint64(0); done < total; {
			low := rapid.Uint64Range(0, done).Draw(rt, "from") + 1
			high := rapid.Uint64Range(low, total).Draw(rt, "to")
			got, err := s.Write(context.Background(), []Run{run(key, heads[low-1], texts(low, high)...)})
			require.NoError(rt, err)
			require.Equal(rt, heads[high], got[0])
			done = max(done, high)
		}
		got, err := s.Messages(context.Background(), Range{Key: key, Low: 1, High: total, MaxBytes: 1 << 20})
		require.NoError(rt, err)
		require.Equal(rt, texts(1, total), got)
	})
}

func TestReadRanges(t *testing.T) {
	t.Parallel()
	s, url := fresh(t)
	all := texts(1, 20)
	_, err := s.Write(t.Context(), []Run{run("a", [32]byte{}, all...)})
	require.NoError(t, err)
	size := len(all[10].JSON)
	for name, c := range map[string]struct {
		r    Range
		want []rpc.Message
	}{
		"all":             {Range{Low: 1, High: 20, MaxBytes: 1 << 20}, all},
		"middle":          {Range{Low: 5, High: 7, MaxBytes: 1 << 20}, all[4:7]},
		"one byte":        {Range{Low: 5, High: 7, MaxBytes: 1}, all[4:5]},
		"two":             {Range{Low: 11, High: 20, MaxBytes: 2 * size}, all[10:12]},
		"newest":          {Range{Low: 5, High: 17, MaxBytes: 1 << 20, Newest: true}, all[4:17]},
		"newest two":      {Range{Low: 11, High: 20, MaxBytes: 2*size + 1, Newest: true}, all[18:20]},
		"newest one byte": {Range{Low: 1, High: 20, MaxBytes: 1, Newest: true}, all[19:20]},
	} {
		c.r.Key = "a"
		got, err := s.Messages(t.Context(), c.r)
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}

	server := archivetest.Shared(t)
	server.Exec(t, url, "UPDATE messages SET body = convert_to(replace(convert_from(body, 'UTF8'), 'message 9', 'massage 9'), 'UTF8') WHERE seq = 9")
	_, err = s.Messages(t.Context(), Range{Key: "a", Low: 9, High: 9, MaxBytes: 1 << 20})
	require.ErrorIs(t, err, rpc.ErrCorrupt)
	require.ErrorContains(t, err, "message 9")
	server.Exec(t, url, "DELETE FROM messages WHERE seq = 15")
	for _, r := range []Range{{Low: 12, High: 18}, {Low: 12, High: 15}, {Low: 12, High: 15, Newest: true}, {Low: 12, High: 18, Newest: true}} {
		r.Key, r.MaxBytes = "a", 1<<20
		_, err = s.Messages(t.Context(), r)
		require.ErrorIs(t, err, rpc.ErrCorrupt, r)
		require.ErrorContains(t, err, "message 15 is missing")
	}
	// Somebody keeps only what is recent.
	server.Exec(t, url, "DELETE FROM messages WHERE seq < 4")
	_, err = s.Messages(t.Context(), Range{Key: "a", Low: 2, High: 6, MaxBytes: 1 << 20})
	var expired *rpc.CursorExpiredError
	require.ErrorAs(t, err, &expired)
	require.Equal(t, uint64(4), expired.Earliest)
	got, err := s.Messages(t.Context(), Range{Key: "a", Low: 2, High: 6, MaxBytes: 1 << 20, Newest: true})
	require.NoError(t, err)
	require.Equal(t, all[3:6], got)
	first, err := s.Earliest(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, uint64(4), first)
	first, err = s.Earliest(t.Context(), "nobody")
	require.NoError(t, err)
	require.Zero(t, first)
}

// Large pages come in bounded pieces.
func TestReadIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	s, _ := fresh(t)
	var big []rpc.Message
	for seq := uint64(1); seq <= 12; seq++ {
		big = append(big, message(seq, `"role":"user","parts":[{"type":"text","text":"`+strings.Repeat("x", 200_000)+`"}],"metadata":{},"token_count":1`))
	}
	_, err := s.Write(t.Context(), []Run{run("big", [32]byte{}, big...)})
	require.NoError(t, err)
	got, err := s.Messages(t.Context(), Range{Key: "big", Low: 1, High: 12, MaxBytes: 1 << 20})
	require.NoError(t, err)
	require.Len(t, got, 5)
	got, err = s.Messages(t.Context(), Range{Key: "big", Low: 1, High: 12, MaxBytes: 1 << 20, Newest: true})
	require.NoError(t, err)
	require.Len(t, got, 5)
	require.Equal(t, uint64(12), got[4].Seq)
}
