package state

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestAppendAnswers(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")

	require.Equal(t, &rpc.AppendReply{
		Seq: 1, LastSeq: 1, Version: 1, TokenCount: 1,
		Messages: []rpc.Appended{{Seq: 1, TokenCount: 1}},
	}, h.append("c", text("", "hello")))
	require.Equal(t, &rpc.AppendReply{
		Seq: 2, LastSeq: 3, Version: 2, TokenCount: 3,
		Messages: []rpc.Appended{{Seq: 2, TokenCount: 2}, {Seq: 3, TokenCount: 1}},
	}, h.append("c", text("", "12345678"), text("", "1234")))

	c := h.conversation("c")
	require.EqualValues(t, 2, c.Version)
	require.EqualValues(t, 3, c.LastSeq)
	require.EqualValues(t, 1, c.FirstSeq)
	require.Equal(t, h.clock, c.UpdatedAt)

	page, err := h.m.Messages("c", 2, 1, 0)
	require.NoError(t, err)
	require.Equal(t, `{"seq":2,"role":"user","parts":[{"type":"text","text":"12345678"}],"metadata":{},"token_count":2,"inserted_at":"2026-01-02T03:04:08.123456Z"}`,
		string(page.Messages[0].JSON))
	require.EqualValues(t, 2, page.Messages[0].Version)
	h.check()
}

// The order of checks: not found, known key or ids, tombstoned, version.
func TestAppendPrecedence(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	stale := ptr(uint64(9))
	_, err := h.tryAppend(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("m", "x")}, IfVersion: stale})
	require.ErrorIs(t, err, rpc.ErrNotFound)

	h.put("c", "")
	_, err = h.tryAppend(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("m", "x")}, IfVersion: stale})
	var conflict *rpc.VersionConflictError
	require.ErrorAs(t, err, &conflict)
	require.Zero(t, conflict.Current)

	withKey := &rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("", "y")}, IdempotencyKey: "k", BodyDigest: [32]byte{1}, IfVersion: ptr(uint64(1))}
	h.append("c", text("m", "x"))
	first, err := h.tryAppend(withKey)
	require.NoError(t, err)
	before := h.hash()

	for _, closed := range []bool{false, true} {
		if closed {
			require.NoError(t, h.apply(TombstoneOp("c"))[0].Err)
			before = h.hash()
		}
		again, err := h.tryAppend(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("m", "x")}, IfVersion: stale})
		require.NoError(t, err)
		require.Equal(t, &rpc.AppendReply{
			Seq: 1, LastSeq: 1, Version: 1, Duplicate: true, Messages: []rpc.Appended{{Seq: 1, Duplicate: true}},
		}, again)

		again, err = h.tryAppend(withKey)
		require.NoError(t, err)
		require.True(t, again.Duplicate)
		again.Duplicate = false
		require.Equal(t, first, again)

		other := *withKey
		other.BodyDigest[0]++
		_, err = h.tryAppend(&other)
		require.ErrorIs(t, err, rpc.ErrIdempotencyConflict)

		_, err = h.tryAppend(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("", "z")}, IfVersion: stale})
		if closed {
			require.ErrorIs(t, err, rpc.ErrTombstoned)
		} else {
			require.ErrorAs(t, err, &conflict)
			require.EqualValues(t, 2, conflict.Current)
		}
		require.Equal(t, before, h.hash(), "refused and repeated appends change nothing")
	}
}

