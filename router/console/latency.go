package console

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// sampleInterval is the least time between two samples, while pages ask.
	sampleInterval = 2 * time.Second
	// idleInterval is the time between them while none does, so that a page has
	// something to show when it is opened.
	idleInterval = 10 * time.Second
	// sampleGap is how old a sample may be to be compared with. After a longer one
	// (the process was stopped) an average would hide what happened.
	sampleGap = 3 * idleInterval
	// latencyWindow is how far back the points reach.
	latencyWindow = 5 * time.Minute
	// maxSamples bounds the samples kept.
	maxSamples = int(latencyWindow/sampleInterval) + 1
	// latencyFamily is the histogram that is read. Its labels are stage and
	// outcome.
	latencyFamily = "fastpaca_append_duration_seconds"
	stageTotal    = "total"
	outcomeOK     = "ok"
	// stageNode is what the stages known here leave of the total: the data node
	// that answered, in another process.
	stageNode = "node"
	// stageApply is the last stage of a data node, known only to its process.
	stageApply = "apply"
)

// history is what pages are told of appends.
type history struct {
	// Measured is false when the process has no histogram of appends: its
	// telemetry is switched off.
	Measured bool    `json:"measured"`
	Points   []point `json:"points"` // of the last minutes, ascending
	// Window is nil without appends in these minutes.
	Window *Recent `json:"window,omitempty"`
}

// point is what happened between two samples. Latencies are in seconds, and 0
// without appends.
type point struct {
	At     int64   `json:"at"`     // its end, in milliseconds since 1970
	Rate   float64 `json:"rate"`   // appends acknowledged a second
	Failed float64 `json:"failed"` // appends that ended otherwise, a second
	P50    float64 `json:"p50,omitempty"`
	P99    float64 `json:"p99,omitempty"`
}

// sample is the histogram at one moment.
type sample struct {
	at       time.Time
	measured bool
	total    distribution            // acknowledged appends
	failed   uint64                  // all others
	stages   map[string]distribution // of acknowledged appends
}

// latency compares samples. They are taken when somebody asks, and now and then.
type latency struct {
	gatherer prometheus.Gatherer
	now      func() time.Time

	mu      sync.Mutex // guards samples, and is held while one is taken
	samples []*sample  // ascending, at most maxSamples, of latencyWindow
}

// run takes samples until ctx ends, whether somebody asks or not.
func (l *latency) run(ctx context.Context) {
	ticker := time.NewTicker(idleInterval)
	defer ticker.Stop()
	for {
		// Who asks for the history is told of a failure.
		_ = l.refresh()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// refresh takes a sample if the newest is old.
func (l *latency) refresh() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refreshLocked()
}

func (l *latency) refreshLocked() error {
	now := l.now()
	if n := len(l.samples); n > 0 && now.Sub(l.samples[n-1].at) < sampleInterval {
		return nil
	}
	next, err := l.sample(now)
	if err != nil {
		return err
	}
	l.samples = append(l.samples, next)
	first := max(0, len(l.samples)-maxSamples)
	for now.Sub(l.samples[first].at) > latencyWindow {
		first++
	}
	l.samples = slices.Delete(l.samples, 0, first)
	return nil
}

// get returns what pages are told.
func (l *latency) get() (*history, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refreshLocked(); err != nil {
		return nil, err
	}
	newest := l.samples[len(l.samples)-1]
	h := &history{Measured: newest.measured, Points: []point{}, Window: recentOf(l.samples[0], newest)}
	for i, to := range l.samples[1:] {
		if from := l.samples[i]; to.at.Sub(from.at) <= sampleGap {
			h.Points = append(h.Points, compare(from, to))
		}
	}
	return h, nil
}

func (l *latency) sample(now time.Time) (*sample, error) {
	families, err := l.gatherer.Gather()
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	s := &sample{at: now, stages: make(map[string]distribution)}
	for _, family := range families {
		if family.GetName() != latencyFamily {
			continue
		}
		for _, m := range family.GetMetric() {
			s.add(m)
		}
	}
	return s, nil
}

func (s *sample) add(m *dto.Metric) {
	var stage, outcome string
	for _, label := range m.GetLabel() {
		switch label.GetName() {
		case "stage":
			stage = label.GetValue()
		case "outcome":
			outcome = label.GetValue()
		}
	}
	h := m.GetHistogram()
	if h == nil {
		return
	}
	s.measured = true
	switch {
	case outcome == outcomeOK && stage == stageTotal:
		s.total = distributionOf(h)
	case outcome == outcomeOK:
		s.stages[stage] = distributionOf(h)
	case stage == stageTotal:
		s.failed += h.GetSampleCount()
	}
}

// compare says what happened between two samples.
func compare(from, to *sample) point {
	seconds := to.at.Sub(from.at).Seconds()
	total := to.total.since(from.total)
	p := point{At: to.at.UnixMilli(), Rate: float64(total.count) / seconds, P50: total.quantile(0.5), P99: total.quantile(0.99)}
	if to.failed > from.failed {
		p.Failed = float64(to.failed-from.failed) / seconds
	}
	return p
}

// stageOrder is the order in which an append goes through its stages.
var stageOrder = []string{"receive", "route_wait", "forward", stageNode, "queue", "log_sync", "replicate", stageApply, "respond"}

// recentOf divides the time of the appends between two samples; nil if there were
// none.
func recentOf(oldest, newest *sample) *Recent {
	total := newest.total.since(oldest.total)
	if oldest == newest || total.count == 0 {
		return nil
	}
	r := &Recent{Seconds: newest.at.Sub(oldest.at).Seconds(), Processes: 1}
	rest := total.mean()
	stored := false // whether a data node in this process took part
	for stage, whole := range newest.stages {
		d := whole.since(oldest.stages[stage])
		if d.count == 0 {
			continue
		}
		r.Stages = append(r.Stages, stageOf(stage, d))
		rest -= d.mean()
		stored = stored || stage == stageApply
	}
	if rest > 0 && !stored {
		r.Stages = append(r.Stages, Stage{Name: stageNode, Count: total.count, Mean: rest})
	}
	slices.SortFunc(r.Stages, func(a, b Stage) int {
		return slices.Index(stageOrder, a.Name) - slices.Index(stageOrder, b.Name)
	})
	r.Stages = append(r.Stages, stageOf(stageTotal, total))
	return r
}

func stageOf(name string, d distribution) Stage {
	return Stage{Name: name, Count: d.count, P50: d.quantile(0.5), P99: d.quantile(0.99), Mean: d.mean()}
}
