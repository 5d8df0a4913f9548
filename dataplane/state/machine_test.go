package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

func TestOpenOfNothing(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	index, term := h.m.Applied()
	require.Zero(t, index)
	require.Zero(t, term)
	conf, confIndex := h.m.Configuration()
	require.Nil(t, conf)
	require.Zero(t, confIndex)
	require.Zero(t, h.m.Stats())
	outcomes, err := h.m.Apply(nil)
	require.NoError(t, err)
	require.Empty(t, outcomes)
	h.check()
}

func TestAppliedPositionIsStored(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	put := EncodeCommand(nil, epoch, PutOp(&rpc.PutRequest{Key: "c"}))
	tomb := EncodeCommand(nil, epoch, TombstoneOp("c"))
	outcomes, err := h.m.Apply([]Entry{
		{Index: 3, Term: 2, Kind: KindConfiguration, Data: []byte("first")},
		{Index: 5, Term: 2, Data: put},
		{Index: 5, Term: 2, Data: tomb}, // not above the applied index: skipped
		{Index: 4, Term: 2, Data: tomb},
		{Index: 9, Term: 3, Kind: KindConfiguration, Data: []byte("second")},
	})
	require.NoError(t, err)
	require.Len(t, outcomes, 5)
	require.Nil(t, outcomes[0])
	require.Len(t, outcomes[1], 1)
	require.Nil(t, outcomes[2])
	require.Nil(t, outcomes[3])
	for range 2 {
		index, term := h.m.Applied()
		require.EqualValues(t, 9, index)
		require.EqualValues(t, 3, term)
		conf, confIndex := h.m.Configuration()
		require.Equal(t, "second", string(conf))
		require.EqualValues(t, 9, confIndex)
		require.False(t, h.conversation("c").Tombstoned)
		h.reopen(Options{})
	}
}

func TestOpenRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	row, _, err := getRow(h.db, nil, h.m.metaKey)
	require.NoError(t, err)
	require.EqualValues(t, metaFormat, row[0], "the format of data that is not being restored is the first one")
	row[0] = restoringFormat + 1
	require.NoError(t, h.db.Set(h.m.metaKey, row, nil))
	_, err = Open(h.db, h.group, Options{})
	require.ErrorContains(t, err, "format 3")
	require.NoError(t, h.db.Set(h.m.metaKey, row[:10], nil))
	_, err = Open(h.db, h.group, Options{})
	require.Error(t, err)
	row[0] = metaFormat
	require.NoError(t, h.db.Set(h.m.metaKey, row[:10], nil))
	_, err = Open(h.db, h.group, Options{})
	require.ErrorIs(t, err, rpc.ErrCorrupt)
	require.NoError(t, h.db.Set(h.m.metaKey, row, nil))
	require.NoError(t, h.db.Set(metaKey(h.group, kindConfiguration), []byte("short"), nil))
	_, err = Open(h.db, h.group, Options{})
	require.ErrorIs(t, err, rpc.ErrCorrupt)
	require.NoError(t, h.db.Delete(metaKey(h.group, kindConfiguration), nil))
	require.NoError(t, h.db.Set(stagingKey(h.group, 1), []byte{1}, nil))
	_, err = Open(h.db, h.group, Options{})
	require.ErrorIs(t, err, rpc.ErrCorrupt, "it must not reap what is live")
}

// What an interrupted install left is deleted, and its generation is not used
// again by this process.
func TestOpenReapsStagedGenerations(t *testing.T) {
	t.Parallel()
	source := filled(t)
	defer source.close()
	stream := snapshotBytes(t, source.m)
	h := setup(t, Options{})
	h.put("c", "")
	before := h.hash()
	for range 3 {
		in, err := h.m.NewInstaller()
		require.NoError(t, err)
		_, err = in.Write(stream)
		require.NoError(t, err)
		require.NoError(t, in.batch.Close())
	}
	h.reopen(Options{})
	requireOneGeneration(t, h.m)
	require.Equal(t, before, h.hash())
	require.EqualValues(t, 4, h.m.lastGeneration)
}

// Groups of one database do not touch each other.
func TestGroupsAreApart(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	h.put("c", "")
	before := h.hash()
	for _, group := range []uint16{0, 6, 8, 255, 0xffff} {
		m, err := Open(h.db, group, Options{})
		require.NoError(t, err)
		_, err = m.Apply([]Entry{{Index: 1, Term: 1, Data: EncodeCommand(nil, epoch, PutOp(&rpc.PutRequest{Key: "c"}),
			AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("a", "x")}}))}})
		require.NoError(t, err)
		require.NoError(t, m.Close())
	}
	require.Equal(t, before, h.hash())
	for _, group := range []uint16{6, 8, 0xffff} {
		b := h.db.NewBatch()
		require.NoError(t, Wipe(b, group))
		require.NoError(t, b.Commit(pebble.Sync))
		m, err := Open(h.db, group, Options{})
		require.NoError(t, err)
		index, _ := m.Applied()
		require.Zero(t, index)
		list, err := m.List("", "", 10)
		require.NoError(t, err)
		require.Empty(t, list)
		requireOneGeneration(t, m)
		require.NoError(t, m.Close())
	}
	require.Equal(t, before, h.hash())
	m, err := Open(h.db, 255, Options{})
	require.NoError(t, err)
	_, err = m.Conversation("c")
	require.NoError(t, err)
	require.NoError(t, m.Close())
}

