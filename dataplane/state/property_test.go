package state

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// history is a random log with the outcomes that the model says it has.
type history struct {
	entries  []Entry
	outcomes [][]Outcome
	model    *model
}

var (
	propertyKeys = []rpc.Key{"a", "ab", "b\x00", "\xff\xff", "absent"}
	longMetadata = []byte(`{"note":"` + strings.Repeat("n", 400) + `"}`)
)

func drawMessage(t *rapid.T) rpc.NewMessage {
	id := ""
	if n := rapid.IntRange(0, 4).Draw(t, "id"); n > 0 {
		id = fmt.Sprintf("m%d", n)
	}
	body := rapid.SampledFrom([]string{"x", "y", "hello"}).Draw(t, "body")
	return text(id, body)
}

func drawAppend(t *rapid.T, key rpc.Key) Op {
	req := &rpc.AppendRequest{Key: key}
	for range rapid.IntRange(1, 4).Draw(t, "messages") {
		req.Messages = append(req.Messages, drawMessage(t))
	}
	if rapid.IntRange(0, 3).Draw(t, "guard") == 0 {
		req.IfVersion = ptr(rapid.Uint64Range(0, 6).Draw(t, "if_version"))
	}
	if n := rapid.IntRange(0, 6).Draw(t, "key"); n > 3 {
		req.IdempotencyKey = fmt.Sprintf("k%d", n)
		req.BodyDigest = sha256.Sum256([]byte{byte(rapid.IntRange(0, 1).Draw(t, "digest"))})
	}
	return AppendOp(req)
}

