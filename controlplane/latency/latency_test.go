package latency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testBounds = []time.Duration{10, 20, 40}

func stage(name string, sum time.Duration, counts ...uint64) Stage {
	return Stage{Name: name, Counts: counts, Sum: sum}
}

func summary(process string, stages ...Stage) *Summary {
	return &Summary{Process: process, Window: 10 * time.Second, Bounds: testBounds, Stages: stages, Failed: 1}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		counts []uint64
		q      float64
		want   time.Duration
	}{
		"none":         {[]uint64{0, 0, 0, 0}, 0.5, 0},
		"in the first": {[]uint64{10, 0, 0, 0}, 0.5, 5},
		"between":      {[]uint64{1, 2, 1, 0}, 0.5, 15},
		"empty before": {[]uint64{0, 0, 4, 0}, 0.25, 25},
		"above all":    {[]uint64{1, 0, 0, 99}, 0.99, 40},
		"other bounds": {[]uint64{1, 0}, 0.5, 0},
	} {
		s := stage("x", 0, c.counts...)
		require.Equal(t, c.want, s.Quantile(c.q, testBounds), name)
	}
	s := stage("x", 100, 3, 1, 0, 0)
	require.Equal(t, time.Duration(25), s.Mean())
	require.Zero(t, (&Stage{}).Mean())
	require.Zero(t, s.Quantile(0.5, nil))
}

// A quantile is never outside the bucket that holds it.
func TestQuantilesStayInTheirBucket(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := Stage{Counts: rapid.SliceOfN(rapid.Uint64Range(0, 1000), 4, 4).Draw(t, "counts")}
		q := rapid.Float64Range(0.01, 0.99).Draw(t, "q")
		got := s.Quantile(q, testBounds)
		if s.Count() == 0 {
			require.Zero(t, got)
			return
		}
		below, i := 0.0, 0
		for i = range s.Counts {
			if below += float64(s.Counts[i]); s.Counts[i] > 0 && below >= q*float64(s.Count()) {
				break
			}
		}
		edges := append([]time.Duration{0}, testBounds...)
		low, high := edges[min(i, 3)], edges[min(i+1, 3)]
		require.True(t, low <= got && got <= high, "%v at %v: %v", s.Counts, q, got)
	})
}

func TestWindowForgetsWhatIsOld(t *testing.T) {
	t.Parallel()
	w := NewWindow("p", testBounds, 2)
	at := time.Now()
	add := func(after time.Duration, n, failed uint64) (Summary, bool) {
		return w.Add(at.Add(after), []Stage{stage("total", time.Duration(n), n, 0, 0, 0)}, failed)
	}
	_, ok := add(0, 5, 1)
	require.False(t, ok)
	s, ok := add(time.Second, 7, 1)
	require.True(t, ok)
	require.Equal(t, Summary{"p", time.Second, testBounds, []Stage{stage("total", 2, 2, 0, 0, 0)}, 0}, s)
	s, _ = add(2*time.Second, 10, 4)
	require.Equal(t, 2*time.Second, s.Window)
	require.EqualValues(t, 5, s.Stages[0].Count())
	require.EqualValues(t, 3, s.Failed)
	s, _ = add(3*time.Second, 10, 4) // the first sample is gone
	require.Equal(t, 2*time.Second, s.Window)
	require.EqualValues(t, 3, s.Stages[0].Count())
	_, ok = add(0, 10, 4)
	require.False(t, ok, "the clock went back")
}

func TestTheBoardAddsUp(t *testing.T) {
	t.Parallel()
	b := NewBoard()
	require.Equal(t, Recent{}, b.Recent())
	now := time.Now()
	b.now = func() time.Time { return now }
	report := func(s *Summary) { require.NoError(t, b.Report(t.Context(), s)) }
	report(summary("r1", stage("total", 100, 5, 5, 0, 0), stage("custom", 1, 1, 0, 0, 0)))
	report(summary("r1", stage("total", 200, 10, 10, 0, 0), stage("respond", 1, 1, 0, 0, 0)))
	report(summary("r2", stage("total", 50, 0, 0, 0, 10)))
	report(summary("d1", stage("apply", 7, 1, 1, 1, 1), stage("queue", 7, 1, 1, 1, 1)))
	other := summary("old", Stage{Name: "total", Counts: []uint64{1, 1}})
	other.Bounds = testBounds[:1]
	report(other)
	got := b.Recent()
	require.Equal(t, 5-1, got.Processes)
	require.Equal(t, 1, got.LeftOut)
	require.InDelta(t, 3, got.PerSecond, 1e-9)
	require.EqualValues(t, 3, got.Failed)
	require.Equal(t, []Stage{
		stage("total", 250, 10, 10, 0, 10), stage("queue", 7, 1, 1, 1, 1), stage("apply", 7, 1, 1, 1, 1), stage("respond", 1, 1, 0, 0, 0),
	}, got.Stages)
	now = now.Add(forgetAfter + 1)
	report(summary("r3", stage("total", 1, 1, 0, 0, 0)))
	require.Equal(t, 1, b.Recent().Processes, "the others are silent")
}

