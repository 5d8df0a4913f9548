package state

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// sampleOps are valid ops of every kind and shape.
func sampleOps() []Op {
	return []Op{
		PutOp(&rpc.PutRequest{Key: "c"}),
		PutOp(&rpc.PutRequest{Key: rpc.Key(strings.Repeat("k", maxKeyBytes)), Metadata: bytes.Repeat([]byte("m"), maxMetadataBytes)}),
		AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("", "x")}}),
		AppendOp(&rpc.AppendRequest{
			Key: "c", Messages: []rpc.NewMessage{text("a", "x"), text(strings.Repeat("i", maxIDBytes), "y")},
			IfVersion: ptr(uint64(math.MaxUint64)), IdempotencyKey: strings.Repeat("k", maxIdemKeyBytes), BodyDigest: [32]byte{1, 2, 3},
		}),
		AppendOp(&rpc.AppendRequest{Key: "c", IfVersion: ptr(uint64(0)), Messages: make1(maxAppendMessages)}),
		TombstoneOp("c"),
		ArchiveAckOp(&ArchiveAck{}),
		ArchiveAckOp(&ArchiveAck{Epoch: math.MaxUint64, Keep: 1, Watermarks: []Watermark{{"a", 1}, {"b", math.MaxUint64}}}),
	}
}

func make1(n int) []rpc.NewMessage {
	list := make([]rpc.NewMessage, n)
	for i := range list {
		list[i].Content = []byte("x")
	}
	return list
}

func TestCommandRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.Date(2031, 2, 3, 4, 5, 6, 789_123_999, time.UTC)
	ops := sampleOps()
	data := EncodeCommand([]byte("prefix"), at, ops...)
	require.Equal(t, "prefix", string(data[:6]))
	var c command
	require.NoError(t, c.decode(data[6:]))
	require.Equal(t, at.UnixMicro(), c.at)
	require.Len(t, c.ops, len(ops))
	require.Equal(t, data[6:], reencode(&c))
	for _, op := range ops {
		require.NoError(t, op.Validate())
		require.LessOrEqual(t, len(EncodeCommand(nil, at, op)), op.Size()+20)
	}
}

// reencode turns a decoded command into the command it was.
func reencode(c *command) []byte {
	if len(c.ops) == 1 && c.ops[0].kind == opRestore {
		r := &c.restore
		req := &rpc.RestoreRequest{After: r.after, Numbers: r.numbers, Rows: r.rows}
		if total := r.total.state(0, 0); r.last {
			req.Total = &total
		}
		data, _ := EncodeRestore(nil, req) // within bounds: it was decoded
		return data
	}
	var ops []Op
	for _, o := range c.ops {
		key := rpc.Key(o.key)
		switch o.kind {
		case opAppend:
			req := &rpc.AppendRequest{Key: key, IdempotencyKey: string(o.idemKey)}
			if o.hasIfVersion {
				req.IfVersion = ptr(o.ifVersion)
			}
			if o.idemDigest != nil {
				req.BodyDigest = *o.idemDigest
			}
			for _, m := range c.messages[o.from:o.to] {
				n := rpc.NewMessage{ID: string(m.id), Content: m.content, TokenCount: m.tokens}
				if m.digest != nil {
					n.Digest = *m.digest
				}
				req.Messages = append(req.Messages, n)
			}
			ops = append(ops, AppendOp(req))
		case opPut:
			req := &rpc.PutRequest{Key: key}
			if o.setMetadata {
				req.Metadata = o.metadata
			}
			ops = append(ops, PutOp(req))
		case opTombstone:
			ops = append(ops, TombstoneOp(key))
		case opArchive:
			ack := &ArchiveAck{Epoch: o.epoch, Keep: o.keep}
			for _, w := range c.watermarks[o.from:o.to] {
				ack.Watermarks = append(ack.Watermarks, Watermark{rpc.Key(w.key), w.seq})
			}
			ops = append(ops, ArchiveAckOp(ack))
		default:
			ops = append(ops, Op{})
		}
	}
	return EncodeCommand(nil, time.UnixMicro(c.at), ops...)
}

func TestOpsOutOfBounds(t *testing.T) {
	t.Parallel()
	one := []rpc.NewMessage{text("", "x")}
	long := func(n int) string { return strings.Repeat("x", n+1) }
	for name, op := range map[string]Op{
		"none":               {},
		"no key":             TombstoneOp(""),
		"long key":           TombstoneOp(rpc.Key(long(maxKeyBytes))),
		"put no key":         PutOp(&rpc.PutRequest{}),
		"empty metadata":     PutOp(&rpc.PutRequest{Key: "c", Metadata: []byte{}}),
		"long metadata":      PutOp(&rpc.PutRequest{Key: "c", Metadata: []byte(long(maxMetadataBytes))}),
		"append no key":      AppendOp(&rpc.AppendRequest{Messages: one}),
		"no messages":        AppendOp(&rpc.AppendRequest{Key: "c"}),
		"many messages":      AppendOp(&rpc.AppendRequest{Key: "c", Messages: make1(maxAppendMessages + 1)}),
		"long idempotency":   AppendOp(&rpc.AppendRequest{Key: "c", Messages: one, IdempotencyKey: long(maxIdemKeyBytes)}),
		"long id":            AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text(long(maxIDBytes), "x")}}),
		"empty content":      AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{{}}}),
		"long content":       AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{{Content: []byte(long(maxContentBytes))}}}),
		"many watermarks":    ArchiveAckOp(&ArchiveAck{Watermarks: make([]Watermark, maxWatermarks+1)}),
		"watermark no key":   ArchiveAckOp(&ArchiveAck{Watermarks: []Watermark{{}}}),
		"watermark long key": ArchiveAckOp(&ArchiveAck{Watermarks: []Watermark{{Key: rpc.Key(long(maxKeyBytes))}}}),
	} {
		require.ErrorIs(t, op.Validate(), ErrInvalidOp, name)
		var c command
		require.NoError(t, c.decode(EncodeCommand(nil, epoch, op)), name)
		require.Equal(t, []operation{{kind: opInvalid}}, c.ops, name)
	}
}

