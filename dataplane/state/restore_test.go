package state

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// restoreSteps cuts a stream into the steps of a restore, of at most so many
// bytes of rows if a row is not larger. Records come last.
func restoreSteps(t fataler, stream []byte, most int) []*rpc.RestoreRequest {
	t.Helper()
	var steps []*rpc.RestoreRequest
	step := &rpc.RestoreRequest{}
	rows := uint64(0)
	var s *StreamReader
	for _, records := range []bool{false, true} {
		var err error
		s, err = NewStreamReader(bytes.NewReader(stream), 7)
		require.NoError(t, err)
		step.Numbers = s.Numbers()
		for {
			row, err := s.Next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			if row.IsRecord() != records {
				continue
			}
			before := len(step.Rows)
			step.Rows = row.AppendTo(step.Rows)
			if before > 0 && len(step.Rows) > most {
				one := slices.Clone(step.Rows[before:])
				step.Rows = step.Rows[:before]
				steps = append(steps, step)
				step = &rpc.RestoreRequest{After: rows, Numbers: s.Numbers(), Rows: one}
			}
			rows++
		}
		// Two kinds of rows are not in one order.
		if len(step.Rows) > 0 && !records {
			steps = append(steps, step)
			step = &rpc.RestoreRequest{After: rows, Numbers: s.Numbers()}
		}
	}
	total := s.State()
	step.Total = &total
	return append(steps, step)
}

func (h *harness) restoreEntry(req *rpc.RestoreRequest) Entry {
	h.t.Helper()
	data, err := EncodeRestore(nil, req)
	require.NoError(h.t, err)
	e := Entry{Index: uint64(len(h.log)) + 1, Term: 1, Data: data}
	h.log = append(h.log, e)
	return e
}

func (h *harness) restore(req *rpc.RestoreRequest) *rpc.RestoreReply {
	h.t.Helper()
	outcomes, err := h.m.Apply([]Entry{h.restoreEntry(req)})
	require.NoError(h.t, err)
	require.Len(h.t, outcomes[0], 1)
	require.NoError(h.t, outcomes[0][0].Err)
	return outcomes[0][0].Reply.(*rpc.RestoreReply)
}

func TestRestoreIsEqual(t *testing.T) {
	t.Parallel()
	source := filled(t)
	defer source.close()
	stream := snapshotBytes(t, source.m)
	for _, most := range []int{1, 100, 1 << 20} {
		resets := 0
		h := setup(t, Options{OnReset: func() { resets++ }})
		steps := restoreSteps(t, stream, most)
		for i, step := range steps {
			reply := h.restore(step)
			require.True(t, reply.Taken, reply.Refused)
			again := h.restore(step)
			if i < len(steps)-1 || len(step.Rows) > 0 {
				require.False(t, again.Taken, "a step that is repeated happens once")
			}
			require.Equal(t, i < len(steps)-1, reply.State.Restoring)
			h.reopen(h.m.opts)
			at := h.m.GroupState()
			require.Equal(t, i < len(steps)-1, at.Restoring)
			s, err := NewStreamReader(bytes.NewReader(stream), 7)
			require.NoError(t, err)
			s.HashAs(at)
			drain(t, s)
			require.Equal(t, h.hash(), s.Hash(), "what is there so far is known from the stream")
		}
		require.Equal(t, 1, resets)
		h.check()
		require.Equal(t, source.conversation("c"), h.conversation("c"))
		require.Equal(t, source.conversation("d"), h.conversation("d"))
		// The epoch is the cluster's own.
		require.Zero(t, h.m.Stats().ArchiveEpoch)
		s, err := NewStreamReader(bytes.NewReader(stream), 7)
		require.NoError(t, err)
		s.HashAs(rpc.GroupState{})
		drain(t, s)
		require.Equal(t, h.hash(), s.Hash())
		require.NoError(t, h.ack("d", 3, 10, 2))
		require.Equal(t, source.hash(), h.hash())
		// Numbers, ids and keys go on where they were.
		before := h.conversation("c").LastSeq
		require.True(t, h.append("c", text("b", "x"), text("a", "second")).Messages[1].Duplicate)
		require.EqualValues(t, before+1, h.conversation("c").LastSeq)
		h.put("new", "")
		h.append("new", text("", "x"))
		h.check()
	}
}

func drain(t fataler, s *StreamReader) {
	t.Helper()
	for {
		if _, err := s.Next(); err == io.EOF {
			return
		} else {
			require.NoError(t, err)
		}
	}
}

// Nothing else is written meanwhile, and what is there is there whole.
func TestRestoreKeepsOthersOut(t *testing.T) {
	t.Parallel()
	source := filled(t)
	defer source.close()
	steps := restoreSteps(t, snapshotBytes(t, source.m), 100)
	h := setup(t, Options{})
	for _, step := range steps[:len(steps)-1] {
		require.True(t, h.restore(step).Taken)
		for _, op := range []Op{
			PutOp(&rpc.PutRequest{Key: "new"}), AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("", "x")}}),
			TombstoneOp("c"), ArchiveAckOp(&ArchiveAck{Epoch: 9}),
		} {
			require.ErrorIs(t, h.apply(op)[0].Err, rpc.ErrUnavailable)
		}
		h.checkVisible()
		s, err := h.m.OpenSnapshot()
		require.NoError(t, err)
		require.True(t, s.meta.restoring, "who gets a snapshot goes on with the restore")
		require.NoError(t, s.Close())
	}
	require.True(t, h.restore(steps[len(steps)-1]).Taken)
	h.check()
}

