package latency

import "time"

// Window adds up the last minutes of histograms that only ever grow. One
// goroutine uses it.
type Window struct {
	process string
	bounds  []time.Duration
	samples []sample // a ring once it is full
	oldest  int
}

type sample struct {
	at     time.Time
	stages []Stage
	failed uint64
}

// NewWindow returns a window over the last n samples, at least one. process names
// this run of this process.
func NewWindow(process string, bounds []time.Duration, n int) *Window {
	return &Window{process: process, bounds: bounds, samples: make([]sample, 0, max(n, 1))}
}

// Add takes a sample of everything since the process started, and keeps it. The
// stages are the same each time. It returns what has happened since the oldest
// sample kept; the first call has nothing to compare with and returns false.
func (w *Window) Add(at time.Time, stages []Stage, failed uint64) (Summary, bool) {
	now := sample{at, stages, failed}
	if len(w.samples) == 0 {
		w.samples = append(w.samples, now)
		return Summary{}, false
	}
	since := &w.samples[w.oldest]
	sum := Summary{
		Process: w.process, Window: at.Sub(since.at), Bounds: w.bounds,
		Stages: make([]Stage, len(stages)), Failed: failed - min(failed, since.failed),
	}
	for i := range stages {
		sum.Stages[i] = difference(&stages[i], &since.stages[i])
	}
	if len(w.samples) < cap(w.samples) {
		w.samples = append(w.samples, now)
	} else {
		w.samples[w.oldest] = now
		w.oldest = (w.oldest + 1) % len(w.samples)
	}
	return sum, sum.Window > 0
}

func difference(now, before *Stage) Stage {
	d := Stage{Name: now.Name, Counts: make([]uint64, len(now.Counts)), Sum: max(now.Sum-before.Sum, 0)}
	for i, n := range now.Counts {
		d.Counts[i] = n - min(n, before.Counts[i])
	}
	return d
}
