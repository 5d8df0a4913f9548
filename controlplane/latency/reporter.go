package latency

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// windowSamples makes a window of five minutes.
	windowSamples = int(5 * time.Minute / Interval)
	// reportTimeout bounds one report. A member that is away costs no more.
	reportTimeout = time.Second
)

// Target takes reports: a Client, or the Board of this process.
type Target interface {
	Report(ctx context.Context, s *Summary) error
}

// Reporter reports until it is closed. Nothing that it does is waited for, and
// what a target misses it is told the next time.
//
// Goroutines: one.
type Reporter struct {
	conf ReporterConfig
	stop context.CancelFunc
	done sync.WaitGroup
}

// ReporterConfig is what a Reporter is started with. All of it is required.
type ReporterConfig struct {
	Process string
	Bounds  []time.Duration
	// Read returns everything measured since the process started, in stages that
	// are the same each time. The result is the Reporter's.
	Read    func() (stages []Stage, failed uint64)
	Targets []Target
	// Logger hears at debug level of reports that fail: a member that is away is
	// noticed by others too.
	Logger *slog.Logger
	// Ticks says when to report; every Interval if it is nil.
	Ticks <-chan time.Time
}

// StartReporter starts reporting.
func StartReporter(conf ReporterConfig) *Reporter {
	ctx, stop := context.WithCancel(context.Background())
	r := &Reporter{conf: conf, stop: stop}
	r.done.Go(func() { r.run(ctx) })
	return r
}

// Close stops reporting and waits for it.
func (r *Reporter) Close() error {
	r.stop()
	r.done.Wait()
	return nil
}

func (r *Reporter) run(ctx context.Context) {
	ticks := r.conf.Ticks
	if ticks == nil {
		ticker := time.NewTicker(Interval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	window := NewWindow(r.conf.Process, r.conf.Bounds, windowSamples)
	for {
		stages, failed := r.conf.Read()
		if summary, ok := window.Add(time.Now(), stages, failed); ok {
			r.report(ctx, &summary)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
	}
}

func (r *Reporter) report(ctx context.Context, s *Summary) {
	for _, target := range r.conf.Targets {
		ctx, cancel := context.WithTimeout(ctx, reportTimeout)
		err := target.Report(ctx, s)
		cancel()
		if err != nil && ctx.Err() == nil {
			r.conf.Logger.Debug("latencies are not reported", "error", err)
		}
	}
}
