package state

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// fillWithIDs appends n messages with ids m<first> and on, 500 at a time, each
// append with an idempotency key.
func (h *harness) fillWithIDs(key rpc.Key, first, n int) {
	h.t.Helper()
	for n > 0 {
		k := min(n, 500)
		req := &rpc.AppendRequest{Key: key, IdempotencyKey: fmt.Sprintf("k%d", first)}
		for i := range k {
			req.Messages = append(req.Messages, text(fmt.Sprintf("m%d", first+i), "x"))
		}
		_, err := h.tryAppend(req)
		require.NoError(h.t, err)
		first, n = first+k, n-k
	}
}

func (h *harness) known(key rpc.Key, i int) bool {
	h.t.Helper()
	// Refused by version unless it is known.
	reply, err := h.tryAppend(&rpc.AppendRequest{Key: key, Messages: []rpc.NewMessage{text(fmt.Sprintf("m%d", i), "x")}, IfVersion: ptr(uint64(1 << 40))})
	if err != nil {
		require.ErrorAs(h.t, err, new(*rpc.VersionConflictError))
		return false
	}
	require.True(h.t, reply.Duplicate)
	require.EqualValues(h.t, i, reply.Seq)
	return true
}

func (h *harness) countRows(space byte) (n int) {
	h.t.Helper()
	lower, upper := h.m.keys.span(space)
	w := walk{reader: h.m.db, keys: h.m.keys}
	for {
		at, _, _, ok, err := w.next()
		require.NoError(h.t, err)
		if !ok {
			require.NotEqual(h.t, lower, upper)
			return n
		}
		if at == space {
			n++
		}
	}
}

// Ids and keys are remembered while a message is hot and for the newest 10,000,
// and not for much longer.
func TestForgetting(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	h.fillWithIDs("c", 1, 13_000)
	require.True(t, h.known("c", 1), "hot messages are remembered however many there are")
	require.Equal(t, 13_000, h.countRows(0x23))

	// Trimmed to the newest 2,000. In steps, as the group is used on.
	require.NoError(t, h.ack("c", 1, 13_000, 2000))
	for i := range 10 {
		h.fillWithIDs("c", 13_001+100*i, 100)
	}
	const last = 14_000
	require.EqualValues(t, last, h.conversation("c").LastSeq)
	require.True(t, h.known("c", last-rememberedMessages+1))
	require.True(t, h.known("c", last))
	require.False(t, h.known("c", 1))
	require.False(t, h.known("c", last-rememberedMessages-1000))
	require.LessOrEqual(t, h.countRows(0x23), rememberedMessages+700)
	require.LessOrEqual(t, h.countRows(0x25), 40)

	// A forgotten id and key are as good as new.
	reply, err := h.tryAppend(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("m1", "x")}, IdempotencyKey: "k1", BodyDigest: [32]byte{1}})
	require.NoError(t, err)
	require.False(t, reply.Duplicate)
	require.Zero(t, reply.Messages[0].Revises)
	h.check()
}

// Of a revised id the older contents are forgotten one by one.
func TestForgettingRevisions(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	h.append("c", text("a", "first"), text("b", "only"), text("a", "second"))
	h.fillWithIDs("c", 4, 5000)
	h.append("c", text("a", "third"))
	require.NoError(t, h.ack("c", 1, 1<<40, 0))
	h.fillWithIDs("c", 5005, 5600)
	// The newest content is remembered, the first append is not.
	require.True(t, h.append("c", text("a", "third")).Duplicate)
	for _, m := range []rpc.NewMessage{text("a", "first"), text("b", "only"), text("a", "second")} {
		require.Equal(t, 0, countKnown(h, m), m.ID)
	}
	require.NoError(t, h.ack("c", 1, 1<<40, 0))
	h.fillWithIDs("c", 10_605, 6000)
	require.Equal(t, 0, countKnown(h, text("a", "third")))
	h.check()

	require.NoError(t, h.ack("c", 1, 1<<40, 0))
	for range 10 {
		messages := make([]rpc.NewMessage, 1200)
		for i := range messages {
			messages[i] = text("", "plain")
		}
		h.append("c", messages...)
		require.NoError(t, h.ack("c", 1, 1<<40, 0))
	}
	h.fill("c", 1)
	for _, space := range []byte{0x23, 0x24, 0x25} {
		require.Zero(t, h.countRows(space), "everything is released")
	}
	h.check()
}

func countKnown(h *harness, m rpc.NewMessage) int {
	reply, err := h.tryAppend(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{m}, IfVersion: ptr(uint64(1 << 40))})
	if err == nil && reply.Duplicate {
		return 1
	}
	return 0
}

// A missing or damaged row is reported, not taken for an unknown id.
func TestForgettingDamagedRows(t *testing.T) {
	t.Parallel()
	for _, damage := range []struct {
		name string
		key  func(*Machine) []byte
		row  []byte
	}{
		{"release row", func(m *Machine) []byte { return m.keys.release(nil, 1, 500) }, []byte{0, 1}},
		{"id row", func(m *Machine) []byte { return m.keys.id(nil, 1, []byte("m7")) }, []byte{1}},
		{"id row gone", func(m *Machine) []byte { return m.keys.id(nil, 1, []byte("m7")) }, nil},
		{"key row gone", func(m *Machine) []byte { return m.keys.idempotency(nil, 1, []byte("k1")) }, nil},
	} {
		t.Run(damage.name, func(t *testing.T) {
			t.Parallel()
			h := setup(t, Options{})
			h.put("c", "")
			h.fillWithIDs("c", 1, 10_500)
			if damage.row == nil {
				require.NoError(t, h.db.Delete(damage.key(h.m), nil))
			} else {
				require.NoError(t, h.db.Set(damage.key(h.m), damage.row, nil))
			}
			_, err := h.m.Apply([]Entry{h.entry(ArchiveAckOp(&ArchiveAck{Watermarks: []Watermark{{"c", 10_500}}}))})
			require.ErrorIs(t, err, rpc.ErrCorrupt)
			_, again := h.m.Apply(nil)
			require.ErrorIs(t, again, rpc.ErrCorrupt, "it stops for good")
		})
	}
}

// The oldest hot message is remembered, the one before it is not.
func TestForgettingStopsAtTheHotLog(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	for i := range 600 {
		h.append("c", text(fmt.Sprintf("m%d", i+1), "x"))
	}
	for range 4 {
		h.append("c", make1(3000)...)
	}
	require.NoError(t, h.ack("c", 1, 500, 0))
	require.False(t, h.known("c", 500))
	require.True(t, h.known("c", 501))
	h.check()
}