func TestMessageIDs(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	d := func(seq, revises uint64) rpc.Appended {
		return rpc.Appended{Seq: seq, Revises: revises, TokenCount: 1, Duplicate: true}
	}
	n := func(seq, revises uint64) rpc.Appended { return rpc.Appended{Seq: seq, Revises: revises, TokenCount: 1} }
	one, two, three := text("a", "one_"), text("a", "two_"), text("a", "three")
	plain := text("", "plain")
	b, e := text("b", "body"), text("e", "eeee")
	for _, step := range []struct {
		name     string
		messages []rpc.NewMessage
		version  uint64
		want     []rpc.Appended
	}{
		{"new", []rpc.NewMessage{one}, 1, []rpc.Appended{n(1, 0)}},
		{"revision", []rpc.NewMessage{two}, 2, []rpc.Appended{n(2, 1)}},
		{"first again", []rpc.NewMessage{one}, 1, []rpc.Appended{d(1, 0)}},
		{"revision again", []rpc.NewMessage{two}, 2, []rpc.Appended{d(2, 1)}},
		{"third content", []rpc.NewMessage{three}, 3, []rpc.Appended{n(3, 2)}},
		{"first still known", []rpc.NewMessage{one}, 1, []rpc.Appended{d(1, 0)}},
		{"without id never known", []rpc.NewMessage{plain}, 4, []rpc.Appended{n(4, 0)}},
		{"without id again", []rpc.NewMessage{plain}, 5, []rpc.Appended{n(5, 0)}},
		{"whole chat again with one more", []rpc.NewMessage{one, two, three, b}, 6, []rpc.Appended{d(1, 0), d(2, 1), d(3, 2), n(6, 0)}},
		{"the same request again", []rpc.NewMessage{one, two, three, b}, 6, []rpc.Appended{d(1, 0), d(2, 1), d(3, 2), d(6, 0)}},
		{"known last", []rpc.NewMessage{plain, one}, 7, []rpc.Appended{n(7, 0), d(1, 0)}},
		{"twice in one batch", []rpc.NewMessage{e, e}, 8, []rpc.Appended{n(8, 0), d(8, 0)}},
		{"revised in one batch", []rpc.NewMessage{text("f", "1234"), text("f", "5678"), text("f", "1234")}, 9, []rpc.Appended{n(9, 0), n(10, 9), d(9, 0)}},
		{"revised in one batch, again", []rpc.NewMessage{text("f", "5678")}, 9, []rpc.Appended{d(10, 9)}},
		{"known and revised in one batch", []rpc.NewMessage{two, text("a", "four"), two}, 10, []rpc.Appended{d(2, 1), n(11, 3), d(2, 1)}},
	} {
		before := h.conversation("c")
		reply := h.append("c", step.messages...)
		want := &rpc.AppendReply{
			Seq: step.want[0].Seq, LastSeq: step.want[len(step.want)-1].Seq, Version: step.version,
			TokenCount: uint64(len(step.want)), Duplicate: true, Messages: step.want,
		}
		for _, m := range step.want {
			want.Duplicate = want.Duplicate && m.Duplicate
		}
		require.Equal(t, want, reply, step.name)
		if want.Duplicate {
			require.Equal(t, before, h.conversation("c"), step.name)
		}
	}
	h.check()
	h.put("other", "")
	require.Equal(t, []rpc.Appended{n(1, 0)}, h.append("other", one).Messages, "ids belong to a conversation")
}

// An idempotency key answers with everything of the first answer, also with what
// was known by id then.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	h.append("c", text("a", "one_"))
	req := &rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("a", "one_"), text("", "two_"), text("a", "three")}, IdempotencyKey: "k"}
	first, err := h.tryAppend(req)
	require.NoError(t, err)
	require.Equal(t, &rpc.AppendReply{Seq: 1, LastSeq: 3, Version: 2, TokenCount: 3, Messages: []rpc.Appended{
		{Seq: 1, TokenCount: 1, Duplicate: true}, {Seq: 2, TokenCount: 1}, {Seq: 3, TokenCount: 1, Revises: 1},
	}}, first)
	h.append("c", text("", "later"))
	h.reopen(Options{})
	again, err := h.tryAppend(req)
	require.NoError(t, err)
	require.True(t, again.Duplicate)
	again.Duplicate = false
	require.Equal(t, first, again)

	// A request of which everything is known by id changes nothing, so its key
	// is not remembered.
	known := &rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("a", "one_")}, IdempotencyKey: "k2", BodyDigest: [32]byte{1}}
	_, err = h.tryAppend(known)
	require.NoError(t, err)
	known.BodyDigest[0]++
	_, err = h.tryAppend(known)
	require.NoError(t, err)
	h.check()
}

