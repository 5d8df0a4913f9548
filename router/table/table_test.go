package table

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	data "github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// controlPlane answers polls with what the test publishes.
type controlPlane struct {
	mu      sync.Mutex // guards the rest
	table   *control.Table
	err     error
	changed chan struct{} // closed and replaced by publish
	polled  chan struct{} // gets a token per poll
}

func newControlPlane() *controlPlane {
	return &controlPlane{changed: make(chan struct{}), polled: make(chan struct{}, 1024)}
}

func (c *controlPlane) publish(t *control.Table, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table, c.err = t, err
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *controlPlane) Table(ctx context.Context, after uint64) (*control.Table, error) {
	select {
	case c.polled <- struct{}{}:
	default:
	}
	for {
		c.mu.Lock()
		table, err, changed := c.table, c.err, c.changed
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if table != nil && table.Version > after {
			return table, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return table, nil
		}
	}
}

func (c *controlPlane) Session(context.Context, *control.Report) (*control.Assignment, error) {
	return nil, errors.New("not used by routers")
}

// placed makes a table in which nodes a, b and c hold every group.
func placed(version uint64, leader control.NodeID) *control.Table {
	t := &control.Table{
		ClusterID: "cluster",
		Version:   version,
		Nodes: map[control.NodeID]control.NodeInfo{
			"a": {ID: "a", Address: "a:1"}, "b": {ID: "b", Address: "b:1"}, "c": {ID: "c", Address: "c:1"},
		},
		Groups: make([]control.Placement, data.Groups),
	}
	for g := range t.Groups {
		t.Groups[g] = control.Placement{
			Replicas:  []control.Replica{{Node: "a", Voter: true}, {Node: "b", Voter: true}, {Node: "c", Voter: true}},
			Leader:    leader,
			Preferred: "a",
		}
	}
	return t
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t *testing.T, cp control.ControlPlane) *Table {
	t.Helper()
	table, err := Open(Config{Control: cp, Log: discard(), BackoffMin: time.Millisecond, BackoffMax: 2 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(table.Close)
	return table
}

func waitReady(t *testing.T, table *Table) {
	t.Helper()
	select {
	case <-table.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the table did not become ready")
	}
}

func waitVersion(t *testing.T, table *Table, version uint64) {
	t.Helper()
	require.Eventually(t, func() bool { return table.Version() == version }, 10*time.Second, time.Millisecond)
}

func leaderOf(t *testing.T, table *Table, g data.Group) control.NodeID {
	t.Helper()
	route, ok := table.Lookup(g)
	require.True(t, ok)
	return route.LeaderID()
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := Open(Config{})
	require.ErrorContains(t, err, "control plane is missing")
	require.ErrorContains(t, err, "logger is missing")
	_, err = Open(Config{Control: newControlPlane(), Log: discard(), BackoffMin: time.Second, BackoffMax: time.Millisecond})
	require.ErrorContains(t, err, "backoff")
}

func TestNothingIsServedBeforeTheFirstTable(t *testing.T) {
	t.Parallel()
	table := open(t, newControlPlane())
	_, ok := table.Lookup(0)
	require.False(t, ok)
	require.ErrorIs(t, table.Check(t.Context()), ErrNotReady)
	require.Zero(t, table.Version())
	require.False(t, table.Knows("a"))
	require.False(t, table.Correct(0, "", "a"))
}

func TestLookupFollowsTheControlPlane(t *testing.T) {
	t.Parallel()
	cp := newControlPlane()
	table := open(t, cp)
	cp.publish(placed(1, "a"), nil)
	waitReady(t, table)
	require.NoError(t, table.Check(t.Context()))
	require.True(t, table.Knows("c"))
	route, ok := table.Lookup(255)
	require.True(t, ok)
	require.Equal(t, control.NodeID("a"), route.LeaderID())
	require.Len(t, route.Replicas, 3)
	require.Equal(t, "b:1", route.Replicas[1].Address)
	_, ok = table.Lookup(256)
	require.False(t, ok)

	cp.publish(placed(2, "b"), nil)
	waitVersion(t, table, 2)
	require.Equal(t, control.NodeID("b"), leaderOf(t, table, 255))
}

func TestAnUnplacedTableIsNotServed(t *testing.T) {
	t.Parallel()
	cp := newControlPlane()
	table := open(t, cp)
	cp.publish(&control.Table{ClusterID: "cluster", Version: 1}, nil)
	for range 3 {
		<-cp.polled
	}
	require.ErrorIs(t, table.Check(t.Context()), ErrNotReady)
	cp.publish(placed(2, "a"), nil)
	waitReady(t, table)
}

func TestTheCacheSurvivesTheControlPlane(t *testing.T) {
	t.Parallel()
	cp := newControlPlane()
	table := open(t, cp)
	cp.publish(placed(1, "a"), nil)
	waitReady(t, table)

	cp.publish(nil, control.ErrUnavailable)
	for range 3 {
		<-cp.polled
	}
	require.NoError(t, table.Check(t.Context()))
	require.Equal(t, control.NodeID("a"), leaderOf(t, table, 7))

	cp.publish(placed(5, "c"), nil)
	waitVersion(t, table, 5)
	require.Equal(t, control.NodeID("c"), leaderOf(t, table, 7))
}

func TestOlderForeignAndBrokenTablesAreRefused(t *testing.T) {
	t.Parallel()
	half := placed(9, "b")
	half.Groups = half.Groups[:10]
	foreign := placed(9, "b")
	foreign.ClusterID = "another"
	cases := map[string]*control.Table{"older": placed(1, "b"), "foreign": foreign, "half": half, "absent": nil}
	for name, bad := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := &Table{cfg: Config{Log: discard()}, ready: make(chan struct{})}
			fresh, err := table.install(placed(3, "a"), false)
			require.NoError(t, err)
			require.True(t, fresh)
			if bad != nil {
				fresh, _ = table.install(bad, false)
				require.False(t, fresh)
			}
			require.Equal(t, uint64(3), table.Version())
			require.Equal(t, control.NodeID("a"), leaderOf(t, table, 0))
		})
	}
}

