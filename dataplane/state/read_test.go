package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestReadsOfMissingConversation(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	_, err := h.m.Conversation("c")
	require.ErrorIs(t, err, rpc.ErrNotFound)
	_, err = h.m.Messages("c", 1, 10, 0)
	require.ErrorIs(t, err, rpc.ErrNotFound)
	_, err = h.m.Tail("c", 0, 0, 10, 0)
	require.ErrorIs(t, err, rpc.ErrNotFound)
}

func TestMessages(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	h.put("neighbour", "")
	h.fill("c", 10)
	h.fill("neighbour", 10)
	require.NoError(t, h.ack("neighbour", 1, 10, 3))
	for _, x := range []struct {
		key   rpc.Key
		from  uint64
		limit int
		want  []uint64
	}{
		{"c", 5, 100, []uint64{5, 6, 7, 8, 9, 10}},
		{"c", 1, 3, []uint64{1, 2, 3}},
		{"c", 0, 3, []uint64{1, 2, 3}},
		{"c", 10, 0, []uint64{10}},
		{"c", 9, -1, []uint64{9}},
		{"c", 11, 10, []uint64{}},
		{"c", 100, 10, []uint64{}},
		{"c", 1<<64 - 1, 10, []uint64{}},
		{"neighbour", 8, 10, []uint64{8, 9, 10}},
	} {
		page, err := h.m.Messages(x.key, x.from, x.limit, 0)
		require.NoError(t, err)
		require.Equal(t, x.want, seqs(page), "%+v", x)
		require.EqualValues(t, 10, page.LastSeq)
		require.Equal(t, h.conversation(x.key).FirstSeq, page.Earliest)
		for _, m := range page.Messages {
			require.True(t, strings.HasPrefix(string(m.JSON), fmt.Sprintf(`{"seq":%d,`, m.Seq)))
			require.Equal(t, m.Seq, m.Version)
		}
	}
	_, err := h.m.Messages("neighbour", 7, 10, 0)
	var expired *rpc.CursorExpiredError
	require.ErrorAs(t, err, &expired)
	require.EqualValues(t, 8, expired.Earliest)
	require.NoError(t, h.ack("neighbour", 1, 10, 0))
	_, err = h.m.Messages("neighbour", 10, 10, 0)
	require.ErrorAs(t, err, &expired)
	require.EqualValues(t, 11, expired.Earliest)
	page, err := h.m.Messages("neighbour", 11, 10, 0)
	require.NoError(t, err)
	require.Empty(t, page.Messages)
}

func TestTail(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	h.put("trimmed", "")
	h.fill("c", 10)
	h.fill("trimmed", 10)
	require.NoError(t, h.ack("trimmed", 1, 5, 2)) // hot 4 to 10
	for _, x := range []struct {
		key            rpc.Key
		before, offset uint64
		limit          int
		want           []uint64
	}{
		{"c", 0, 0, 3, []uint64{8, 9, 10}},
		{"c", 0, 3, 3, []uint64{5, 6, 7}},
		{"c", 0, 9, 3, []uint64{1}},
		{"c", 0, 10, 3, []uint64{}},
		{"c", 0, 100, 3, []uint64{}},
		{"c", 0, 1<<64 - 1, 3, []uint64{}},
		{"c", 0, 0, 0, []uint64{10}},
		{"c", 0, 0, 1 << 40, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"c", 4, 0, 2, []uint64{2, 3}},
		{"c", 1, 0, 2, []uint64{}},
		{"c", 2, 0, 2, []uint64{1}},
		{"c", 1000, 0, 2, []uint64{9, 10}},
		{"c", 8, 2, 3, []uint64{3, 4, 5}},
		{"trimmed", 0, 0, 100, []uint64{4, 5, 6, 7, 8, 9, 10}},
		{"trimmed", 0, 5, 100, []uint64{4, 5}},
		{"trimmed", 0, 7, 100, []uint64{}},
		{"trimmed", 4, 0, 100, []uint64{}},
	} {
		page, err := h.m.Tail(x.key, x.before, x.offset, x.limit, 0)
		require.NoError(t, err)
		require.Equal(t, x.want, seqs(page), "%+v", x)
		require.EqualValues(t, 10, page.LastSeq)
		require.Equal(t, h.conversation(x.key).FirstSeq, page.Earliest)
	}
}

