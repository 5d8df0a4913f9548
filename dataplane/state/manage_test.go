package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestPut(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	long := `{"a":"` + strings.Repeat("x", 1000) + `"}`
	edge := `{"a":"` + strings.Repeat("x", inlineMetadataBytes-8) + `"}`
	require.Len(t, edge, inlineMetadataBytes)
	for i, step := range []struct{ set, want string }{
		{"", "{}"}, {`{"a":1}`, `{"a":1}`}, {"", `{"a":1}`}, {long, long}, {"", long},
		{long + " ", long + " "}, {edge, edge}, {edge + " ", edge + " "}, {`{}`, `{}`},
	} {
		reply := h.put("c", step.set)
		require.Equal(t, i == 0, reply.Created)
		require.Equal(t, step.want, string(reply.Conversation.Metadata))
		c := h.conversation("c")
		require.Equal(t, c, reply.Conversation)
		require.EqualValues(t, i, c.Version, "a put leaves the version")
		if step.set != "" {
			require.Equal(t, h.clock, c.UpdatedAt)
		}
		h.append("c", text("", "keeps the metadata"))
		require.Equal(t, step.want, string(h.conversation("c").Metadata))
		h.reopen(Options{})
		require.Equal(t, step.want, string(h.conversation("c").Metadata))
		list, err := h.m.List("", "", 10)
		require.NoError(t, err)
		require.Equal(t, step.want, string(list[0].Metadata))
		require.NoError(t, h.apply(PutOp(&rpc.PutRequest{Key: "d", Metadata: []byte(long)}))[0].Err)
		h.check()
	}
}

func TestTombstone(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	require.ErrorIs(t, h.apply(TombstoneOp("c"))[0].Err, rpc.ErrNotFound)
	h.put("c", "")
	h.fill("c", 3)
	require.Equal(t, Outcome{}, h.apply(TombstoneOp("c"))[0])
	c := h.conversation("c")
	require.True(t, c.Tombstoned)
	require.EqualValues(t, 3, c.Version)
	require.Equal(t, h.clock, c.UpdatedAt)
	require.Equal(t, Outcome{}, h.apply(TombstoneOp("c"))[0])
	require.Equal(t, c, h.conversation("c"), "repeating changes nothing")
	require.ErrorIs(t, h.apply(PutOp(&rpc.PutRequest{Key: "c", Metadata: []byte("{}")}))[0].Err, rpc.ErrTombstoned)
	require.ErrorIs(t, h.apply(PutOp(&rpc.PutRequest{Key: "c"}))[0].Err, rpc.ErrTombstoned)
	page, err := h.m.Tail("c", 0, 0, 10, 0)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3}, seqs(page), "it still reads")
	require.NoError(t, h.ack("c", 1, 3, 1), "it is still archived")
	require.EqualValues(t, 3, h.conversation("c").FirstSeq)
	h.check()
}