func drawOp(t *rapid.T) Op {
	key := rapid.SampledFrom(propertyKeys).Draw(t, "conversation")
	switch n := rapid.IntRange(0, 99).Draw(t, "op"); {
	case n < 50:
		return drawAppend(t, key)
	case n < 75:
		req := &rpc.PutRequest{Key: key}
		switch rapid.IntRange(0, 3).Draw(t, "metadata") {
		case 1:
			req.Metadata = []byte(`{"a":1}`)
		case 2:
			req.Metadata = longMetadata
		case 3:
			req.Metadata = append([]byte(nil), longMetadata[:300]...)
		}
		if key == "absent" {
			return TombstoneOp(key)
		}
		return PutOp(req)
	case n < 77:
		return TombstoneOp(key)
	case n < 78:
		return TombstoneOp("") // invalid
	}
	ack := &ArchiveAck{
		Epoch: rapid.Uint64Range(1, 3).Draw(t, "epoch"),
		Keep:  rapid.Uint64Range(0, 5).Draw(t, "keep"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "watermarks") {
		ack.Watermarks = append(ack.Watermarks, Watermark{
			Key: rapid.SampledFrom(propertyKeys).Draw(t, "archived"),
			Seq: rapid.Uint64Range(0, 12).Draw(t, "watermark"),
		})
	}
	return ArchiveAckOp(ack)
}

func drawHistory(t *rapid.T) *history {
	h := &history{model: newModel()}
	at := epoch
	var index uint64
	for range rapid.IntRange(1, 25).Draw(t, "entries") {
		index += rapid.Uint64Range(1, 3).Draw(t, "index step")
		if rapid.IntRange(0, 19).Draw(t, "kind") == 0 {
			h.entries = append(h.entries, Entry{Index: index, Term: 2, Kind: KindConfiguration, Data: []byte{byte(index)}})
			h.outcomes = append(h.outcomes, nil)
			continue
		}
		at = at.Add(time.Duration(rapid.Int64Range(-2_000_000, 5_000_000).Draw(t, "clock")) * time.Microsecond)
		var ops []Op
		for range rapid.IntRange(1, 5).Draw(t, "ops") {
			ops = append(ops, drawOp(t))
		}
		h.add(index, at, ops...)
	}
	return h
}

func (h *history) add(index uint64, at time.Time, ops ...Op) {
	var outcomes []Outcome
	for _, op := range ops {
		outcomes = append(outcomes, h.model.apply(index, at, op))
	}
	h.entries = append(h.entries, Entry{Index: index, Term: 2, Data: EncodeCommand(nil, at, ops...)})
	h.outcomes = append(h.outcomes, outcomes)
}

// bulkHistory appends more to one conversation than is remembered of it, trims
// most of it, and repeats ids, contents and keys from everywhere.
func bulkHistory(rng *rand.Rand) *history {
	h := &history{model: newModel()}
	h.add(1, epoch, PutOp(&rpc.PutRequest{Key: "a"}), PutOp(&rpc.PutRequest{Key: "b"}))
	next := 0
	for index := uint64(2); index < 16; index++ {
		var ops []Op
		for range 1 + rng.IntN(5) {
			last := h.model.convs["a"].LastSeq + uint64(len(ops))*1000
			switch rng.IntN(5) {
			case 0, 1:
				ops = append(ops, bulkAppend(rng, &next, 500+rng.IntN(2500)))
			case 2:
				ops = append(ops, bulkAppend(rng, &next, 1+rng.IntN(3)))
			default:
				seq := last - min(last, uint64(rng.IntN([]int{3000, 20_000}[rng.IntN(2)])))
				ops = append(ops, ArchiveAckOp(&ArchiveAck{Keep: uint64(rng.IntN(100)), Watermarks: []Watermark{{"a", seq}}}))
			}
		}
		h.add(index, epoch, ops...)
	}
	return h
}

func bulkAppend(rng *rand.Rand, next *int, n int) Op {
	req := &rpc.AppendRequest{Key: "a"}
	for range n {
		switch *next++; rng.IntN(8) {
		case 0:
			req.Messages = append(req.Messages, text(fmt.Sprintf("m%d", *next), "new"))
		case 1:
			req.Messages = append(req.Messages, text(fmt.Sprintf("m%d", rng.IntN(*next)), "old"))
		case 2:
			req.Messages = append(req.Messages, text(fmt.Sprintf("m%d", rng.IntN(*next)), "new"))
		default:
			req.Messages = append(req.Messages, text("", "none"))
		}
	}
	if rng.IntN(2) == 0 {
		req.IdempotencyKey = fmt.Sprintf("key%d", rng.IntN(10))
		req.BodyDigest = sha256.Sum256([]byte{byte(rng.IntN(2))})
	}
	return AppendOp(req)
}

// requireOutcomes compares what a machine answered with what the model says.
func requireOutcomes(t fataler, want, got []Outcome) {
	require.Len(t, got, len(want))
	for i := range want {
		var conflict *rpc.VersionConflictError
		if errors.As(want[i].Err, &conflict) {
			require.Equal(t, want[i].Err, got[i].Err)
		} else {
			require.ErrorIs(t, got[i].Err, want[i].Err)
		}
		w, isAppend := want[i].Reply.(*rpc.AppendReply)
		g, _ := got[i].Reply.(*rpc.AppendReply)
		if isAppend && g != nil && slices.Equal(w.Messages, g.Messages) { // long, and slow to compare otherwise
			wc, gc := *w, *g
			wc.Messages, gc.Messages = nil, nil
			require.Equal(t, wc, gc)
			continue
		}
		require.Equal(t, want[i].Reply, got[i].Reply)
	}
}

// requireModel compares everything that can be read.
func requireModel(t fataler, want *model, m *Machine) {
	var keys []string
	for key := range want.convs {
		keys = append(keys, string(key))
	}
	sort.Strings(keys)
	list, err := m.List("", "", 0x7fffffff)
	require.NoError(t, err)
	require.Len(t, list, len(keys))
	for i, key := range keys {
		c := want.convs[rpc.Key(key)]
		require.Equal(t, c.Conversation, list[i])
		got, err := m.Conversation(c.Key)
		require.NoError(t, err)
		require.Equal(t, c.Conversation, got)
		rec, _, err := m.read(key)
		require.NoError(t, err)
		require.Equal(t, c.floor, rec.floor)
		for from := c.FirstSeq; from <= c.LastSeq; {
			page, err := m.Messages(c.Key, from, 700, 0)
			require.NoError(t, err)
			require.NotEmpty(t, page.Messages)
			for _, x := range page.Messages {
				require.True(t, x.Seq == from && x.Version == c.messages[from-1].Version &&
					bytes.Equal(x.JSON, c.messages[from-1].JSON), "message %d: %s", from, x.JSON)
				from++
			}
		}
	}
}

func (h *history) run(t fataler, m *Machine, from, to int) {
	if from == to {
		return
	}
	outcomes, err := m.Apply(h.entries[from:to])
	require.NoError(t, err)
	require.Len(t, outcomes, to-from)
	for i := range outcomes {
		requireOutcomes(t, h.outcomes[from+i], outcomes[i])
	}
}

// Every way to reach an applied index gives the answers of the model and the
// same bytes: one entry at a time, random batches, reopening and applying again
// from an earlier index, and a snapshot in the middle.
func TestMachineEqualsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		checkHistory(t, drawHistory(t), func(low, high int, name string) int {
			return rapid.IntRange(low, high).Draw(t, name)
		})
	})
}

