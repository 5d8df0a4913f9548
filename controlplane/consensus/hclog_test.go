package consensus

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

func newLogged(level slog.Level) (*raftLogger, *bytes.Buffer) {
	var out bytes.Buffer
	return newRaftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))), &out
}

func TestRaftChatterGoesToDebug(t *testing.T) {
	t.Parallel()
	log, out := newLogged(slog.LevelInfo)
	log.Trace("a")
	log.Debug("b")
	log.Info("entering follower state")
	log.Warn("heartbeat timeout reached, starting election")
	require.Empty(t, out.String())
	require.False(t, log.IsTrace() || log.IsDebug() || log.IsInfo() || log.IsWarn())
	require.True(t, log.IsError())

	log.shared.settled.Store(true)
	require.True(t, log.IsWarn())
	log.With("peer", "c2").Warn("failed to contact", "time", 5)
	require.Contains(t, out.String(), `level=WARN msg="raft: failed to contact" peer=c2 time=5`)

	log, out = newLogged(slog.LevelDebug)
	log.Info("initial configuration", "servers", hclog.Fmt("%+v", []int{1, 2}))
	require.Contains(t, out.String(), `level=DEBUG msg="raft: initial configuration" servers="[1 2]"`)
	log.StandardLogger(nil).Print("from a library")
	require.Contains(t, out.String(), "from a library")
}

func TestRepeatedComplaintsAreCounted(t *testing.T) {
	t.Parallel()
	log, out := newLogged(slog.LevelInfo)
	for range 100 {
		log.Error("failed to heartbeat", "peer", "c2")
	}
	log.Named("net").Error("failed to heartbeat")
	log.Error("failed to append")
	require.Equal(t, 2, strings.Count(out.String(), "\n"), out.String())

	write, suppressed := log.shared.admit("failed to heartbeat", time.Now().Add(repeatInterval))
	require.True(t, write)
	require.Equal(t, 100, suppressed)

	for i := range 2 * maxRepeated {
		log.shared.admit(strings.Repeat("x", i), time.Now())
	}
	require.LessOrEqual(t, len(log.shared.repeats), maxRepeated)
}

func TestRaftLoggerNames(t *testing.T) {
	t.Parallel()
	log, _ := newLogged(slog.LevelWarn)
	require.Equal(t, "raft.snapshot", log.Named("snapshot").Name())
	require.Equal(t, "other", log.ResetNamed("other").Name())
	require.Equal(t, []any{"a", 1}, log.With("a", 1).ImpliedArgs())
	log.SetLevel(hclog.Trace)
	require.Equal(t, hclog.Error, log.GetLevel(), "the level is the handler's")
	silent := newRaftLogger(slog.New(slog.DiscardHandler))
	require.Equal(t, hclog.Off, silent.GetLevel())
}