func TestBadEntriesChangeNothing(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	before := h.hash()
	good := EncodeCommand(nil, epoch, sampleOps()[2])
	alter := func(at int, b byte) []byte {
		data := bytes.Clone(good)
		data[at] = b
		return data
	}
	year10000 := append(binary.AppendUvarint([]byte{commandVersion}, maxStamp+1), 1, opTombstone, 1, 'c')
	for name, data := range map[string][]byte{
		"nil": nil, "empty": {}, "version 0": alter(0, 0), "version only": {commandVersion},
		"truncated": good[:len(good)-1], "trailing byte": append(bytes.Clone(good), 0),
		"no ops":       EncodeCommand(nil, epoch),
		"unknown op":   {commandVersion, 0, 1, opKinds},
		"more ops":     {commandVersion, 0, 2, opInvalid},
		"long varint":  {commandVersion, 0x80, 0x00, 1, opInvalid},
		"time":         year10000,
		"unknown flag": {commandVersion, 0, 1, opAppend, 1, 'c', 4, 1, 0, 0, 1, 'x'},
		"no messages":  {commandVersion, 0, 1, opAppend, 1, 'c', 0, 0},
		"empty key":    {commandVersion, 0, 1, opTombstone, 0},
		"huge count":   {commandVersion, 0, 1, opArchive, 0, 0, 0xff, 0xff, 3},
	} {
		h.log = append(h.log, Entry{})
		index := uint64(len(h.log))
		outcomes, err := h.m.Apply([]Entry{{Index: index, Term: 1, Data: data}})
		require.NoError(t, err, name)
		require.Len(t, outcomes[0], 1, name)
		require.ErrorIs(t, outcomes[0][0].Err, ErrBadCommand, name)
		applied, _ := h.m.Applied()
		require.Equal(t, index, applied, "it counts as applied")
	}
	require.Equal(t, before, h.hash())
}

// A newer command stops the replica before it, with all before it applied. A
// build that knows it goes on from there.
func TestNewerCommandStops(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	entries := []Entry{h.entry(PutOp(&rpc.PutRequest{Key: "c"})), h.entry(TombstoneOp("c")), h.entry(TombstoneOp("c"))}
	newer := append([]byte{restoreVersion + 1}, "a future form"...)
	withNewer := []Entry{entries[0], {Index: 2, Term: 1, Data: newer}, entries[2]}
	_, err := h.m.Apply(withNewer)
	require.ErrorIs(t, err, ErrNewerCommand)
	index, term := h.m.Applied()
	require.EqualValues(t, 1, index)
	require.EqualValues(t, 1, term)
	require.False(t, h.conversation("c").Tombstoned)
	_, err = h.m.Apply(entries)
	require.ErrorIs(t, err, ErrNewerCommand, "it stays stopped")

	h.reopen(Options{}) // stands for the newer build, in which entry 2 is known
	_, err = h.m.Apply(entries)
	require.NoError(t, err)
	require.True(t, h.conversation("c").Tombstoned)
}

// What decodes encodes to the same bytes, and applies without a failure.
func FuzzCommand(f *testing.F) {
	for _, op := range sampleOps() {
		if op.Size() < 4096 {
			f.Add(EncodeCommand(nil, epoch, op))
		}
	}
	f.Add(EncodeCommand(nil, epoch, PutOp(&rpc.PutRequest{Key: "c"}), Op{}, TombstoneOp("c")))
	f.Add([]byte{commandVersion, 0, 1, opArchive, 0, 0, 0xff, 0xff, 3})
	f.Add([]byte{restoreVersion, 0, 1, 0, 5, 0x21, 2, 0, 'c', 0})
	f.Add([]byte{restoreVersion, 0, 0, 1, 0, 0, 0, 0, 0})
	h := newHarness(f, Options{})
	f.Cleanup(h.close)
	h.put("taken", "") // or rows that make no sense together could be restored
	index := uint64(1)
	f.Fuzz(func(t *testing.T, data []byte) {
		var c command
		err := c.decode(data)
		if err == nil {
			require.Equal(t, data, reencode(&c))
		}
		if len(data) > 0 && data[0] > restoreVersion {
			require.ErrorIs(t, err, ErrNewerCommand)
			return
		}
		index++
		outcomes, applyErr := h.m.Apply([]Entry{{Index: index, Term: 1, Data: data}})
		require.NoError(t, applyErr)
		if err != nil {
			require.ErrorIs(t, outcomes[0][0].Err, ErrBadCommand)
		} else {
			require.Len(t, outcomes[0], len(c.ops))
		}
	})
}