// The hook learns of every message and tombstone once, in order, after readers
// can see it.
func TestOnCommit(t *testing.T) {
	t.Parallel()
	var seen []string
	var h *harness
	h = setup(t, Options{OnCommit: func(list []Committed) {
		for _, c := range list {
			conv := h.conversation(c.Key)
			for _, m := range c.Messages {
				require.LessOrEqual(t, m.Seq, conv.LastSeq)
				page, err := h.m.Messages(c.Key, m.Seq, 1, 0)
				require.NoError(t, err)
				require.Equal(t, page.Messages[0], m)
				seen = append(seen, fmt.Sprintf("%s %d v%d", c.Key, m.Seq, m.Version))
			}
			if c.Tombstoned {
				seen = append(seen, fmt.Sprintf("%s tombstone", c.Key))
			}
		}
	}})
	appendTo := func(key rpc.Key, messages ...rpc.NewMessage) Op {
		return AppendOp(&rpc.AppendRequest{Key: key, Messages: messages})
	}
	h.put("a", "")
	h.put("b", "")
	require.Empty(t, seen)
	outcomes, err := h.m.Apply([]Entry{
		h.entry(appendTo("b", text("x", "1"), text("", "2")), appendTo("a", text("", "1"))),
		h.entry(appendTo("missing", text("", "1")), appendTo("b", text("x", "1")), ArchiveAckOp(&ArchiveAck{})),
		h.entry(appendTo("b", text("", "3")), TombstoneOp("b"), TombstoneOp("b"), appendTo("b", text("", "4"))),
	})
	require.NoError(t, err)
	require.Len(t, outcomes, 3)
	require.Equal(t, []string{"b 1 v1", "b 2 v1", "b 3 v2", "b tombstone", "a 1 v1"}, seen)
	seen = nil
	h.apply(TombstoneOp("b"))
	require.Empty(t, seen)
	h.apply(TombstoneOp("a"))
	require.Equal(t, []string{"a tombstone"}, seen)
}

// One Apply of more than a batch holds commits several, each of whole entries.
func TestLargeApplyIsSplit(t *testing.T) {
	t.Parallel()
	commits := 0
	h := setup(t, Options{OnCommit: func([]Committed) { commits++ }})
	h.put("c", "")
	var entries []Entry
	for range 10 {
		entries = append(entries, h.entry(AppendOp(&rpc.AppendRequest{Key: "c", Messages: make1(1000)})))
	}
	_, err := h.m.Apply(entries)
	require.NoError(t, err)
	require.Equal(t, 2, commits)
	require.EqualValues(t, 10_000, h.conversation("c").LastSeq)
	h.check()
}

func TestHashEndsWithItsContext(t *testing.T) {
	t.Parallel()
	h := setup(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err := h.m.Hash(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// The stored format, and what commands do to it, stay what they are: a change
// here needs a new format or command version.
func TestStoredFormatIsFixed(t *testing.T) {
	t.Parallel()
	h := filled(t)
	defer h.close()
	require.NoError(t, h.ack("c", 4, 2, 0))
	require.NoError(t, h.apply(TombstoneOp("d"))[0].Err)
	sum := h.hash()
	require.Equal(t, "d4487e6f83a67ed9cf7aea4710c078fa48e767329cae69f8cc829ebcb20f8d83", hex.EncodeToString(sum[:]))
	sum = sha256.Sum256(EncodeCommand(nil, epoch, sampleOps()...))
	require.Equal(t, "957804abe83468fca295155c4dd90a44aeefd17e7a37642f944842963f674d17", hex.EncodeToString(sum[:]))
}

func TestKeysAreOrdered(t *testing.T) {
	t.Parallel()
	ks := keyspace{group: 1, generation: 2}
	require.Less(t, string(ks.message(nil, 1, 255)), string(ks.message(nil, 1, 256)))
	require.Less(t, string(ks.message(nil, 1, 1<<63)), string(ks.message(nil, 2, 1)))
	require.Equal(t, []byte{1, 3}, successor([]byte{1, 2, 0xff}))
	require.Nil(t, successor([]byte{0xff, 0xff}))
	lower, upper := keyspace{group: 1, generation: 0xffffffff}.span(storage.SpaceMessage)
	require.Less(t, string(lower), string(upper))
	require.Less(t, string(upper), string(keyspace{group: 2, generation: 1}.prefix(nil, storage.SpaceMessage))+"\x00")
}