// The same beyond what is remembered of ids and keys.
func TestMachineEqualsModelWhenForgetting(t *testing.T) {
	t.Parallel()
	forgotten, seeds := uint64(0), uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := bulkHistory(rng)
		forgotten = max(forgotten, h.model.convs["a"].floor)
		checkHistory(t, h, func(low, high int, _ string) int { return low + rng.IntN(high-low+1) })
	}
	require.Greater(t, forgotten, uint64(2000), "the test forgets nothing")
}

func checkHistory(t fataler, h *history, draw func(low, high int, name string) int) {
	single := newHarness(t, Options{})
	defer single.close()
	for i := range h.entries {
		h.run(t, single.m, i, i+1)
	}
	requireModel(t, h.model, single.m)
	single.check()
	want := single.hash()

	batched := newHarness(t, Options{Cache: NewCache(0)})
	defer batched.close()
	for at := 0; at < len(h.entries); {
		n := draw(1, len(h.entries)-at, "batch")
		h.run(t, batched.m, at, at+n)
		at += n
	}
	require.Equal(t, want, batched.hash(), "batches")

	reopened := newHarness(t, Options{})
	defer reopened.close()
	cut := draw(0, len(h.entries), "cut")
	h.run(t, reopened.m, 0, cut)
	reopened.reopen(Options{})
	again := draw(0, cut, "again")
	outcomes, err := reopened.m.Apply(h.entries[again:])
	require.NoError(t, err)
	for i := range outcomes {
		if again+i < cut {
			require.Nil(t, outcomes[i], "an applied entry")
		} else {
			requireOutcomes(t, h.outcomes[again+i], outcomes[i])
		}
	}
	require.Equal(t, want, reopened.hash(), "reopened")

	source := newHarness(t, Options{})
	defer source.close()
	h.run(t, source.m, 0, cut)
	installed := newHarness(t, Options{})
	defer installed.close()
	h.run(t, installed.m, 0, again)
	transfer(t, source.m, installed.m, draw(1, 100_000, "chunk"))
	h.run(t, installed.m, cut, len(h.entries))
	require.Equal(t, want, installed.hash(), "installed")
	requireModel(t, h.model, installed.m)
	wantConf, wantIndex := single.m.Configuration()
	conf, confIndex := installed.m.Configuration()
	require.Equal(t, wantIndex, confIndex)
	require.Equal(t, wantConf, conf)
}

// transfer installs the state of one machine in another.
func transfer(t fataler, from, to *Machine, chunk int) {
	t.Helper()
	in, err := to.NewInstaller()
	require.NoError(t, err)
	stream := snapshotBytes(t, from)
	for len(stream) > 0 {
		n := min(chunk, len(stream))
		wrote, err := in.Write(stream[:n])
		require.NoError(t, err)
		require.Equal(t, n, wrote)
		stream = stream[n:]
	}
	require.NoError(t, in.Commit(nil))
	require.NoError(t, in.Abort()) // nothing to do any more
}

func snapshotBytes(t fataler, m *Machine) []byte {
	t.Helper()
	s, err := m.OpenSnapshot()
	require.NoError(t, err)
	var b bytes.Buffer
	_, err = s.WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, s.Size(), b.Len())
	require.NoError(t, s.Close())
	return b.Bytes()
}
