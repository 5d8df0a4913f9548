package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// openLoopRate is how many appends a second are asked for, whether the
	// ones before have been answered or not.
	openLoopRate = 500
	// openLoopClients bounds the appends under way at a time.
	openLoopClients = 128
	// What the open loop must reach.
	openLoopP99     = 15.0 // milliseconds
	openLoopOverIts = 1.5  // times etcd's p99
)

// openLoopResult holds the latencies of one side, from the moment an append was
// due, so that one that had to wait for another counts with its wait.
type openLoopResult struct {
	Side string        `json:"side"`
	Runs []openLoopRun `json:"runs"`
}

type openLoopRun struct {
	Appends         int     `json:"appends"`
	P50Milliseconds float64 `json:"p50_ms"`
	P99Milliseconds float64 `json:"p99_ms"`
}

func (b *bench) openLoop(ctx context.Context) error {
	var results []openLoopResult
	for run := range b.Runs {
		for i, start := range b.clusterSides(ctx) {
			s, err := start()
			if err != nil {
				return err
			}
			measured, err := b.openLoopOnce(ctx, s)
			s.stop()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			if run == 0 {
				results = append(results, openLoopResult{Side: s.name()})
			}
			results[i].Runs = append(results[i].Runs, measured)
			b.progress("openloop %d/%d: %s p50 %.2f ms, p99 %.2f ms", run+1, b.Runs, s.name(), measured.P50Milliseconds, measured.P99Milliseconds)
		}
	}
	b.report.OpenLoop = results
	p99 := func(r openLoopRun) float64 { return r.P99Milliseconds }
	ours, theirs := medianOf(results[0].Runs, p99), medianOf(results[1].Runs, p99)
	b.report.atMost("open loop: p99", ours, openLoopP99, "ms")
	b.report.atMost("open loop: p99 over etcd's", ours/theirs, openLoopOverIts, "×")
	return nil
}

// due is one append of the open loop.
type due struct {
	number int
	at     time.Time
	counts bool // not part of the warm-up
}

func (b *bench) openLoopOnce(ctx context.Context, s side) (openLoopRun, error) {
	ids := b.conversationIDs()
	if err := s.prepare(ctx, ids); err != nil {
		return openLoopRun{}, err
	}
	var (
		bodies    = newTexts(b.TextBytes)
		queue     = make(chan due, openLoopRate) // a second of them may wait
		latencies = make([][]time.Duration, openLoopClients)
		failures  = make([]error, openLoopClients)
		wg        sync.WaitGroup
	)
	for i := range openLoopClients {
		w, err := s.connect(ctx)
		if err != nil {
			close(queue)
			wg.Wait()
			return openLoopRun{}, err
		}
		wg.Go(func() {
			defer w.close()
			for d := range queue {
				err := w.write(ctx, ids[d.number%len(ids)], bodies.at(d.number))
				if err != nil {
					failures[i] = errors.Join(failures[i], err)
				} else if d.counts {
					latencies[i] = append(latencies[i], time.Since(d.at))
				}
			}
		})
	}
	missed := schedule(ctx, queue, b.Warmup, b.Duration)
	close(queue)
	wg.Wait()
	if err := errors.Join(append(failures, ctx.Err(), missed)...); err != nil {
		return openLoopRun{}, err
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return openLoopRun{Appends: len(all), P50Milliseconds: milliseconds(percentile(all, 50)), P99Milliseconds: milliseconds(percentile(all, 99))}, nil
}

var errTooSlow = errors.New("more appends were waiting than the open loop holds")

// schedule queues appends when they are due.
func schedule(ctx context.Context, queue chan<- due, warmup, duration time.Duration) error {
	const gap = time.Second / openLoopRate
	first := time.Now()
	for n := range int((warmup + duration) / gap) {
		after := time.Duration(n) * gap
		d := due{number: n, at: first.Add(after), counts: after >= warmup}
		pause(ctx, time.Until(d.at))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		select {
		case queue <- d:
		default:
			return errTooSlow
		}
	}
	return nil
}