// One command, several ops: each sees what those before it did.
func TestOpsOfOneCommandSeeEachOther(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	appendOf := func(m rpc.NewMessage, version *uint64) Op {
		return AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{m}, IfVersion: version, IdempotencyKey: "k" + m.ID})
	}
	out := h.apply(
		appendOf(text("a", "early"), nil),
		PutOp(&rpc.PutRequest{Key: "c"}),
		appendOf(text("a", "x"), ptr(uint64(0))),
		appendOf(text("a", "x"), ptr(uint64(0))),
		appendOf(text("b", "x"), ptr(uint64(0))),
		ArchiveAckOp(&ArchiveAck{Watermarks: []Watermark{{"c", 1}}}),
		TombstoneOp("c"),
		TombstoneOp("c"),
		appendOf(text("a", "x"), nil),
		appendOf(text("b", "x"), nil),
		PutOp(&rpc.PutRequest{Key: "c"}),
		TombstoneOp("missing"),
		Op{},
		PutOp(&rpc.PutRequest{Key: "d"}),
	)
	require.ErrorIs(t, out[0].Err, rpc.ErrNotFound)
	require.True(t, out[1].Reply.(*rpc.PutReply).Created)
	require.False(t, out[2].Reply.(*rpc.AppendReply).Duplicate)
	require.True(t, out[3].Reply.(*rpc.AppendReply).Duplicate)
	require.Equal(t, &rpc.VersionConflictError{Current: 1}, out[4].Err)
	require.Equal(t, Outcome{}, out[5])
	require.Equal(t, Outcome{}, out[6])
	require.Equal(t, Outcome{}, out[7])
	require.True(t, out[8].Reply.(*rpc.AppendReply).Duplicate)
	require.ErrorIs(t, out[9].Err, rpc.ErrTombstoned)
	require.ErrorIs(t, out[10].Err, rpc.ErrTombstoned)
	require.ErrorIs(t, out[11].Err, rpc.ErrNotFound)
	require.ErrorIs(t, out[12].Err, ErrInvalidOp)
	require.True(t, out[13].Reply.(*rpc.PutReply).Created, "an invalid op does not harm others")
	h.check()
}

// A clock that goes back does not take a conversation back.
func TestTimeNeverGoesBack(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	h.append("c", text("", "x"))
	newest := h.clock
	h.clock = epoch.Add(-time.Hour)
	h.append("c", text("", "x"))
	h.put("c", `{"a":1}`)
	require.NoError(t, h.apply(TombstoneOp("c"))[0].Err)
	h.put("d", "")
	c := h.conversation("c")
	require.Equal(t, newest, c.UpdatedAt)
	require.Equal(t, epoch.Add(time.Second), c.CreatedAt)
	require.Equal(t, h.clock, h.conversation("d").CreatedAt, "another conversation does not know")
	page, err := h.m.Tail("c", 0, 0, 1, 0)
	require.NoError(t, err)
	require.Contains(t, string(page.Messages[0].JSON), newest.Format(`"inserted_at":"2006-01-02T15:04:05.000000Z"}`))
}

func TestTimeIsClampedToFourDigitYears(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.clock = time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)
	h.put("c", "")
	require.Equal(t, time.Unix(0, 0).UTC(), h.conversation("c").CreatedAt)
	h.clock = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)
	h.append("c", text("", "x"))
	page, err := h.m.Tail("c", 0, 0, 1, 0)
	require.NoError(t, err)
	require.Contains(t, string(page.Messages[0].JSON), `"inserted_at":"9999-12-31T23:59:59.999999Z"}`)
}

// A client can recompute the head from what it reads.
func TestHeadIsRecomputable(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	require.Zero(t, h.conversation("c").Head)
	h.fill("c", 12)
	page, err := h.m.Messages("c", 1, 100, 0)
	require.NoError(t, err)
	var head [32]byte
	for _, m := range page.Messages {
		head = Chain(head, m.Seq, m.JSON)
		require.Equal(t, head, storedHash(t, h.m, "c", m.Seq))
	}
	require.Equal(t, head, h.conversation("c").Head)
}

func TestLargestNumbersSurvive(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	m := text("a", "x")
	m.TokenCount = math.MaxUint64
	require.EqualValues(t, uint64(math.MaxUint64), h.append("c", m).TokenCount)
	require.EqualValues(t, uint64(math.MaxUint64), h.append("c", m).TokenCount)
}

// A conversation that was not in the cache, and of which much is remembered, is
// first asked of storage and later of a loaded set; answers do not differ.
func TestKnownIDsAreLoadedIntoMemory(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	for i := range 100 {
		h.append("c", text(fmt.Sprintf("m%d", i), "x"), text("", "y"))
	}
	h.append("c", text("m7", "revised"))
	_, err := h.tryAppend(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("", "z")}, IdempotencyKey: "k"})
	require.NoError(t, err)
	h.reopen(Options{})
	for i := range 100 {
		require.True(t, h.append("c", text(fmt.Sprintf("m%d", i), "x")).Duplicate)
		require.False(t, h.append("c", text(fmt.Sprintf("n%d", i), "x")).Duplicate)
	}
	require.NotNil(t, h.m.view.entries["c"].ids, "the set was never loaded")
	require.True(t, h.append("c", text("m7", "revised")).Duplicate)
	again, err := h.tryAppend(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("", "z")}, IdempotencyKey: "k"})
	require.NoError(t, err)
	require.True(t, again.Duplicate)
}
