package transport

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestOutboxCoalescesInOrder(t *testing.T) {
	t.Parallel()
	o := newOutbox([]byte("a"), 1<<20, 1<<20)
	for id := range uint64(5) {
		require.NoError(t, o.push(kindPing, 0, id, nil))
	}
	o.await(0)
	batch, frames, ok := o.take(nil)
	require.True(t, ok)
	require.Equal(t, 5, frames)
	r := newFrameReader(bytes.NewReader(batch), 1024)
	for id := range uint64(5) {
		f, err := r.next()
		require.NoError(t, err)
		require.Equal(t, id, f.id)
	}
}

func TestOutboxBounds(t *testing.T) {
	t.Parallel()
	o := newOutbox([]byte("a"), 1000, 2000)
	require.NoError(t, o.push(kindSnapshotData, 0, 1, make([]byte, 1500)), "one large frame is admitted alone")
	require.ErrorIs(t, o.push(kindPing, 0, 2, nil), ErrOverloaded)
	require.ErrorIs(t, o.push(kindSnapshotData, 0, 3, make([]byte, 2001)), ErrTooLarge)
	o.await(0)
	batch, frames, ok := o.take(nil)
	require.True(t, ok)
	require.Equal(t, 1, frames, "refused frames leave nothing behind")
	require.Len(t, batch, headerLen+1500)
	require.NoError(t, o.push(kindPing, 0, 4, nil))
}

func TestOutboxWakesAndClosesItsWriter(t *testing.T) {
	t.Parallel()
	o := newOutbox([]byte("a"), 1<<20, 1<<20)
	const pushers, each = 8, 500
	total := make(chan int, 1)
	go func() {
		sum := 0
		var spare []byte
		for {
			o.await(0)
			batch, frames, ok := o.take(spare)
			if !ok {
				total <- sum
				return
			}
			spare = batch
			sum += frames
			if sum == pushers*each {
				o.close(ErrClosed)
			}
		}
	}()
	var work sync.WaitGroup
	for range pushers {
		work.Go(func() {
			for range each {
				if o.push(kindPing, 0, 0, nil) != nil {
					t.Error("push failed")
				}
			}
		})
	}
	work.Wait()
	require.Equal(t, pushers*each, receive(t, total, "end of the writer"))
	require.ErrorIs(t, o.push(kindPing, 0, 0, nil), ErrClosed)
	o.close(errors.New("later reasons do not count"))
	require.ErrorIs(t, o.push(kindPing, 0, 0, nil), ErrClosed)
}

// The call table against a model: every call ends exactly once, and an id
// never finds another call than its own.
func TestCallTableModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table := callTable{limit: 8}
		live := map[uint64]*call{}
		var gone []uint64
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				c := newCall(nil, nil, time.Duration(rapid.IntRange(0, 10).Draw(t, "deadline")))
				id, err := table.add(c)
				if len(live) == 8 {
					require.ErrorIs(t, err, ErrOverloaded)
					return
				}
				require.NoError(t, err)
				require.NotContains(t, live, id)
				require.NotContains(t, gone, id)
				live[id] = c
			},
			"take": func(t *rapid.T) {
				for id, c := range live {
					require.Same(t, c, table.take(id))
					delete(live, id)
					gone = append(gone, id)
					c.release()
					return
				}
			},
			"take gone or never given": func(t *rapid.T) {
				for _, id := range gone {
					require.Nil(t, table.take(id))
				}
				require.Nil(t, table.take(requestID(99, 0)))
			},
			"expire": func(t *rapid.T) {
				now := time.Duration(rapid.IntRange(0, 10).Draw(t, "now"))
				n := table.fail(ErrTimeout, func(c *call) bool { return c.deadline <= now })
				for id, c := range live {
					if c.deadline <= now {
						require.ErrorIs(t, <-c.done, ErrTimeout)
						delete(live, id)
						gone = append(gone, id)
						n--
					}
				}
				require.Zero(t, n)
			},
			"": func(t *rapid.T) { require.Equal(t, len(live), table.live()) },
		})
		table.close(ErrConnectionLost)
		for _, c := range live {
			require.ErrorIs(t, <-c.done, ErrConnectionLost)
		}
		_, err := table.add(newCall(nil, nil, 0))
		require.ErrorIs(t, err, ErrConnectionLost)
	})
}

// inboxBench drives a view's inbox without a network.
type inboxBench struct {
	view *View
	conn *conn
}

func newInboxBench(t *testing.T, edit func(*Config)) *inboxBench {
	n := newNetwork(t)
	m := n.start("a", edit).Mux
	v := m.Group(1)
	return &inboxBench{view: v, conn: &conn{mux: m, out: newOutbox(m.self, 1<<20, 1<<20)}}
}

