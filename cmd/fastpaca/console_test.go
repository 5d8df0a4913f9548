package main

import (
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/latency"
	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/router/console"
)

const consoleToken = "the-token-of-this-cluster-0123456789"

func openMember(t *testing.T) *member.Server {
	t.Helper()
	control, err := member.Open(member.Config{ID: "n1", DataDir: filepath.Join(t.TempDir(), "control"), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, control.Close()) })
	require.Eventually(t, func() bool { return control.Ready() == nil }, time.Minute, 10*time.Millisecond)
	return control
}

// TestLocalConsole: a server's console looks without a token, and gives orders
// with the cluster's only.
func TestLocalConsole(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	control := openMember(t)
	source := localConsole(control, nil, consoleToken, log)
	require.Nil(t, source.latency)
	var status struct {
		ClusterID string `json:"cluster_id"`
	}
	require.NoError(t, source.cluster.Look(t.Context(), "/status", &status))
	require.NotEmpty(t, status.ClusterID)
	require.Error(t, source.cluster.Look(t.Context(), "/nothing", &status))

	for _, wrong := range []string{"", "x", consoleToken + "x", strings.ToUpper(consoleToken)} {
		_, err := source.operator.Order(t.Context(), wrong, http.MethodPost, "/rebalance", []byte(`{}`))
		require.ErrorIs(t, err, console.ErrToken)
	}
	answer, err := source.operator.Order(t.Context(), consoleToken, http.MethodGet, "/status", nil)
	require.NoError(t, err)
	require.Contains(t, string(answer), status.ClusterID)
	_, err = source.operator.Order(t.Context(), consoleToken, http.MethodPost, "/nodes/nobody/drain", []byte(`{}`))
	refused, ok := errors.AsType[*console.Refusal](err)
	require.True(t, ok, err)
	require.Equal(t, http.StatusNotFound, refused.Status)
	require.NotEmpty(t, refused.Message)

	require.Nil(t, localConsole(control, nil, "", log).operator, "without a token it can only look")
}

// TestRemoteOperatorKeepsGuesses: a wrong token does not reach the control plane,
// which is not there.
func TestRemoteOperatorKeepsGuesses(t *testing.T) {
	o := &remoteOperator{credentials: credentialConfig{Token: consoleToken}}
	_, err := o.Order(t.Context(), "a-guess", http.MethodGet, "/status", nil)
	require.ErrorIs(t, err, console.ErrToken)
}

func TestConsoleToldOfLatency(t *testing.T) {
	board := latency.NewBoard()
	told := localLatency{board}
	got, err := told.Recent(t.Context())
	require.NoError(t, err)
	require.Nil(t, got, "nobody has reported")
	require.NoError(t, board.Report(t.Context(), &latency.Summary{
		Process: "p1", Window: time.Minute, Bounds: []time.Duration{time.Millisecond, time.Second},
		Stages: []latency.Stage{{Name: "total", Counts: []uint64{10, 0, 0}, Sum: 5 * time.Millisecond}},
	}))
	got, err = told.Recent(t.Context())
	require.NoError(t, err)
	require.InDelta(t, 60, got.Seconds, 1e-9)
	require.Equal(t, 1, got.Processes)
	require.Len(t, got.Stages, 1)
	require.InDelta(t, 0.0005, got.Stages[0].P50, 1e-9)
	got.Stages[0].P50 = 0
	require.InDelta(t, 0.00099, got.Stages[0].P99, 1e-9)
	got.Stages[0].P99 = 0
	require.Equal(t, console.Stage{Name: "total", Count: 10, Mean: 0.0005}, got.Stages[0])
}