func TestArchiveAckTrims(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		messages              int
		seq, keep             uint64
		wantFirst, wantAcked  uint64
		thenSeq, thenKeep     uint64 // another ack, with the same epoch
		thenFirst, thenAcked  uint64
		wantHotAfterTheSecond []uint64
	}{
		// Ten messages, keep 2, ack 5: hot 4 to 10.
		{10, 5, 2, 4, 5, 3, 0, 4, 5, []uint64{4, 5, 6, 7, 8, 9, 10}},
		{10, 5, 2, 4, 5, 99, 2, 9, 10, []uint64{9, 10}},
		{10, 5, 5, 1, 5, 5, 4, 2, 5, []uint64{2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{10, 5, 100, 1, 5, 0, 0, 1, 5, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{10, 5, 0, 6, 5, 10, 0, 11, 10, []uint64{}},
		{10, 1, 0, 2, 1, 2, 1, 2, 2, []uint64{2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{3, 1 << 63, 1 << 62, 1, 3, 1 << 62, 2, 2, 3, []uint64{2, 3}},
		{0, 5, 0, 1, 0, 0, 0, 1, 0, []uint64{}},
	} {
		t.Run(fmt.Sprintf("%d messages, ack %d, keep %d", x.messages, x.seq, x.keep), func(t *testing.T) {
			t.Parallel()
			h := setup(t, Options{})
			h.put("c", "")
			h.fill("c", x.messages)
			before := h.conversation("c")
			require.NoError(t, h.ack("c", 1, x.seq, x.keep))
			c := h.conversation("c")
			require.Equal(t, x.wantFirst, c.FirstSeq)
			require.Equal(t, x.wantAcked, c.ArchivedSeq)
			require.NoError(t, h.ack("c", 1, x.thenSeq, x.thenKeep))
			c = h.conversation("c")
			require.Equal(t, x.thenFirst, c.FirstSeq)
			require.Equal(t, x.thenAcked, c.ArchivedSeq)
			before.FirstSeq, before.ArchivedSeq = c.FirstSeq, c.ArchivedSeq
			require.Equal(t, before, c, "nothing else changes")
			page, err := h.m.Tail("c", 0, 0, 100, 0)
			require.NoError(t, err)
			require.Equal(t, x.wantHotAfterTheSecond, seqs(page))
			h.check()
			h.append("c", text("", "more"))
			h.check()
		})
	}
}

// Long runs are trimmed by one range deletion, short ones key by key; also when
// the messages are of the same batch.
func TestTrimOfManyMessages(t *testing.T) {
	t.Parallel()
	for _, n := range []int{pointDeletes, pointDeletes + 1, 1000} {
		h := setup(t, Options{})
		h.put("c", "")
		h.fill("c", 5)
		messages := make([]rpc.NewMessage, n)
		for i := range messages {
			messages[i] = text("", "x")
		}
		out := h.apply(
			AppendOp(&rpc.AppendRequest{Key: "c", Messages: messages}),
			ArchiveAckOp(&ArchiveAck{Keep: 3, Watermarks: []Watermark{{"c", uint64(n)}}}),
			AppendOp(&rpc.AppendRequest{Key: "c", Messages: messages[:1]}),
		)
		require.NoError(t, out[1].Err)
		require.EqualValues(t, n-2, h.conversation("c").FirstSeq)
		require.NoError(t, h.ack("c", 0, uint64(n)+2, 1))
		page, err := h.m.Messages("c", uint64(n)+2, 100, 0)
		require.NoError(t, err)
		require.Len(t, page.Messages, 5)
		h.check()
	}
}

func TestArchiveAckIsFenced(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	h.fill("c", 10)
	require.NoError(t, h.ack("c", 7, 2, 0))
	h.reopen(Options{})
	before := h.hash()
	require.ErrorIs(t, h.ack("c", 6, 8, 0), rpc.ErrEpochFenced)
	require.Equal(t, before, h.hash())
	require.EqualValues(t, 7, h.m.Stats().ArchiveEpoch)

	require.Equal(t, Outcome{}, h.apply(ArchiveAckOp(&ArchiveAck{Epoch: 8}))[0], "a new holder fences without a watermark")
	require.ErrorIs(t, h.ack("c", 7, 8, 0), rpc.ErrEpochFenced)
	require.NoError(t, h.ack("missing", 8, 8, 0), "an unknown conversation is skipped")
	require.NoError(t, h.ack("c", 8, 8, 0))
	require.EqualValues(t, 8, h.conversation("c").ArchivedSeq)
	h.check()
}

func TestArchiveAckOfMany(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	ack := &ArchiveAck{Epoch: 1, Keep: 1}
	for i := range 10 {
		key := rpc.Key(fmt.Sprint(i))
		h.put(key, "")
		h.fill(key, i)
		ack.Watermarks = append(ack.Watermarks, Watermark{key, 5}, Watermark{key, 3})
	}
	require.NoError(t, h.apply(ArchiveAckOp(ack))[0].Err)
	for i := range uint64(10) {
		c := h.conversation(rpc.Key(fmt.Sprint(i)))
		require.Equal(t, min(i, 5), c.ArchivedSeq)
		require.Equal(t, max(1, c.ArchivedSeq), c.FirstSeq)
	}
	h.check()
}