func (b *inboxBench) deliver(id uint64, size int) (refusal, bool) {
	return b.view.inbox.deliver(b.conn, frame{kind: kindAppend, id: id, body: make([]byte, size)}, &raft.AppendEntriesRequest{Term: id})
}

// replies returns the next n replies in the order they were sent.
func (b *inboxBench) replies(t *testing.T, n int) []frame {
	var got []frame
	for len(got) < n {
		b.conn.out.await(0)
		batch, frames, ok := b.conn.out.take(nil)
		require.True(t, ok)
		r := newFrameReader(bytes.NewReader(batch), 1<<20)
		for range frames {
			f, err := r.next()
			require.NoError(t, err)
			f.body = bytes.Clone(f.body)
			got = append(got, f)
		}
	}
	return got
}

func TestInboxRefusesWhenFull(t *testing.T) {
	t.Parallel()
	b := newInboxBench(t, func(c *Config) { c.Limits.GroupQueue = 4 })
	for id := range uint64(4) {
		_, ok := b.deliver(id, 1)
		require.True(t, ok)
	}
	reason, ok := b.deliver(4, 1)
	require.False(t, ok)
	require.Equal(t, refusedGroupBusy, reason)
	// Taking a request does not make room, answering it does: it may still hold
	// its memory.
	rpc := <-b.view.Consumer()
	_, ok = b.deliver(5, 1)
	require.False(t, ok)
	rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	require.Equal(t, uint64(0), b.replies(t, 1)[0].id)
	eventually(t, func() bool { _, ok := b.deliver(6, 1); return ok }, "room after an answer")
}

func TestInboxBoundsBytes(t *testing.T) {
	t.Parallel()
	b := newInboxBench(t, func(c *Config) { c.Limits.GroupQueueBytes = 100 })
	_, ok := b.deliver(0, 500)
	require.True(t, ok, "one large request is admitted alone")
	reason, ok := b.deliver(1, 1)
	require.False(t, ok)
	require.Equal(t, refusedGroupBusy, reason)
}

func TestInboxAnswersBelongToTheirRequests(t *testing.T) {
	t.Parallel()
	b := newInboxBench(t, nil)
	const requests = 20
	var rpcs []raft.RPC
	for id := range uint64(requests) {
		_, ok := b.deliver(id, 1)
		require.True(t, ok)
		rpcs = append(rpcs, <-b.view.Consumer())
	}
	// Raft answers in order; even in reverse each answer keeps its request.
	for i := len(rpcs) - 1; i >= 0; i-- {
		term := rpcs[i].Command.(*raft.AppendEntriesRequest).Term
		rpcs[i].Respond(&raft.AppendEntriesResponse{Term: 100 + term}, nil)
	}
	for _, f := range b.replies(t, requests) {
		var resp raft.AppendEntriesResponse
		d := decoder{rest: f.body, peer: []byte("a")}
		require.NoError(t, d.reply(f.kind, &resp))
		require.Equal(t, 100+f.id, resp.Term)
	}
}

func TestInboxCloseRefusesWhatIsLeft(t *testing.T) {
	t.Parallel()
	b := newInboxBench(t, nil)
	var rpcs []raft.RPC
	for id := range uint64(3) {
		_, ok := b.deliver(id, 1)
		require.True(t, ok)
		rpcs = append(rpcs, <-b.view.Consumer())
	}
	rpcs[1].Respond(&raft.AppendEntriesResponse{}, nil) // behind one that is not answered
	require.NoError(t, b.view.Close())
	kinds := map[uint64]kind{}
	for _, f := range b.replies(t, 3) {
		kinds[f.id] = f.kind
	}
	require.Equal(t, map[uint64]kind{0: kindError, 1: kindAppendReply, 2: kindError}, kinds)
	// An answer that comes later neither blocks Raft nor goes anywhere.
	rpcs[0].Respond(&raft.AppendEntriesResponse{}, nil)
	reason, ok := b.deliver(9, 1)
	require.False(t, ok)
	require.Equal(t, refusedGroupClosed, reason)
	require.NoError(t, b.view.Close(), "closing twice is fine")
}

func TestWrongAnswerTypeBecomesAnError(t *testing.T) {
	t.Parallel()
	b := newInboxBench(t, nil)
	for id, resp := range []any{nil, "text", &raft.RequestVoteResponse{Granted: true}} {
		_, ok := b.deliver(uint64(id), 1)
		require.True(t, ok)
		rpc := <-b.view.Consumer()
		rpc.Respond(resp, nil)
		require.Equal(t, kindError, b.replies(t, 1)[0].kind)
	}
}
