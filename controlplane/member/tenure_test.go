package member

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// placedState is a catalog with nodes d1 and d2, all groups on both.
func placedState(t testing.TB) *catalog.State {
	t.Helper()
	state := &catalog.State{}
	apply := func(command catalog.Command) {
		data, err := catalog.Encode(command)
		require.NoError(t, err)
		next, result, err := catalog.Apply(state, state.Index+1, data)
		require.NoError(t, errors.Join(err, result.Err))
		state = next
	}
	apply(&catalog.CreateCluster{ClusterID: "x", ReplicationFactor: 3})
	place := &catalog.PlaceGroups{}
	for _, id := range []rpc.NodeID{"d1", "d2"} {
		apply(&catalog.RegisterNode{ID: id, Address: "a", Incarnation: "i"})
	}
	for number := range catalog.Groups {
		place.Groups = append(place.Groups, catalog.GroupPlacement{
			Group: uint16(number), Voters: []rpc.NodeID{"d1", "d2"}, Preferred: "d1", Bootstrap: "d1",
		})
	}
	apply(place)
	return state
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	registered := &catalog.Node{ID: "d1", Address: "a", Incarnation: "i"}
	for name, test := range map[string]struct {
		address, incarnation string
		session              *session
		young                bool
		want                 error
	}{
		"restarted":                    {"a", "i", &session{seen: time.Now()}, true, nil},
		"restarted under a new leader": {"a", "i", nil, true, nil},
		"moved":                        {"b", "i", &session{}, false, nil},
		"moved under a new leader":     {"b", "i", nil, true, nil},
		"copied":                       {"b", "i", &session{seen: time.Now()}, false, rpc.ErrUnavailable},
		"copied, the other is calling": {"b", "i", &session{calls: 1}, false, rpc.ErrUnavailable},
		"wiped, not seen since long":   {"a", "j", &session{}, false, nil},
		"wiped, never seen":            {"a", "j", nil, false, nil},
		"wiped under a new leader":     {"a", "j", nil, true, rpc.ErrUnavailable},
		"another one lives":            {"a", "j", &session{seen: time.Now()}, true, rpc.ErrNodeConflict},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenure := newTenure(1, time.Hour, time.Hour)
			if !test.young {
				tenure.since = time.Time{}
			}
			if test.session != nil {
				test.session.info = registered.Info()
				tenure.sessions["d1"] = test.session
			}
			err := tenure.admit(&rpc.NodeInfo{ID: "d1", Address: test.address, Incarnation: test.incarnation}, registered)
			if test.want == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, test.want)
			}
		})
	}
}

func TestWarmth(t *testing.T) {
	t.Parallel()
	state := placedState(t)
	tenure := newTenure(1, time.Hour, time.Hour)
	require.True(t, tenure.warm(&catalog.State{}), "nothing is placed, so nothing is missing")
	require.False(t, tenure.warm(state))
	tenure.enter(&rpc.Report{Node: rpc.NodeInfo{ID: "d1"}}, state)
	require.False(t, tenure.warm(state))
	tenure.enter(&rpc.Report{Node: rpc.NodeInfo{ID: "d2"}}, state)
	require.True(t, tenure.warm(state))

	tenure = newTenure(1, time.Hour, time.Hour)
	tenure.since = time.Now().Add(-warmUp)
	require.True(t, tenure.warm(state), "a node that is gone is not waited for")
}

// Whatever nodes report in whatever order: the hint of a group never falls back
// to a lower term, names a holder of a replica, and every change is counted.
func TestHintsOnlyMoveForward(t *testing.T) {
	t.Parallel()
	state := placedState(t)
	rapid.Check(t, func(r *rapid.T) {
		tenure := newTenure(1, time.Hour, time.Hour)
		for range rapid.IntRange(1, 30).Draw(r, "reports") {
			before, hints := tenure.leaders, tenure.hints
			node := rapid.SampledFrom([]rpc.NodeID{"d1", "d2", "stranger"}).Draw(r, "node")
			report := &rpc.Report{Node: rpc.NodeInfo{ID: node}}
			for range rapid.IntRange(0, 3).Draw(r, "groups") {
				report.Groups = append(report.Groups, rpc.GroupReport{
					Group:   rapid.Uint16Range(0, 2).Draw(r, "group"),
					Leading: rapid.Bool().Draw(r, "leading"),
					Term:    rapid.Uint64Range(0, 5).Draw(r, "term"),
				})
			}
			tenure.enter(report, state)
			tenure.leave(node)
			changed := false
			for number, hint := range tenure.leaders {
				require.GreaterOrEqual(r, hint.term, before[number].term)
				require.NotEqual(r, rpc.NodeID("stranger"), hint.node)
				changed = changed || hint.node != before[number].node
			}
			if changed {
				require.Greater(r, tenure.hints, hints)
			} else {
				// Two reports of one call may have changed it there and back.
				require.GreaterOrEqual(r, tenure.hints, hints)
			}
			require.Zero(r, tenure.sessions[node].calls)
		}
	})
}

func TestGroupsThatRanAreFormedOnce(t *testing.T) {
	t.Parallel()
	state := placedState(t)
	tenure := newTenure(1, time.Hour, time.Hour)
	tenure.enter(&rpc.Report{Node: rpc.NodeInfo{ID: "d1"}, Groups: []rpc.GroupReport{
		{Group: 1, Leading: true, Term: 1}, {Group: 2, LastIndex: 1}, {Group: 3},
	}}, state)
	require.ElementsMatch(t, []uint16{1, 2}, tenure.unformed(state))
	data, err := catalog.Encode(&catalog.FormGroups{Groups: []uint16{1}})
	require.NoError(t, err)
	state, _, err = catalog.Apply(state, state.Index+1, data)
	require.NoError(t, err)
	require.Equal(t, []uint16{2}, tenure.unformed(state))
	require.Len(t, tenure.ran, 1)
}

func TestWakeUpsDoNotPileUp(t *testing.T) {
	t.Parallel()
	tenure := newTenure(1, time.Hour, time.Hour)
	for range 100 {
		tenure.wake()
	}
	require.Len(t, tenure.kick, 1)
}

func TestLastingProblemsAreLoggedNowAndThen(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&out, nil))
	tenure := newTenure(1, time.Hour, time.Hour)
	for range 10 {
		tenure.complain(logger, errors.New("first"))
	}
	tenure.complain(logger, errors.New("second"))
	require.Equal(t, 2, strings.Count(out.String(), "\n"))
	tenure.quietUntil = time.Now().Add(-time.Second)
	tenure.complain(logger, errors.New("second"))
	require.Equal(t, 3, strings.Count(out.String(), "\n"))
}

// Readers keep a table while others are published.
func TestTablesAreNotShared(t *testing.T) {
	t.Parallel()
	state := placedState(t)
	placed := state.Table().Groups
	var leaders [catalog.Groups]leaderHint
	leaders[1].node = "d2"
	leaders[2].node = "gone"
	first := withLeaders(placed, &leaders)
	require.Equal(t, rpc.NodeID("d2"), first[1].Leader)
	require.Empty(t, first[2].Leader, "it holds no replica")
	leaders[1].node = "d1"
	require.Equal(t, rpc.NodeID("d1"), withLeaders(placed, &leaders)[1].Leader)
	require.Equal(t, rpc.NodeID("d2"), first[1].Leader)
	require.Empty(t, placed[1].Leader)
}