func TestTheBoardIsBounded(t *testing.T) {
	t.Parallel()
	b := NewBoard()
	now := time.Now()
	b.now = func() time.Time { return now }
	for i := range maxProcesses {
		require.NoError(t, b.Report(t.Context(), summary(fmt.Sprint("p", i))))
	}
	require.ErrorIs(t, b.Report(t.Context(), summary("one more")), ErrFull)
	require.NoError(t, b.Report(t.Context(), summary("p7")), "who is known may go on")
	now = now.Add(forgetAfter + 1)
	require.NoError(t, b.Report(t.Context(), summary("one more")), "nobody else is left")

	for name, spoil := range map[string]func(*Summary){
		"no process":    func(s *Summary) { s.Process = "" },
		"long process":  func(s *Summary) { s.Process = strings.Repeat("x", maxNameBytes+1) },
		"no window":     func(s *Summary) { s.Window = 0 },
		"endless":       func(s *Summary) { s.Window = maxWindow + 1 },
		"no bounds":     func(s *Summary) { s.Bounds = nil },
		"descending":    func(s *Summary) { s.Bounds = []time.Duration{1, 3, 2} },
		"many bounds":   func(s *Summary) { s.Bounds = make([]time.Duration, maxBounds+1) },
		"short counts":  func(s *Summary) { s.Stages[0].Counts = []uint64{1} },
		"no name":       func(s *Summary) { s.Stages[0].Name = "" },
		"negative":      func(s *Summary) { s.Stages[0].Sum = -1 },
		"twice":         func(s *Summary) { s.Stages = append(s.Stages, s.Stages[0]) },
		"many stages":   func(s *Summary) { s.Stages = slices.Repeat(s.Stages, maxStages+1) },
		"another count": func(s *Summary) { s.Bounds = testBounds[:2] },
	} {
		s := summary("p", stage("total", 1, 1, 1, 1, 1))
		spoil(s)
		require.ErrorIs(t, b.Report(t.Context(), s), ErrInvalid, name)
	}
	// As many kinds of stages as a summary may have are shown, however many processes invent some.
	for i := range 3 * maxStages {
		require.NoError(t, b.Report(t.Context(), summary("one more", stage(fmt.Sprint("s", i), 1, 1, 0, 0, 0))))
		require.NoError(t, b.Report(t.Context(), summary(fmt.Sprint("q", i), stage(fmt.Sprint("t", i), 1, 1, 0, 0, 0))))
	}
	require.Len(t, b.Recent().Stages, maxStages)
}

// serve puts a board behind gRPC and returns a client of it.
func serve(t *testing.T, b *Board, allow func(context.Context) bool) *Client {
	listener := bufconn.Listen(64 << 10)
	s := grpc.NewServer()
	b.Register(s, allow)
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///board", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		s.Stop()
		<-done
	})
	return NewClient(conn)
}

// What a process measures reaches whoever asks, over a network.
func TestReportsReachTheBoard(t *testing.T) {
	t.Parallel()
	board := NewBoard()
	client := serve(t, board, nil)
	ticks := make(chan time.Time)
	var n uint64
	r := StartReporter(ReporterConfig{
		Process: "p", Bounds: testBounds, Targets: []Target{broken{}, client}, Logger: slog.New(slog.DiscardHandler), Ticks: ticks,
		Read: func() ([]Stage, uint64) {
			n += 10
			return []Stage{stage("total", time.Duration(n)*15, n, n, 0, 0)}, n
		},
	})
	ticks <- time.Now()
	ticks <- time.Now() // the report before has ended
	recent, err := client.Recent(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, 1, recent.Processes)
	require.Equal(t, testBounds, recent.Bounds)
	require.Len(t, recent.Stages, 1)
	require.GreaterOrEqual(t, recent.Stages[0].Count(), uint64(20))
	require.Positive(t, recent.PerSecond)
	require.Positive(t, recent.Failed)
	require.Positive(t, recent.Window)
}

type broken struct{}

func (broken) Report(context.Context, *Summary) error { return errors.New("away") }

func TestRefusalsOfReports(t *testing.T) {
	t.Parallel()
	refused := serve(t, NewBoard(), func(context.Context) bool { return false })
	require.Equal(t, codes.PermissionDenied, status.Code(errors.Unwrap(refused.Report(t.Context(), summary("p")))))
	_, err := refused.Recent(t.Context())
	require.NoError(t, err, "everybody may look")
	client := serve(t, NewBoard(), nil)
	require.Equal(t, codes.InvalidArgument, status.Code(errors.Unwrap(client.Report(t.Context(), summary("")))))
	board := NewBoard()
	for i := range maxProcesses {
		require.NoError(t, board.Report(t.Context(), summary(fmt.Sprint(i))))
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(errors.Unwrap(serve(t, board, nil).Report(t.Context(), summary("p")))))
}
