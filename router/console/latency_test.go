package console

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func newHistogram() (*prometheus.Registry, *prometheus.HistogramVec) {
	appends := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: latencyFamily, Buckets: []float64{0.001, 0.002, 0.005, 0.01, 0.1, 1},
	}, []string{"stage", "outcome"})
	registry := prometheus.NewRegistry()
	registry.MustRegister(appends)
	return registry, appends
}

func observe(h *prometheus.HistogramVec, n int, outcome string, stages map[string]float64) {
	for range n {
		for stage, seconds := range stages {
			h.WithLabelValues(stage, outcome).Observe(seconds)
		}
	}
}

func TestLatencyPoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry, appends := newHistogram()
		l := &latency{gatherer: registry, now: time.Now}
		observe(appends, 1000, "ok", map[string]float64{"total": 0.9}) // before anybody looked
		got, err := l.get()
		require.NoError(t, err)
		require.Empty(t, got.Points)
		require.Nil(t, got.Window)

		pass(sampleInterval)
		observe(appends, 98, "ok", map[string]float64{"total": 0.0015})
		observe(appends, 2, "ok", map[string]float64{"total": 0.05})
		observe(appends, 4, "overloaded", map[string]float64{"total": 0.5, "receive": 0.1})
		got, err = l.get()
		require.NoError(t, err)
		require.True(t, got.Measured)
		require.Len(t, got.Points, 1)
		p := got.Points[0]
		require.Equal(t, time.Now().UnixMilli(), p.At)
		require.InDelta(t, 50, p.Rate, 1e-9)
		require.InDelta(t, 2, p.Failed, 1e-9)
		require.InDelta(t, 0.0015, p.P50, 0.0005)
		require.True(t, p.P99 > 0.01 && p.P99 <= 0.1, p.P99)

		again, err := l.get()
		require.NoError(t, err)
		require.Equal(t, got, again, "too early for another sample")

		pass(sampleInterval)
		got, err = l.get()
		require.NoError(t, err)
		require.Len(t, got.Points, 2)
		require.Zero(t, got.Points[1].P99, "no appends")

		pass(sampleGap + time.Second)
		got, err = l.get()
		require.NoError(t, err)
		require.Len(t, got.Points, 2, "an average over a pause would hide what happened")

		pass(latencyWindow + time.Second)
		got, err = l.get()
		require.NoError(t, err)
		require.Empty(t, got.Points)
		require.Len(t, l.samples, 1)
	})
}

func TestLatencyStages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry, appends := newHistogram()
		l := &latency{gatherer: registry, now: time.Now}
		slow := map[string]float64{"total": 0.09, "receive": 0.001, "queue": 0.002, "log_sync": 0.08, "replicate": 0.004, "apply": 0.002, "respond": 0.001}
		fast := map[string]float64{"total": 0.009, "receive": 0.001, "queue": 0.001, "log_sync": 0.002, "replicate": 0.003, "apply": 0.001, "respond": 0.001}
		minutes := func(n int, stages map[string]float64) *Recent {
			for range n * 30 {
				observe(appends, 10, "ok", stages)
				pass(sampleInterval)
				require.NoError(t, l.refresh())
			}
			require.LessOrEqual(t, len(l.samples), maxSamples)
			got, err := l.get()
			require.NoError(t, err)
			return got.Window
		}
		require.NoError(t, l.refresh())
		got := minutes(2, slow)
		require.EqualValues(t, 120, got.Seconds)
		require.Equal(t, 1, got.Processes)
		var names []string
		sum := 0.0
		for _, s := range got.Stages[:len(got.Stages)-1] {
			names = append(names, s.Name)
			sum += s.Mean
			require.EqualValues(t, 600, s.Count)
			require.True(t, s.P50 > 0 && s.P50 <= s.P99, s)
		}
		require.Equal(t, []string{"receive", "queue", "log_sync", "replicate", "apply", "respond"}, names)
		total := got.Stages[len(got.Stages)-1]
		require.Equal(t, "total", total.Name)
		require.InDelta(t, total.Mean, sum, 1e-9, "the stages are all of it")
		require.Greater(t, got.Stages[2].P99, 0.01, "the disk is slow")

		got = minutes(5, fast)
		require.EqualValues(t, latencyWindow.Seconds(), got.Seconds)
		require.LessOrEqual(t, got.Stages[2].P99, 0.005, "that is over")
	})
}