// When bytes run out a page ends early: a forward page at its end, a tail at its
// beginning. One message always comes.
func TestPagesAreBoundedByBytes(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	for i := range 8 {
		h.append("c", text("", strings.Repeat("x", 100*i)))
	}
	size := func(from, to uint64) (n int) {
		page, err := h.m.Messages("c", from, int(to-from+1), 0)
		require.NoError(t, err)
		for _, m := range page.Messages {
			n += len(m.JSON)
		}
		return n
	}
	for from := uint64(1); from <= 8; from++ {
		for to := from; to <= 8; to++ {
			for _, slack := range []int{0, 20} {
				page, err := h.m.Messages("c", from, 100, size(from, to)+slack)
				require.NoError(t, err)
				require.EqualValues(t, to-from+1, len(page.Messages))
				require.Equal(t, from, page.Messages[0].Seq)

				page, err = h.m.Tail("c", to+1, 0, 100, size(from, to)+slack)
				require.NoError(t, err)
				require.Equal(t, from, page.Messages[0].Seq)
				require.Equal(t, to, page.Messages[len(page.Messages)-1].Seq)
			}
		}
	}
	page, err := h.m.Messages("c", 3, 100, 1)
	require.NoError(t, err)
	require.Equal(t, []uint64{3}, seqs(page))
	page, err = h.m.Tail("c", 0, 0, 100, 1)
	require.NoError(t, err)
	require.Equal(t, []uint64{8}, seqs(page))
	page, err = h.m.Tail("c", 0, 2, 100, 2000)
	require.NoError(t, err)
	require.EqualValues(t, 6, page.Messages[len(page.Messages)-1].Seq)
}

func TestList(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	for _, key := range []rpc.Key{"a", "a\x00", "ab", "abc", "b", "\x00tenant", "\xff", "\xff\xff", "ü"} {
		h.put(key, fmt.Sprintf(`{"k":%q}`, string(key)))
		h.append(key, text("", "x"))
	}
	for _, x := range []struct {
		prefix, after string
		limit         int
		want          []rpc.Key
	}{
		{"", "", 100, []rpc.Key{"\x00tenant", "a", "a\x00", "ab", "abc", "b", "ü", "\xff", "\xff\xff"}},
		{"", "", 2, []rpc.Key{"\x00tenant", "a"}},
		{"", "", 0, []rpc.Key{"\x00tenant"}},
		{"a", "", 100, []rpc.Key{"a", "a\x00", "ab", "abc"}},
		{"a", "a", 2, []rpc.Key{"a\x00", "ab"}},
		{"a", "0", 1, []rpc.Key{"a"}},
		{"a", "b", 100, nil},
		{"ab", "abc", 100, nil},
		{"\xff", "", 100, []rpc.Key{"\xff", "\xff\xff"}},
		{"\xff", "\xff", 100, []rpc.Key{"\xff\xff"}},
		{"", "\xff\xff", 100, nil},
		{"x", "", 100, nil},
	} {
		list, err := h.m.List(x.prefix, x.after, x.limit)
		require.NoError(t, err)
		var keys []rpc.Key
		for _, c := range list {
			keys = append(keys, c.Key)
			require.Equal(t, h.conversation(c.Key), c)
		}
		require.Equal(t, x.want, keys, "%+v", x)
	}
}

