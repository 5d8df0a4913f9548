package forward

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

var (
	plain    = &rpc.AppendRequest{Key: "k", Messages: []rpc.NewMessage{{}}}
	named    = &rpc.AppendRequest{Key: "k", Messages: []rpc.NewMessage{{ID: "1"}, {ID: "2"}}}
	halfway  = &rpc.AppendRequest{Key: "k", Messages: []rpc.NewMessage{{ID: "1"}, {}}}
	keyed    = &rpc.AppendRequest{Key: "k", Messages: []rpc.NewMessage{{}}, IdempotencyKey: "key"}
	keyGroup = rpc.Key("k").Group()
)

func lostLeader(hint string) error {
	return fmt.Errorf("append: %w", &rpc.NotLeaderError{Group: keyGroup, Leader: hint})
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := New(Config{BackoffMin: time.Second, BackoffMax: time.Millisecond})
	require.ErrorContains(t, err, "placement table is missing")
	require.ErrorContains(t, err, "connect function is missing")
	require.ErrorContains(t, err, "backoff")
}

func TestEveryMethodReachesTheLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("b")))
	f := c.forwarder(t, nil)
	ctx := t.Context()

	_, err := f.Put(ctx, &rpc.PutRequest{Key: "k"})
	require.NoError(t, err)
	appended, err := f.Append(ctx, plain)
	require.NoError(t, err)
	require.Equal(t, uint64(1), appended.Seq)
	require.NoError(t, f.Tombstone(ctx, "k"))
	conv, err := f.Conversation(ctx, "k", rpc.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, rpc.Key("k"), conv.Key)
	_, err = f.Messages(ctx, &rpc.MessagesRequest{Key: "k"})
	require.NoError(t, err)
	_, err = f.Tail(ctx, &rpc.TailRequest{Key: "k", ReadOptions: rpc.ReadOptions{Consistency: rpc.Linearizable}})
	require.NoError(t, err)

	require.Equal(t, 6, c.nodes["b"].count())
	require.Zero(t, c.nodes["a"].count()+c.nodes["c"].count())
	require.Equal(t, map[string]int{"b:1": 1}, c.dials, "one connection serves all")
}

func TestAHintIsFollowedAndRemembered(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("a")))
	c.nodes["a"].answer = always(lostLeader("c"))
	f := c.forwarder(t, nil)
	for range 3 {
		_, err := f.Append(t.Context(), plain)
		require.NoError(t, err)
	}
	require.Equal(t, 1, c.nodes["a"].count(), "only the first request goes the wrong way")
	require.Equal(t, 3, c.nodes["c"].count())
}

func TestNodesThatPointAtEachOtherAreBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("a")))
	c.nodes["a"].answer = always(lostLeader("b"))
	c.nodes["b"].answer = always(lostLeader("a"))
	f := c.forwarder(t, func(cfg *Config) {
		cfg.BackoffMin, cfg.BackoffMax = time.Hour, time.Hour
	})
	_, err := f.Append(t.Context(), plain)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.Equal(t, maxHints+1, c.nodes["a"].count()+c.nodes["b"].count(), "the pause does not fit the budget")
}

// With the control plane down the table goes on naming a dead leader; the other
// replicas are asked who leads.
func TestADeadLeaderIsFoundOutFromTheOthers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("a")))
	c.nodes["a"].answer = always(rpc.ErrUnavailable)
	c.nodes["b"].answer = fails(lostLeader("a"), lostLeader(""), lostLeader("c"))
	c.nodes["c"].answer = fails(lostLeader(""))
	f := c.forwarder(t, nil)
	_, err := f.Append(t.Context(), plain)
	require.NoError(t, err)
	before := c.nodes["a"].count()
	_, err = f.Append(t.Context(), plain)
	require.NoError(t, err)
	require.Equal(t, before, c.nodes["a"].count(), "the found leader is remembered")
}

// A new leader may be asked a moment before it is ready. The others name it
// again and again; that must lead back to it.
func TestALeaderThatWasNotReadyIsAskedAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("b")))
	for _, id := range []control.NodeID{"a", "c"} {
		c.nodes[id].answer = always(lostLeader("b"))
	}
	c.nodes["b"].answer = fails(lostLeader(""), lostLeader(""))
	f := c.forwarder(t, nil)
	_, err := f.Append(t.Context(), plain)
	require.NoError(t, err)
	require.Equal(t, 3, c.nodes["b"].count())
	require.Equal(t, 2, c.nodes["a"].count()+c.nodes["c"].count(), "nobody else is asked twice in a row")
}