// TestLatencyOfRouter: what data nodes in other processes need is the rest, of
// which the mean is known.
func TestLatencyOfRouter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry, appends := newHistogram()
		l := &latency{gatherer: registry, now: time.Now}
		require.NoError(t, l.refresh())
		pass(sampleInterval)
		observe(appends, 10, "ok", map[string]float64{"total": 0.010, "receive": 0.001, "forward": 0.002, "respond": 0.001})
		got, err := l.get()
		require.NoError(t, err)
		stages := got.Window.Stages
		require.Equal(t, "node", stages[2].Name)
		require.InDelta(t, 0.006, stages[2].Mean, 1e-9)
		require.Zero(t, stages[2].P99)
	})
}

// TestLatencyIsSampledUnasked: a page that is opened sees the minutes before.
func TestLatencyIsSampledUnasked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry, appends := newHistogram()
		c, _ := open(t, Config{Metrics: registry})
		for range 10 {
			pass(idleInterval)
			observe(appends, 1, "ok", map[string]float64{"total": 0.001})
		}
		pass(time.Second)
		synctest.Wait()
		got, err := c.latency.get()
		require.NoError(t, err)
		require.Len(t, got.Points, 10)
		require.NoError(t, c.Close())
	})
}

func TestLatencyWithoutTelemetry(t *testing.T) {
	t.Parallel()
	c, _ := open(t, Config{})
	got := ask(c, http.MethodGet, "/console/api/latency", "")
	require.Equal(t, http.StatusOK, got.Code)
	require.Contains(t, got.Body.String(), `"measured":false,"points":[]}`)
}

func TestLatencyThatCannotBeRead(t *testing.T) {
	t.Parallel()
	broken := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, errors.New("of the inside") })
	c, log := open(t, Config{Metrics: broken})
	for range 3 {
		got := ask(c, http.MethodGet, "/console/api/latency", "")
		require.Equal(t, http.StatusInternalServerError, got.Code)
		require.Equal(t, "internal", code(t, got))
		require.NotContains(t, got.Body.String(), "inside")
	}
	require.Equal(t, 1, strings.Count(log.String(), "cannot read the metrics"))
}

// TestDistribution: whatever was counted, quantiles ascend and stay within the
// bounds, and a difference counts what came between.
func TestDistribution(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, least []uint64) distribution {
			d := distribution{bounds: []float64{0.001, 0.01, 0.1, 1}, counts: make([]uint64, 4)}
			run := uint64(0)
			for i := range d.counts {
				run += rapid.Uint64Range(0, 1000).Draw(t, name)
				d.counts[i] = run
				if least != nil {
					d.counts[i] += least[i]
				}
			}
			d.count = d.counts[3] + rapid.Uint64Range(0, 3).Draw(t, "above")
			return d
		}
		before := draw("before", nil)
		after := draw("after", before.counts)
		after.count = max(after.count, before.count)
		d := after.since(before)
		require.Equal(t, after.count-before.count, d.count)
		last := 0.0
		for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
			v := d.quantile(q)
			require.GreaterOrEqual(t, v, last)
			require.LessOrEqual(t, v, 1.0)
			last = v
		}
		if after.count > before.count {
			require.Equal(t, before, before.since(after), "one that began anew is taken whole")
		}
	})
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	bounds := []float64{1, 2, 4}
	for name, row := range map[string]struct {
		counts []uint64
		count  uint64
		q      float64
		want   float64
	}{
		"nothing":                 {[]uint64{0, 0, 0}, 0, 0.5, 0},
		"middle of a bucket":      {[]uint64{0, 10, 10}, 10, 0.5, 1.5},
		"end of a bucket":         {[]uint64{5, 10, 10}, 10, 0.5, 1},
		"first bucket":            {[]uint64{10, 10, 10}, 10, 0.5, 0.5},
		"over an empty bucket":    {[]uint64{2, 2, 10}, 10, 0.6, 3},
		"above the highest bound": {[]uint64{0, 0, 0}, 10, 0.5, 4},
	} {
		t.Run(name, func(t *testing.T) {
			d := distribution{count: row.count, bounds: bounds, counts: row.counts}
			require.InDelta(t, row.want, d.quantile(row.q), 1e-9)
		})
	}
}
