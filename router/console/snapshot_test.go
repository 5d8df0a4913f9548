package console

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	patience = 60 * time.Second // against hanging for ever
	tick     = 5 * time.Millisecond
)

func shown(t *testing.T, p *picture) sent {
	t.Helper()
	require.NotNil(t, p)
	var s sent
	require.NoError(t, json.Unmarshal(p.plain, &s))
	return s
}

func newTestSnapshot(c *fakeCluster) (*snapshot, *bytes.Buffer) {
	log := &bytes.Buffer{}
	return newSnapshot(c, nil, slog.New(slog.NewTextHandler(log, nil)), time.Now), log
}

// TestSnapshotKeepsTheLast: when the control plane is away, what was seen last is
// shown with the moment it was seen, and the log is told once.
func TestSnapshotKeepsTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := &fakeCluster{}
		s, log := newTestSnapshot(cluster)
		defer s.close()
		first := shown(t, s.get(t.Context()))
		require.Equal(t, time.Now().UnixMilli(), first.At)
		require.Contains(t, string(first.Cluster), `"c1"`)

		cluster.set(true, nil)
		for range 3 {
			pass(lookInterval)
			away := shown(t, s.get(t.Context()))
			require.Equal(t, first.At, away.At)
			require.NotEmpty(t, away.Problem)
			require.NotContains(t, away.Problem, "10.9.8.7", "the reason is for the log")
			require.JSONEq(t, string(first.Cluster), string(away.Cluster))
		}
		require.Equal(t, 1, strings.Count(log.String(), "cannot see the cluster"))
		require.Contains(t, log.String(), "connection refused")

		cluster.set(false, nil)
		pass(lookInterval)
		back := shown(t, s.get(t.Context()))
		require.Equal(t, time.Now().UnixMilli(), back.At)
		require.Empty(t, back.Problem)
		require.Equal(t, 1, strings.Count(log.String(), "sees the cluster again"))
	})
}

// fakeLatency tells of appends, or does not.
type fakeLatency struct {
	recent *Recent
	err    error
	hangs  bool
}

func (f *fakeLatency) Recent(ctx context.Context) (*Recent, error) {
	if f.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return f.recent, f.err
}

// TestSnapshotWithAppends: what is known of appends is shown, and the rest without
// it.
func TestSnapshotWithAppends(t *testing.T) {
	t.Parallel()
	known := &Recent{Seconds: 300, Processes: 4, Stages: []Stage{{Name: "log_sync", Count: 9, P50: 0.001, P99: 0.05, Mean: 0.002}}}
	for name, row := range map[string]struct {
		latency Latency
		want    *Recent
	}{
		"known":      {&fakeLatency{recent: known}, known},
		"unknown":    {&fakeLatency{}, nil},
		"fails":      {&fakeLatency{err: errAway}, nil},
		"hangs":      {&fakeLatency{hangs: true}, nil},
		"not at all": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSnapshot(&fakeCluster{}, row.latency, slog.New(slog.DiscardHandler), time.Now)
				defer s.close()
				got := shown(t, s.get(t.Context()))
				require.Empty(t, got.Problem)
				var o overview
				require.NoError(t, json.Unmarshal(got.Cluster, &o))
				require.Equal(t, row.want, o.Appends)
				require.Len(t, o.Nodes, 1)
			})
		})
	}
}

// TestSnapshotNeverSaw: a cluster that never answered has no state and a problem.
func TestSnapshotNeverSaw(t *testing.T) {
	t.Parallel()
	s, _ := newTestSnapshot(&fakeCluster{fails: true})
	defer s.close()
	got := shown(t, s.get(t.Context()))
	require.Zero(t, got.At)
	require.NotEmpty(t, got.Problem)
	require.Empty(t, got.Cluster)
}

// TestSnapshotIsShared: the cluster is looked at once in a while, however many ask.
func TestSnapshotIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := &fakeCluster{}
		s, _ := newTestSnapshot(cluster)
		defer s.close()
		for range 50 {
			s.get(t.Context())
		}
		require.Equal(t, 1, cluster.looked())
		pass(lookInterval)
		s.get(t.Context())
		require.Equal(t, 2, cluster.looked())
		pass(time.Hour)
		require.Equal(t, 2, cluster.looked(), "nobody asks: it is left alone")
	})
}

// TestSnapshotDoesNotWaitLong: a slow look is bounded, and while it lasts the last
// picture is shown.
func TestSnapshotDoesNotWaitLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cluster := &fakeCluster{}
		s, _ := newTestSnapshot(cluster)
		defer s.close()
		first := s.get(t.Context())
		cluster.set(false, make(chan struct{}))
		pass(lookInterval)
		began := time.Now()
		require.Same(t, first, s.get(t.Context()))
		require.Equal(t, lookPatience, time.Since(began))
		pass(lookTimeout)
		synctest.Wait()
		require.NotEmpty(t, shown(t, s.current).Problem, "the look has timed out")
	})
}

func TestSnapshotAskedInVain(t *testing.T) {
	t.Parallel()
	s, _ := newTestSnapshot(&fakeCluster{hold: make(chan struct{})})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Nil(t, s.get(ctx), "whoever asked has gone")
	s.close()
	require.Nil(t, s.get(t.Context()), "closed before it saw anything")
}