// What is returned belongs to the caller.
func TestReadsReturnCopies(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", `{"a":1}`)
	h.fill("c", 3)
	before := h.hash()
	c := h.conversation("c")
	clear(c.Metadata)
	page, err := h.m.Tail("c", 0, 0, 3, 0)
	require.NoError(t, err)
	_ = append(page.Messages[0].JSON, "overflow"...)
	require.Contains(t, string(page.Messages[1].JSON), `{"seq":2,`)
	clear(page.Messages[0].JSON)
	require.JSONEq(t, `{"a":1}`, string(h.conversation("c").Metadata))
	h.append("c", text("", "x"))
	require.NotEqual(t, before, h.hash())
	h.check()
}

// Stored data that is not what was written is reported, never served.
func TestReadsReportCorruption(t *testing.T) {
	t.Parallel()
	long := `{"a":"` + strings.Repeat("x", 1000) + `"}`
	for _, damage := range []struct {
		name string
		do   func(h *harness) error
	}{
		{"missing message", func(h *harness) error { return h.db.Delete(h.m.keys.message(nil, 1, 5), nil) }},
		{"missing first", func(h *harness) error { return h.db.Delete(h.m.keys.message(nil, 1, 1), nil) }},
		{"missing last", func(h *harness) error { return h.db.Delete(h.m.keys.message(nil, 1, 10), nil) }},
		{"short message", func(h *harness) error { return h.db.Set(h.m.keys.message(nil, 1, 5), []byte{1, 2}, nil) }},
		{"other format", func(h *harness) error {
			return h.db.Set(h.m.keys.message(nil, 1, 5), []byte("\x02"+strings.Repeat("x", 60)), nil)
		}},
		{"empty JSON", func(h *harness) error {
			return h.db.Set(h.m.keys.message(nil, 1, 5), []byte("\x01"+strings.Repeat("x", 32)+"\x01\x01"), nil)
		}},
		{"conversation row", func(h *harness) error { return h.db.Set(h.m.keys.record(nil, "c"), []byte{1, 0, 1}, nil) }},
		{"metadata row", func(h *harness) error { return h.db.Delete(h.m.keys.metadata(nil, 1), nil) }},
	} {
		t.Run(damage.name, func(t *testing.T) {
			t.Parallel()
			h := setup(t, Options{})
			h.put("c", long)
			h.fill("c", 10)
			require.NoError(t, damage.do(h))
			h.reopen(Options{})
			_, err := h.m.Messages("c", 1, 100, 0)
			require.ErrorIs(t, err, rpc.ErrCorrupt)
			_, err = h.m.Tail("c", 0, 0, 100, 0)
			require.ErrorIs(t, err, rpc.ErrCorrupt)
			_, err = h.m.Tail("c", 0, 0, 100, 1500)
			require.ErrorIs(t, err, rpc.ErrCorrupt)
			if strings.Contains(damage.name, "row") {
				_, err = h.m.Conversation("c")
				require.ErrorIs(t, err, rpc.ErrCorrupt)
				_, err = h.m.List("", "", 10)
				require.ErrorIs(t, err, rpc.ErrCorrupt)
				_, err = h.m.Apply([]Entry{h.entry(AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("", "x")}}))})
				require.ErrorIs(t, err, rpc.ErrCorrupt)
			}
		})
	}
}

// A trim between reading the record and the messages is not taken for a hole:
// the page is what it would have been after the trim.
func TestReadBesideTrim(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", string(longMetadata))
	h.fill("c", 10)
	trims := 0
	plan := func(rec *record) (low, high uint64, err error) {
		if trims++; trims == 1 {
			require.NoError(t, h.ack("c", 1, 5, 0))
			h.append("c", text("", "newer"))
		}
		return rec.first, rec.last, nil
	}
	for _, newest := range []bool{false, true} {
		page, err := h.m.page("c", rpc.MaxPageBytes, newest, plan)
		require.NoError(t, err)
		require.Equal(t, []uint64{6, 7, 8, 9, 10, 11}, seqs(page))
		require.EqualValues(t, 6, page.Earliest)
		require.EqualValues(t, 11, page.LastSeq)
	}
	require.Equal(t, 3, trims)
}
