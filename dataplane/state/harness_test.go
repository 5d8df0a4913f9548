package state

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fataler is what *testing.T, *testing.B, *testing.F and *rapid.T share.
type fataler interface {
	require.TestingT
	Helper()
	Fatalf(string, ...any)
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func mustOpenDB(t fataler, fs vfs.FS) *pebble.DB {
	t.Helper()
	db, err := pebble.Open("db", &pebble.Options{
		FS: fs, Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 1 << 20,
		// By default corruption ends the process.
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	})
	require.NoError(t, err)
	return db
}

// harness is a machine with a log of what was applied to it.
type harness struct {
	t     fataler
	db    *pebble.DB
	m     *Machine
	group uint16
	log   []Entry
	clock time.Time
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 123456000, time.UTC)

func newHarness(t fataler, opts Options) *harness {
	t.Helper()
	db := mustOpenDB(t, vfs.NewMem())
	m, err := Open(db, 7, opts)
	require.NoError(t, err)
	return &harness{t: t, db: db, m: m, group: 7, clock: epoch}
}

func (h *harness) close() {
	require.NoError(h.t, h.m.Close())
	require.NoError(h.t, h.db.Close())
}

// setup returns a harness that the test closes.
func setup(t testing.TB, opts Options) *harness {
	h := newHarness(t, opts)
	t.Cleanup(h.close)
	return h
}

// entry adds a command to the log, one second after the one before.
func (h *harness) entry(ops ...Op) Entry {
	h.clock = h.clock.Add(time.Second)
	e := Entry{Index: uint64(len(h.log)) + 1, Term: 1, Data: EncodeCommand(nil, h.clock, ops...)}
	h.log = append(h.log, e)
	return e
}

// apply applies one command and returns its outcomes.
func (h *harness) apply(ops ...Op) []Outcome {
	h.t.Helper()
	outcomes, err := h.m.Apply([]Entry{h.entry(ops...)})
	require.NoError(h.t, err)
	require.Len(h.t, outcomes, 1)
	require.Len(h.t, outcomes[0], len(ops))
	return outcomes[0]
}

func (h *harness) put(key rpc.Key, metadata string) *rpc.PutReply {
	h.t.Helper()
	req := &rpc.PutRequest{Key: key}
	if metadata != "" {
		req.Metadata = []byte(metadata)
	}
	out := h.apply(PutOp(req))[0]
	require.NoError(h.t, out.Err)
	return out.Reply.(*rpc.PutReply)
}

func (h *harness) tryAppend(req *rpc.AppendRequest) (*rpc.AppendReply, error) {
	h.t.Helper()
	out := h.apply(AppendOp(req))[0]
	if out.Err != nil {
		require.Nil(h.t, out.Reply)
		return nil, out.Err
	}
	return out.Reply.(*rpc.AppendReply), nil
}

func (h *harness) append(key rpc.Key, messages ...rpc.NewMessage) *rpc.AppendReply {
	h.t.Helper()
	reply, err := h.tryAppend(&rpc.AppendRequest{Key: key, Messages: messages})
	require.NoError(h.t, err)
	return reply
}

// fill appends n messages without ids, one per append.
func (h *harness) fill(key rpc.Key, n int) {
	h.t.Helper()
	for i := range n {
		h.append(key, text("", fmt.Sprintf("message %d", i)))
	}
}

func (h *harness) ack(key rpc.Key, epoch, seq, keep uint64) error {
	h.t.Helper()
	return h.apply(ArchiveAckOp(&ArchiveAck{Epoch: epoch, Keep: keep, Watermarks: []Watermark{{key, seq}}}))[0].Err
}

func (h *harness) conversation(key rpc.Key) rpc.Conversation {
	h.t.Helper()
	c, err := h.m.Conversation(key)
	require.NoError(h.t, err)
	return c
}

func (h *harness) hash() [32]byte {
	h.t.Helper()
	return mustHash(h.t, h.m)
}

func mustHash(t fataler, m *Machine) [32]byte {
	t.Helper()
	sum, index, err := m.Hash(context.Background())
	require.NoError(t, err)
	applied, _ := m.Applied()
	require.Equal(t, applied, index)
	return sum
}

// reopen opens the machine again on what is stored.
func (h *harness) reopen(opts Options) {
	h.t.Helper()
	require.NoError(h.t, h.m.Close())
	var err error
	h.m, err = Open(h.db, h.group, opts)
	require.NoError(h.t, err)
}

// check verifies what must hold of any state: dense sequences, the hash chain,
// and the counters of the meta row.
func (h *harness) check() {
	h.t.Helper()
	convs, err := h.m.List("", "", maxList)
	require.NoError(h.t, err)
	stats := h.m.Stats()
	require.EqualValues(h.t, len(convs), stats.Conversations)
	var messages uint64
	for _, c := range convs {
		messages += c.LastSeq - c.FirstSeq + 1
		require.LessOrEqual(h.t, c.FirstSeq, c.ArchivedSeq+1)
		require.LessOrEqual(h.t, c.ArchivedSeq, c.LastSeq)
		checkChain(h.t, h.m, c)
	}
	require.Equal(h.t, messages, stats.Messages)
	checkStream(h.t, h.m)
}

// checkChain recomputes the head from what is still hot.
func checkChain(t fataler, m *Machine, c rpc.Conversation) {
	t.Helper()
	if c.FirstSeq > 1 && c.FirstSeq > c.LastSeq {
		return
	}
	head := [32]byte{}
	for from := c.FirstSeq; from <= c.LastSeq; {
		page, err := m.Messages(c.Key, from, 1000, 0)
		require.NoError(t, err)
		require.NotEmpty(t, page.Messages)
		for _, msg := range page.Messages {
			require.Equal(t, from, msg.Seq)
			if from == c.FirstSeq && from > 1 {
				head = storedHash(t, m, c.Key, from)
			} else {
				head = Chain(head, from, msg.JSON)
			}
			from++
		}
	}
	require.Equal(t, c.Head, head)
}

func storedHash(t fataler, m *Machine, key rpc.Key, seq uint64) (sum [32]byte) {
	t.Helper()
	rec, found, err := m.read(string(key))
	require.NoError(t, err)
	require.True(t, found)
	row, found, err := getRow(m.db, nil, m.keys.message(nil, rec.num, seq))
	require.NoError(t, err)
	require.True(t, found)
	copy(sum[:], row[1:33])
	return sum
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// checkStream streams the state, which compares the rows with the counters.
func checkStream(t fataler, m *Machine) {
	t.Helper()
	s, err := m.OpenSnapshot()
	require.NoError(t, err)
	var n counter
	_, err = s.WriteTo(&n)
	require.NoError(t, err)
	require.EqualValues(t, s.Size(), n)
	require.NoError(t, s.Close())
}

// text returns a message with a body and, when not empty, an id.
func text(id, body string) rpc.NewMessage {
	m := rpc.NewMessage{TokenCount: uint64(len(body) / 4)}
	core := fmt.Sprintf(`"role":"user","parts":[{"type":"text","text":%q}],"metadata":{}`, body)
	content := core + fmt.Sprintf(`,"token_count":%d`, m.TokenCount)
	if id != "" {
		m.ID = id
		m.Digest = sha256.Sum256([]byte(core))
		content = fmt.Sprintf(`"id":%q,`, id) + content
	}
	m.Content = []byte(content)
	return m
}

func seqs(page rpc.Page) []uint64 {
	list := []uint64{}
	for _, m := range page.Messages {
		list = append(list, m.Seq)
	}
	return list
}

func ptr[T any](v T) *T { return &v }