// A node that names itself, or one that holds no replica, is not believed, and
// another one is asked.
func TestAHintThatCannotBeRightIsPassedOver(t *testing.T) {
	t.Parallel()
	for _, hint := range []string{"a", "stranger"} {
		c := newCluster(t, placed(1, led("a")))
		c.nodes["a"].answer = always(lostLeader(hint))
		f := c.forwarder(t, nil)
		_, err := f.Append(t.Context(), plain)
		require.NoError(t, err, hint)
		require.Equal(t, 1, c.nodes["a"].count(), hint)
	}
}

func TestAHintThatLeadsNowhereIsForgotten(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("a")))
	c.nodes["a"].answer = fails(lostLeader("b"))
	c.nodes["b"].answer = always(rpc.ErrClosed)
	f := c.forwarder(t, nil)
	_, err := f.Append(t.Context(), plain)
	require.NoError(t, err)
	route, _ := c.table.Lookup(keyGroup)
	require.Equal(t, control.NodeID("a"), route.LeaderID())
}

func TestANewTableIsFollowedWhileRetrying(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, func(int) control.NodeID { return "" }))
	for _, id := range []control.NodeID{"a", "b", "c"} {
		c.nodes[id].answer = always(lostLeader(""))
	}
	f := c.forwarder(t, nil)
	c.nodes["b"].answer = func(call int) error {
		if call == 1 {
			c.control.publish(placed(2, led("b")))
			return lostLeader("")
		}
		return nil
	}
	_, err := f.Append(t.Context(), plain)
	require.NoError(t, err)
}

func appending(req *rpc.AppendRequest) func(context.Context, *Forwarder) error {
	return func(ctx context.Context, f *Forwarder) error {
		_, err := f.Append(ctx, req)
		return err
	}
}

func put(ctx context.Context, f *Forwarder) error {
	_, err := f.Put(ctx, &rpc.PutRequest{Key: "k"})
	return err
}

func tombstone(ctx context.Context, f *Forwarder) error { return f.Tombstone(ctx, "k") }

func get(ctx context.Context, f *Forwarder) error {
	_, err := f.Conversation(ctx, "k", rpc.ReadOptions{})
	return err
}