// checkVisible reads all that can be found.
func (h *harness) checkVisible() {
	h.t.Helper()
	convs, err := h.m.List("", "", maxList)
	require.NoError(h.t, err)
	for _, c := range convs {
		checkChain(h.t, h.m, c)
	}
	checkStream(h.t, h.m)
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	source := filled(t)
	defer source.close()
	steps := restoreSteps(t, snapshotBytes(t, source.m), 100)
	first, last := steps[0], steps[len(steps)-1]

	full := setup(t, Options{})
	full.put("old", "")
	before := full.hash()
	require.Contains(t, full.restore(first).Refused, "holds conversations")
	require.Contains(t, full.restore(steps[1]).Refused, "other rows")
	at := *first
	at.After = full.m.Stats().Rows
	require.Contains(t, full.restore(&at).Refused, "other rows")
	require.Equal(t, before, full.hash())

	h := setup(t, Options{})
	require.Contains(t, h.restore(steps[1]).Refused, "other rows")
	require.True(t, h.restore(first).Taken)
	before = h.hash()
	other := *steps[1]
	other.Numbers++
	require.Contains(t, h.restore(&other).Refused, "another restore")
	for name, rows := range map[string][]byte{
		"cut": steps[1].Rows[:len(steps[1].Rows)-1], "twice": slices.Concat(steps[1].Rows, steps[1].Rows), "space": {9, 1, 1, 1, 1}, "nothing": {0},
	} {
		bad := *steps[1]
		bad.Rows = rows
		require.Contains(t, h.restore(&bad).Refused, "malformed", name)
	}
	early := *steps[1]
	early.Total = last.Total
	require.Contains(t, h.restore(&early).Refused, "add up")
	require.Equal(t, before, h.hash())
	_, err := EncodeRestore(nil, &rpc.RestoreRequest{Rows: make([]byte, maxRestoreBytes+1)})
	require.ErrorIs(t, err, ErrInvalidOp)
}

// However entries are put together, replicas are equal.
func TestRestoreIsDeterministic(t *testing.T) {
	t.Parallel()
	source := filled(t)
	defer source.close()
	stream := snapshotBytes(t, source.m)
	rapid.Check(t, func(t *rapid.T) {
		one, many := newHarness(t, Options{}), newHarness(t, Options{})
		defer one.close()
		defer many.close()
		steps := restoreSteps(t, stream, rapid.SampledFrom([]int{1, 300, 1 << 20}).Draw(t, "most"))
		steps = append(steps, steps...)
		slices.SortStableFunc(steps, func(a, b *rpc.RestoreRequest) int { return int(a.After) - int(b.After) })
		for len(steps) > 0 {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				one.entry(PutOp(&rpc.PutRequest{Key: rapid.SampledFrom([]rpc.Key{"c", "x"}).Draw(t, "key")}), TombstoneOp("d"))
			case 1:
				one.entry(AppendOp(&rpc.AppendRequest{Key: "c", Messages: []rpc.NewMessage{text("a", "z")}}))
			default:
				one.restoreEntry(steps[0])
				steps = steps[1:]
			}
		}
		var outcomes [][]Outcome
		for _, e := range one.log {
			got, err := one.m.Apply([]Entry{e})
			require.NoError(t, err)
			outcomes = append(outcomes, got...)
		}
		got, err := many.m.Apply(one.log)
		require.NoError(t, err)
		require.Equal(t, outcomes, got)
		require.Equal(t, one.hash(), many.hash())
		one.checkVisible()
	})
}

func TestStreamReader(t *testing.T) {
	t.Parallel()
	h := filled(t)
	defer h.close()
	stream := snapshotBytes(t, h.m)
	s, err := NewStreamReader(iotest.OneByteReader(bytes.NewReader(stream)), 7)
	require.NoError(t, err)
	require.Equal(t, h.m.GroupState(), s.State())
	drain(t, s)
	require.Equal(t, h.hash(), s.Hash())

	_, err = NewStreamReader(bytes.NewReader(stream), 8)
	require.ErrorIs(t, err, ErrBadSnapshot)
	require.ErrorIs(t, readAll(append(bytes.Clone(stream), 0)), ErrBadSnapshot)
	for at := 0; at < len(stream); at += 97 {
		damaged := bytes.Clone(stream)
		damaged[at] ^= 0x10
		require.Error(t, readAll(damaged), at)
		require.ErrorIs(t, readAll(stream[:at]), ErrBadSnapshot)
	}
	gone := errors.New("gone")
	require.ErrorIs(t, readFrom(io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), iotest.ErrReader(gone))), gone)
}

func readAll(stream []byte) error { return readFrom(bytes.NewReader(stream)) }

func readFrom(r io.Reader) error {
	s, err := NewStreamReader(r, 7)
	for err == nil {
		_, err = s.Next()
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// What is read as a stream is what an Installer would take.
func FuzzStreamReader(f *testing.F) {
	h := newHarness(f, Options{})
	h.put("c", "")
	h.fill("c", 2)
	f.Add(snapshotBytes(f, h.m))
	f.Add([]byte(streamMagic))
	f.Cleanup(h.close)
	f.Fuzz(func(t *testing.T, stream []byte) {
		err := readAll(stream)
		in, installErr := h.m.NewInstaller()
		require.NoError(t, installErr)
		_, installErr = in.Write(stream)
		if installErr == nil {
			installErr = in.Verify()
		}
		require.NoError(t, in.Abort())
		require.Equal(t, installErr == nil, err == nil, "%v, %v", installErr, err)
	})
}
