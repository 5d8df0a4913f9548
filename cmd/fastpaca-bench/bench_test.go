package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPercentile(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i))
	}
	for p, want := range map[float64]time.Duration{0: 0, 50: 50, 99: 99, 100: 99} {
		require.Equal(t, want, percentile(hundred, p))
	}
	require.Zero(t, percentile(nil, 50))
	require.EqualValues(t, 7, percentile([]time.Duration{7}, 99))
}

func TestMedian(t *testing.T) {
	t.Parallel()
	values := []float64{3, 1, 2}
	require.EqualValues(t, 2, median(values))
	require.Equal(t, []float64{3, 1, 2}, values, "left as they were")
	require.EqualValues(t, 2, median([]float64{4, 1, 2, 3}))
	require.Zero(t, median(nil))
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	got, err := parseStat([]byte("4242 (a) b (c) S 17 4242 4242 0 -1 4194304 1 2 3 4 150 50 30 20 20 0 1 0 99 1 2"))
	require.NoError(t, err)
	require.Equal(t, processStat{parent: 17, own: 2 * time.Second, reaped: 500 * time.Millisecond}, got)
	for _, broken := range []string{"", "1 (x", "1 (x) S 1 2", "1 (x) S one 2 3 4 5 6 7 8 9 10 11 12 13 14 15"} {
		_, err := parseStat([]byte(broken))
		require.Error(t, err, broken)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("4242 (a) b) S 17 4242 4242 0 -1 4194304 1 2 3 4 150 50 30 20 20"))
	f.Fuzz(func(t *testing.T, text []byte) { _, _ = parseStat(text) })
}

// A child that burns processor time counts while it runs and after it ended.
func TestProcessorTimeOfATree(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo done; read x`)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	_, err = stdout.Read(make([]byte, 10))
	require.NoError(t, err)
	used, err := processorTime(cmd.Process.Pid)
	require.NoError(t, err)
	require.Positive(t, used)
	memory, err := resident(cmd.Process.Pid)
	require.NoError(t, err)
	require.Positive(t, memory)
	_, err = processorTime(1 << 30)
	require.Error(t, err)
}

func TestSelection(t *testing.T) {
	t.Parallel()
	got, err := selection("append, idle")
	require.NoError(t, err)
	require.Equal(t, []string{"append", "idle"}, got)
	_, err = selection("append,nope")
	require.ErrorContains(t, err, "nope")
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.ErrorIs(t, run(t.Context(), []string{"-fastpaca", "/nonexistent"}, &out, &out), os.ErrNotExist)
	require.Error(t, run(t.Context(), []string{"-run", "nope"}, &out, &out))
	require.Error(t, run(t.Context(), []string{"-nope"}, &out, &out))
}

func TestTextsNeedNoEscapes(t *testing.T) {
	t.Parallel()
	bodies := newTexts(300)
	require.NotEqual(t, bodies.at(0), bodies.at(1))
	require.Equal(t, bodies.at(3), bodies.at(3+distinctTexts))
	var batch struct {
		Messages []struct {
			Parts []struct{ Text string }
		}
	}
	require.NoError(t, json.Unmarshal(appendBatch(nil, 3, 5, bodies), &batch))
	require.Len(t, batch.Messages, 3)
	require.Len(t, batch.Messages[2].Parts[0].Text, 300)
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := report{
		Machine: "a machine",
		Append:  []appendResult{{Side: "fastpaca", Runs: []appendRun{{PerSecond: 1000}, {PerSecond: 3000}, {PerSecond: 2000}}}},
		Tail:    []tailResult{{Length: 200, Runs: []tailRun{{P50Micros: 1}}}},
		Idle:    &idleResult{CorePercent: 1.5},
		Memory:  &memoryResult{Points: []memoryPoint{{250_000, 100}}},
		Start:   &startResult{EmptyMS: []float64{900}},
	}
	r.atLeast("speed", 1, 0.8, "×")
	require.False(t, r.missed())
	r.atMost("cost", 120, 100, "µs")
	require.True(t, r.missed())
	var out strings.Builder
	require.NoError(t, r.print(&out))
	require.Contains(t, out.String(), "fastpaca, median  2000")
	require.Contains(t, out.String(), "MISSED")
}

// stub answers at once, or fails.
type stub struct{ err error }

func (s stub) write(context.Context, string, []byte) error { return s.err }
func (s stub) close()                                      {}

func TestClosedLoopMeasuresOnlyThePhase(t *testing.T) {
	t.Parallel()
	var now atomic.Int32
	now.Store(int32(over))
	measured, err := closedLoop(t.Context(), stub{}, []string{"a"}, newTexts(1), &now, 1)
	require.NoError(t, err)
	require.Empty(t, measured)

	now.Store(int32(measuring))
	broken := errors.New("broken")
	_, err = closedLoop(t.Context(), stub{broken}, []string{"a"}, newTexts(1), &now, 1)
	require.ErrorIs(t, err, broken)
}

// The other side really appends, durably, what it says.
func TestPostgresSide(t *testing.T) {
	if _, err := process.FindPostgres("postgres"); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "fastpaca-bench-test-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	b := &bench{dir: dir, log: &bytes.Buffer{}, settings: settings{
		Clients: 4, Conversations: 10, TextBytes: 300, Duration: 200 * time.Millisecond, Warmup: 50 * time.Millisecond,
	}}
	p, err := b.freshPostgres(t.Context())
	require.NoError(t, err)
	t.Cleanup(p.stop)
	ids := []string{"a", "b"}
	require.NoError(t, p.prepare(t.Context(), ids))
	run, err := b.measureAppends(t.Context(), p, ids)
	require.NoError(t, err)
	require.Positive(t, run.Appends)
	require.Positive(t, run.ResidentMiB)

	w, err := p.connect(t.Context())
	require.NoError(t, err)
	t.Cleanup(w.close)
	var holes int
	require.NoError(t, w.(*sqlWriter).conn.QueryRow(t.Context(), `
		select count(*) from conversations c
		where last_seq <> (select count(*) from messages m where m.conversation_id = c.id)`).Scan(&holes))
	require.Zero(t, holes, "sequences are dense on this side too")
}