func TestRetriesByError(t *testing.T) {
	t.Parallel()
	conflict := &rpc.VersionConflictError{Current: 3}
	cases := []struct {
		name  string
		op    func(context.Context, *Forwarder) error
		err   error
		calls int // of the leader; 2 means that it was tried again and succeeded
	}{
		{"append, unknown outcome", appending(plain), rpc.ErrOutcomeUnknown, 1},
		{"append with some ids, unknown outcome", appending(halfway), rpc.ErrOutcomeUnknown, 1},
		{"append with ids, unknown outcome", appending(named), rpc.ErrOutcomeUnknown, 2},
		{"append with a key, unknown outcome", appending(keyed), rpc.ErrOutcomeUnknown, 2},
		{"put, unknown outcome", put, rpc.ErrOutcomeUnknown, 1},
		{"tombstone, unknown outcome", tombstone, rpc.ErrOutcomeUnknown, 1},
		{"append, unavailable", appending(plain), rpc.ErrUnavailable, 2},
		{"append, closing", appending(plain), rpc.ErrClosed, 2},
		{"put, unavailable", put, rpc.ErrUnavailable, 2},
		{"tombstone, closing", tombstone, rpc.ErrClosed, 2},
		{"read, unavailable", get, rpc.ErrUnavailable, 2},
		{"append, overloaded", appending(named), rpc.ErrOverloaded, 1},
		{"append, storage full", appending(named), rpc.ErrStorageFull, 1},
		{"append, not found", appending(named), rpc.ErrNotFound, 1},
		{"append, tombstoned", appending(named), rpc.ErrTombstoned, 1},
		{"append, conflict", appending(named), conflict, 1},
		{"append, idempotency conflict", appending(keyed), rpc.ErrIdempotencyConflict, 1},
		{"read, corrupt", get, rpc.ErrCorrupt, 1},
		{"read, min seq", get, rpc.ErrMinSeqTimeout, 1},
		{"append, anything else", appending(named), errors.New("surprise"), 1},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, placed(1, led("a")))
			// One replica, so that every try is seen by it.
			only := placed(2, led("a"))
			only.Groups[keyGroup].Replicas = []control.Replica{{Node: "a"}}
			c.control.publish(only)
			require.Eventually(t, func() bool { return c.table.Version() == 2 }, 10*time.Second, time.Millisecond)
			c.nodes["a"].answer = fails(tc.err)
			err := tc.op(t.Context(), c.forwarder(t, nil))
			require.Equal(t, tc.calls, c.nodes["a"].count())
			if tc.calls == 1 {
				require.ErrorIs(t, err, tc.err)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// Once a try ended unknown, the request as a whole is unknown, until the state
// machine has answered.
func TestAnUnknownOutcomeStaysUnknown(t *testing.T) {
	t.Parallel()
	conflict := &rpc.VersionConflictError{Current: 3}
	for _, last := range []error{rpc.ErrOverloaded, rpc.ErrStorageFull, rpc.ErrOutcomeUnknown, context.DeadlineExceeded, errors.New("surprise")} {
		c := newCluster(t, placed(1, led("a")))
		c.nodes["a"].answer = fails(rpc.ErrOutcomeUnknown, last, last)
		_, err := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = 20 * time.Millisecond }).Append(t.Context(), named)
		if !errors.Is(last, rpc.ErrOutcomeUnknown) {
			require.ErrorIs(t, err, rpc.ErrOutcomeUnknown)
			require.ErrorIs(t, err, last)
		}
	}
	c := newCluster(t, placed(1, led("a")))
	c.nodes["a"].answer = func(call int) error {
		if call == 1 {
			return rpc.ErrOutcomeUnknown
		}
		return rpc.ErrUnavailable
	}
	c.nodes["b"].answer, c.nodes["c"].answer = always(rpc.ErrUnavailable), always(rpc.ErrUnavailable)
	_, err := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = 5 * time.Millisecond }).Append(t.Context(), named)
	require.ErrorIs(t, err, rpc.ErrOutcomeUnknown)

	for _, last := range []error{rpc.ErrNotFound, rpc.ErrTombstoned, rpc.ErrIdempotencyConflict, conflict} {
		c := newCluster(t, placed(1, led("a")))
		c.nodes["a"].answer = fails(rpc.ErrOutcomeUnknown, last)
		_, err := c.forwarder(t, nil).Append(t.Context(), named)
		require.ErrorIs(t, err, last)
		require.NotErrorIs(t, err, rpc.ErrOutcomeUnknown)
	}
}

func TestTheBudgetAndTheContextBoundRetries(t *testing.T) {
	t.Parallel()
	t.Run("no budget", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		c.nodes["a"].answer = always(rpc.ErrUnavailable)
		_, err := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = -1 }).Append(t.Context(), plain)
		require.ErrorIs(t, err, rpc.ErrUnavailable)
		require.Equal(t, 1, c.nodes["a"].count())
	})
	t.Run("spent budget", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		for _, n := range c.nodes {
			n.answer = always(rpc.ErrUnavailable)
		}
		_, err := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = 5 * time.Millisecond }).Append(t.Context(), plain)
		require.ErrorIs(t, err, rpc.ErrUnavailable)
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		ctx, cancel := context.WithCancel(t.Context())
		c.nodes["a"].answer = func(int) error { cancel(); return rpc.ErrUnavailable }
		_, err := c.forwarder(t, nil).Append(ctx, plain)
		require.ErrorIs(t, err, rpc.ErrUnavailable)
		require.Equal(t, 1, c.nodes["a"].count())
	})
	t.Run("cancelled while pausing", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		require.False(t, wait(ctx, time.Hour, 2*time.Hour))
	})
	t.Run("deadline nearer than the pause", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.False(t, wait(ctx, time.Hour, 2*time.Hour))
	})
}