func TestPreferredStandsInForAnUnreportedLeader(t *testing.T) {
	t.Parallel()
	table := &Table{cfg: Config{Log: discard()}, ready: make(chan struct{})}
	unreported := placed(1, "")
	unreported.Groups[1].Preferred = "gone"
	unreported.Groups[2].Replicas = []control.Replica{{Node: "gone"}}
	_, err := table.install(unreported, false)
	require.NoError(t, err)
	require.Equal(t, control.NodeID("a"), leaderOf(t, table, 0))
	require.Equal(t, control.NodeID(""), leaderOf(t, table, 1))
	route, ok := table.Lookup(2)
	require.True(t, ok)
	require.Nil(t, route.Leader)
	require.Empty(t, route.Replicas)
}

func install(t *testing.T, table *Table, next *control.Table) {
	t.Helper()
	_, err := table.install(next, false)
	require.NoError(t, err)
}

// serving returns a table, followed by nobody, in which a leads everything.
func serving(t *testing.T) *Table {
	t.Helper()
	table := &Table{cfg: Config{Log: discard()}, ready: make(chan struct{})}
	install(t, table, placed(1, "a"))
	return table
}

func TestCorrections(t *testing.T) {
	t.Parallel()
	t.Run("ahead of the table", func(t *testing.T) {
		t.Parallel()
		table := serving(t)
		require.True(t, table.Correct(4, "a", "b"))
		require.Equal(t, control.NodeID("b"), leaderOf(t, table, 4))
		require.Equal(t, control.NodeID("a"), leaderOf(t, table, 5), "other groups are not touched")
	})
	t.Run("useless hints", func(t *testing.T) {
		t.Parallel()
		table := serving(t)
		require.False(t, table.Correct(4, "a", "a"), "names who was believed")
		require.False(t, table.Correct(4, "a", "stranger"), "holds no replica")
		require.False(t, table.Correct(data.Groups, "a", "b"))
		require.Equal(t, control.NodeID("a"), leaderOf(t, table, 4))
	})
	t.Run("late answers do not undo newer beliefs", func(t *testing.T) {
		t.Parallel()
		table := serving(t)
		require.True(t, table.Correct(4, "a", "b"))
		require.True(t, table.Correct(4, "a", "c"), "look up again")
		require.Equal(t, control.NodeID("b"), leaderOf(t, table, 4))
	})
	t.Run("pointing back to the table's leader", func(t *testing.T) {
		t.Parallel()
		table := serving(t)
		require.True(t, table.Correct(4, "a", "b"))
		require.True(t, table.Correct(4, "b", "a"))
		require.Nil(t, table.corrections[4].Load())
		require.Equal(t, control.NodeID("a"), leaderOf(t, table, 4))
	})
	t.Run("forgotten", func(t *testing.T) {
		t.Parallel()
		table := serving(t)
		require.True(t, table.Correct(4, "a", "b"))
		table.Forget(4, "c")
		require.Equal(t, control.NodeID("b"), leaderOf(t, table, 4))
		table.Forget(4, "b")
		require.Equal(t, control.NodeID("a"), leaderOf(t, table, 4))
		table.Forget(data.Groups, "b")
	})
}

