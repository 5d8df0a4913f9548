package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machines is a cluster of real state machines without Raft: one log each, of
// which every entry is committed at once.
type machines struct {
	t testing.TB
	// fail, when not nil, may fail a call of a method about a group, before it has
	// done anything or, with after, when it is done.
	fail func(method string, group rpc.Group, after bool) error

	mu    sync.Mutex // guards what follows
	all   [rpc.Groups]*state.Machine
	index [rpc.Groups]uint64
	hints []string
}

func newMachines(t testing.TB) *machines {
	engine, err := storage.Open(storage.Options{Dir: t.TempDir(), CacheBytes: 1 << 20, MemTableBytes: 4 << 20, FreeReserveBytes: -1})
	require.NoError(t, err)
	m := &machines{t: t}
	cache := state.NewCache(1 << 20)
	for i := range m.all {
		m.all[i], err = state.Open(engine.DB(), uint16(i), state.Options{Cache: cache})
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		for _, machine := range m.all {
			require.NoError(t, machine.Close())
		}
		require.NoError(t, engine.Close())
	})
	return m
}

var clock = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (m *machines) apply(group rpc.Group, data []byte) state.Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index[group]++
	outcomes, err := m.all[group].Apply([]state.Entry{{Index: m.index[group], Term: 1, Data: data}})
	require.NoError(m.t, err)
	return outcomes[0][0]
}

// write fills the cluster with conversations of several kinds.
func (m *machines) write(conversations int) {
	for i := range conversations {
		key := rpc.Key(fmt.Sprint("conversation-", i))
		ops := []state.Op{state.PutOp(&rpc.PutRequest{Key: key, Metadata: fmt.Appendf(nil, `{"long":"%0*d"}`, i%400, i)})}
		for n := range 1 + i%5 {
			content := fmt.Appendf(nil, `"id":"m%d","role":"user","parts":[{"type":"text","text":"%0*d"}]`, n, i*40%9000, n)
			ops = append(ops, state.AppendOp(&rpc.AppendRequest{
				Key: key, IdempotencyKey: fmt.Sprint("key-", n), Messages: []rpc.NewMessage{{ID: fmt.Sprint("m", n), Content: content}},
			}))
		}
		if i%7 == 0 {
			ops = append(ops, state.TombstoneOp(key))
		}
		if i%11 == 5 {
			ops = append(ops, state.ArchiveAckOp(&state.ArchiveAck{Epoch: 9, Keep: 1, Watermarks: []state.Watermark{{Key: key, Seq: 3}}}))
		}
		for _, op := range ops {
			require.NoError(m.t, m.apply(key.Group(), state.EncodeCommand(nil, clock.Add(time.Duration(i)*time.Second), op)).Err)
		}
	}
}

// same compares everything that can be read.
func (m *machines) same(other *machines) {
	m.t.Helper()
	for i := range m.all {
		want, err := m.all[i].List("", "", 1000)
		require.NoError(m.t, err)
		got, err := other.all[i].List("", "", 1000)
		require.NoError(m.t, err)
		require.Equal(m.t, want, got)
		for _, c := range want {
			a, err := m.all[i].Messages(c.Key, c.FirstSeq, 1000, 0)
			require.NoError(m.t, err)
			b, err := other.all[i].Messages(c.Key, c.FirstSeq, 1000, 0)
			require.NoError(m.t, err)
			require.Equal(m.t, a, b)
		}
	}
}

// hashes are those of all groups.
func (m *machines) hashes() (sums [rpc.Groups][32]byte) {
	m.t.Helper()
	for i := range m.all {
		var err error
		sums[i], _, err = m.all[i].Hash(context.Background())
		require.NoError(m.t, err)
	}
	return sums
}

func (m *machines) failing(method string, group rpc.Group, after bool) error {
	if m.fail == nil {
		return nil
	}
	return m.fail(method, group, after)
}

func (m *machines) Leader(_ context.Context, group rpc.Group, hint string) (Node, error) {
	if hint != "" {
		m.mu.Lock()
		m.hints = append(m.hints, hint)
		m.mu.Unlock()
	}
	return m, m.failing("Leader", group, false)
}

func (m *machines) GroupState(_ context.Context, group rpc.Group) (*rpc.GroupState, error) {
	s := m.all[group].GroupState()
	return &s, m.failing("GroupState", group, false)
}

func (m *machines) StateHash(ctx context.Context, group rpc.Group) (*rpc.StateHash, error) {
	if err := m.failing("StateHash", group, false); err != nil {
		return nil, err
	}
	sum, index, err := m.all[group].Hash(ctx)
	return &rpc.StateHash{Group: group, Applied: index, Hash: sum}, err
}

func (m *machines) Export(_ context.Context, group rpc.Group, w io.Writer) error {
	s, err := m.all[group].OpenSnapshot()
	if err != nil {
		return err
	}
	half := io.LimitReader(s, s.Size()/2)
	_, err = io.Copy(w, half)
	if err == nil {
		err = m.failing("Export", group, false)
	}
	if err == nil {
		_, err = io.Copy(w, s)
	}
	return errors.Join(err, s.Close())
}

func (m *machines) Restore(_ context.Context, req *rpc.RestoreRequest) (*rpc.RestoreReply, error) {
	if err := m.failing("Restore", req.Group, false); err != nil {
		return nil, err
	}
	data, err := state.EncodeRestore(nil, req)
	require.NoError(m.t, err)
	out := m.apply(req.Group, data)
	require.NoError(m.t, out.Err)
	return out.Reply.(*rpc.RestoreReply), m.failing("Restore", req.Group, true)
}
