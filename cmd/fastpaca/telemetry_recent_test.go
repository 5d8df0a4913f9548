package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/latency"
)

// What routers and data nodes measure is in the status of the cluster, with
// nothing configured for it. The roles run as they do in a cluster, with a token.
func TestTheStatusTellsHowLongAppendsTake(t *testing.T) {
	addresses, err := freeAddresses(3)
	require.NoError(t, err)
	control, data, public := addresses[0], addresses[1], addresses[2]
	dir := t.TempDir()
	startRole(t, io.Discard, "control", "--id", "c1", "--data-dir", dir, "--listen", control, "--replication-factor", "1", "--token", clusterToken)
	code, stdout, stderr := cluster(t, control, "status")
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, stdout, "no process has reported")
	startRole(t, io.Discard, "data", "--id", "d1", "--data-dir", dir, "--listen", data, "--control", control, "--token", clusterToken)
	startRole(t, io.Discard, "router", "--listen", public, "--control", control, "--token", clusterToken)
	waitReady(t, public)
	require.Eventually(t, func() bool {
		return request(t, http.MethodPut, public, "/v1/conversations/c", `{}`) == http.StatusOK
	}, 30*time.Second, 20*time.Millisecond)
	const appends = 20
	for range appends {
		require.Equal(t, http.StatusCreated, request(t, http.MethodPost, public, "/v1/conversations/c/messages", oneMessage))
	}
	var got *latencyAnswer
	require.Eventually(t, func() bool {
		code, stdout, stderr := cluster(t, control, "status", "-o", "json")
		require.Equal(t, exitOK, code, stderr)
		var status statusAnswer
		require.NoError(t, json.Unmarshal([]byte(stdout), &status))
		got = status.AppendLatency
		if got == nil || len(got.Stages) != int(stages) {
			return false
		}
		for _, s := range got.Stages {
			if s.Count < appends {
				return false
			}
		}
		return true
	}, 20*latency.Interval, latency.Interval/4)
	require.Equal(t, 2, got.Processes)
	require.Zero(t, got.LeftOut)
	require.Zero(t, got.Failed)
	require.Positive(t, got.PerSecond)
	for i, s := range got.Stages {
		require.Equal(t, stageInOrder[i], s.Stage)
		require.EqualValues(t, appends, s.Count, s.Stage)
		require.Positive(t, s.P50Seconds, s.Stage)
		require.GreaterOrEqual(t, s.P99Seconds, s.P50Seconds, s.Stage)
	}
	code, stdout, stderr = cluster(t, control, "status")
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, stdout, "0 failed, as 2 processes report")
	require.Regexp(t, `log_sync +[0-9.]+ ms +[0-9.]+ ms`, stdout)
}

// stageInOrder is how an append passes.
var stageInOrder = []string{"total", "receive", "route_wait", "forward", "queue", "log_sync", "replicate", "apply", "respond"}

// A process reports what it measures and nothing else, and what it reports is
// taken.
func TestRecentAppends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		routes, stores bool
		want           []string
	}{
		"router": {true, false, []string{"total", "receive", "route_wait", "forward", "respond"}},
		"data":   {false, true, []string{"queue", "log_sync", "replicate", "apply"}},
		"server": {true, true, stageInOrder},
	} {
		m, _ := newMeasured(c.routes, c.stores)
		for o := range outcomes {
			m.stage(stageTotal, o, time.Millisecond, nil)
			m.stage(stageApply, o, time.Millisecond, nil)
		}
		parts, failed := m.recent()
		var names []string
		for i := range parts {
			names = append(names, parts[i].Name)
			if parts[i].Name == "total" || parts[i].Name == "apply" {
				require.EqualValues(t, 1, parts[i].Count(), "%s: only what succeeded", name)
				require.Equal(t, time.Millisecond, parts[i].Sum)
			}
		}
		require.Equal(t, c.want, names, name)
		require.EqualValues(t, outcomes-2, failed, "neither what succeeded nor what was wrong to ask")
		require.NoError(t, latency.NewBoard().Report(t.Context(), &latency.Summary{
			Process: "p", Window: time.Second, Bounds: latencyDurations(), Stages: parts, Failed: failed,
		}))
	}
}

func TestLatencyTable(t *testing.T) {
	t.Parallel()
	require.Equal(t, "-", milliseconds(0, 0))
	require.Equal(t, "1.50 ms", milliseconds(1, 0.0015))
	require.Nil(t, latencyOf(nil))
	bounds := []time.Duration{time.Millisecond, 2 * time.Millisecond}
	answer := latencyOf(&latency.Recent{
		Processes: 3, LeftOut: 1, PerSecond: 12.5, Window: time.Minute, Failed: 4, Bounds: bounds,
		Stages: []latency.Stage{{Name: "total", Counts: []uint64{1, 1, 0}, Sum: 3 * time.Millisecond}},
	})
	require.Equal(t, fmt.Sprint([]latencyOfPart{{"total", 2, 0.0015, 0.001, 0.00198}}), fmt.Sprint(answer.Stages))
	for want, a := range map[string]*latencyAnswer{
		"no control member answered":   nil,
		"no process has reported":      {},
		"12.5/s over 1m0s, 4 failed":   answer,
		"1 of other versions left out": answer,
	} {
		var out lockedBuffer
		(&operator{out: &out}).latencyTable(a)
		require.Contains(t, out.String(), want)
	}
}