func TestCorrectionsAndNewerTables(t *testing.T) {
	t.Parallel()
	t.Run("kept by a newer table that says nothing new of the group", func(t *testing.T) {
		t.Parallel()
		table := serving(t)
		require.True(t, table.Correct(4, "a", "b"))
		install(t, table, placed(2, "a"))
		require.Equal(t, control.NodeID("b"), leaderOf(t, table, 4))
	})
	t.Run("overridden by a newer table that names another leader, for good", func(t *testing.T) {
		t.Parallel()
		table := serving(t)
		require.True(t, table.Correct(4, "a", "b"))
		install(t, table, placed(2, "c"))
		require.Equal(t, control.NodeID("c"), leaderOf(t, table, 4))
		install(t, table, placed(3, "a"))
		require.Equal(t, control.NodeID("a"), leaderOf(t, table, 4))
	})
	t.Run("void once the node holds no replica", func(t *testing.T) {
		t.Parallel()
		table := serving(t)
		require.True(t, table.Correct(4, "a", "b"))
		moved := placed(2, "a")
		moved.Groups[4].Replicas = []control.Replica{{Node: "a"}, {Node: "c"}}
		install(t, table, moved)
		require.Equal(t, control.NodeID("a"), leaderOf(t, table, 4))
	})
}

// The table is hammered from all sides; the race detector and the invariant
// that a leader is always a replica are the checks.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	cp := newControlPlane()
	table := open(t, cp)
	cp.publish(placed(1, "a"), nil)
	waitReady(t, table)
	ids := []control.NodeID{"a", "b", "c", "stranger"}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				g := data.Group((i * 7) % data.Groups)
				route, ok := table.Lookup(g)
				if !ok || route.replica(route.LeaderID()) == nil {
					t.Error("a leader that is no replica")
					return
				}
				table.Correct(g, route.LeaderID(), ids[(i+w)%len(ids)])
				table.Forget(g, ids[i%len(ids)])
			}
		})
	}
	for v := uint64(2); v < 50; v++ {
		cp.publish(placed(v, ids[v%3]), nil)
	}
	wg.Wait()
	waitVersion(t, table, 49)
}

func BenchmarkLookup(b *testing.B) {
	for name, corrected := range map[string]bool{"plain": false, "corrected": true} {
		b.Run(name, func(b *testing.B) {
			table := &Table{cfg: Config{Log: discard()}, ready: make(chan struct{})}
			_, err := table.install(placed(1, "a"), false)
			require.NoError(b, err)
			if corrected {
				table.Correct(9, "a", "b")
			}
			b.ReportAllocs()
			for b.Loop() {
				if route, ok := table.Lookup(9); !ok || route.Leader == nil {
					b.Fatal("no route")
				}
			}
		})
	}
}