func TestGroupsWithoutReplicasAreUnavailable(t *testing.T) {
	t.Parallel()
	empty := placed(1, led("a"))
	empty.Groups[keyGroup].Replicas = nil
	c := newCluster(t, empty)
	f := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = time.Millisecond })
	_, err := f.Append(t.Context(), plain)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	_, err = f.List(t.Context(), &rpc.ListRequest{Groups: []rpc.Group{keyGroup}})
	require.ErrorIs(t, err, rpc.ErrUnavailable)
}

func TestStaleReadsGoAnywhere(t *testing.T) {
	t.Parallel()
	stale := rpc.ReadOptions{Consistency: rpc.Stale}
	t.Run("spread over the replicas", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		f := c.forwarder(t, nil)
		for range 200 {
			_, err := f.Conversation(t.Context(), "k", stale)
			require.NoError(t, err)
		}
		for id, n := range c.nodes {
			require.NotZero(t, n.count(), id)
		}
	})
	for name, err := range map[string]error{"unavailable": rpc.ErrUnavailable, "closing": rpc.ErrClosed, "corrupt": rpc.ErrCorrupt, "no replica": lostLeader("a")} {
		t.Run("around a replica that is "+name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, placed(1, led("a")))
			c.nodes["a"].answer, c.nodes["b"].answer = always(err), always(err)
			f := c.forwarder(t, func(cfg *Config) { cfg.BackoffMin, cfg.BackoffMax = time.Hour, time.Hour })
			for range 20 { // without a single pause
				_, err := f.Conversation(t.Context(), "k", stale)
				require.NoError(t, err)
			}
		})
	}
	t.Run("corrupt everywhere", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		for _, n := range c.nodes {
			n.answer = always(rpc.ErrCorrupt)
		}
		_, err := c.forwarder(t, nil).Conversation(t.Context(), "k", stale)
		require.ErrorIs(t, err, rpc.ErrCorrupt)
	})
}

func TestConnections(t *testing.T) {
	t.Parallel()
	t.Run("a refused connection is unavailable and tried elsewhere", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		c.dialFail["a:1"] = true
		_, err := c.forwarder(t, nil).Append(t.Context(), plain)
		require.NoError(t, err)
		require.NotZero(t, c.nodes["b"].count()+c.nodes["c"].count())
	})
	t.Run("a moved node is connected again", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		f := c.forwarder(t, nil)
		_, err := f.Append(t.Context(), plain)
		require.NoError(t, err)
		old := c.nodes["a"]
		moved := placed(2, led("a"))
		moved.Nodes["a"] = control.NodeInfo{ID: "a", Address: "a:2"}
		c.mu.Lock()
		c.nodes["a"] = &node{}
		c.mu.Unlock()
		c.control.publish(moved)
		require.Eventually(t, func() bool { return c.table.Version() == 2 }, 10*time.Second, time.Millisecond)
		_, err = f.Append(t.Context(), plain)
		require.NoError(t, err)
		require.True(t, old.isClosed())
		require.Equal(t, 1, c.nodes["a"].count())
	})
	t.Run("nodes that left the table are let go", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		f := c.forwarder(t, nil)
		_, err := f.Append(t.Context(), plain)
		require.NoError(t, err)
		gone := placed(2, led("b"))
		delete(gone.Nodes, "a")
		c.control.publish(gone)
		require.Eventually(t, func() bool { return c.table.Version() == 2 }, 10*time.Second, time.Millisecond)
		_, err = f.Append(t.Context(), plain)
		require.NoError(t, err)
		require.True(t, c.nodes["a"].isClosed())
		require.False(t, c.nodes["b"].isClosed())
	})
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, placed(1, led("a")))
		f := c.forwarder(t, func(cfg *Config) { cfg.RetryBudget = -1 })
		_, err := f.Append(t.Context(), plain)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.True(t, c.nodes["a"].isClosed())
		_, err = f.Append(t.Context(), plain)
		require.ErrorIs(t, err, rpc.ErrUnavailable)
	})
}

func BenchmarkAppend(b *testing.B) {
	c := newCluster(b, placed(1, led("a")))
	f, err := New(Config{Table: c.table, Connect: c.connect})
	require.NoError(b, err)
	req := &rpc.AppendRequest{Key: "conversation-0123456789", Messages: []rpc.NewMessage{{}}}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Append(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
}
