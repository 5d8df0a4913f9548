package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// appendRun is one measured run of one side.
type appendRun struct {
	Appends         int     `json:"appends"`
	PerSecond       float64 `json:"appends_per_second"`
	ServerMicros    float64 `json:"server_cpu_us_per_append"`
	ClientMicros    float64 `json:"client_cpu_us_per_append"`
	P50Milliseconds float64 `json:"p50_ms"`
	P99Milliseconds float64 `json:"p99_ms"`
	ResidentMiB     float64 `json:"resident_mib"`
}

// appendResult holds the runs of one side.
type appendResult struct {
	Side string      `json:"side"`
	Runs []appendRun `json:"runs"`
}

// append measures both sides in turn, so that neither gets the better half of
// a machine whose speed drifts.
func (b *bench) append(ctx context.Context) error {
	results := []appendResult{{Side: "fastpaca"}, {Side: "PostgreSQL"}}
	starts := []func() (side, error){
		func() (side, error) { return b.freshFastpaca(ctx) },
		func() (side, error) { return b.freshPostgres(ctx) },
	}
	for n := range b.Runs {
		for i, start := range starts {
			run, err := b.appendOnce(ctx, start)
			if err != nil {
				return fmt.Errorf("%s: %w", results[i].Side, err)
			}
			results[i].Runs = append(results[i].Runs, run)
			b.progress("append %d/%d: %s %.0f/s, %.0f µs of server CPU each", n+1, b.Runs, results[i].Side, run.PerSecond, run.ServerMicros)
		}
	}
	b.report.Append = results
	ours := medianOf(results[0].Runs, func(r appendRun) float64 { return r.PerSecond })
	theirs := medianOf(results[1].Runs, func(r appendRun) float64 { return r.PerSecond })
	b.report.atLeast("appends/s over PostgreSQL's", ours/theirs, 0.8, "×")
	b.report.atMost("server CPU per append", medianOf(results[0].Runs, func(r appendRun) float64 { return r.ServerMicros }), 100, "µs")
	return nil
}

func (b *bench) appendOnce(ctx context.Context, start func() (side, error)) (appendRun, error) {
	s, err := start()
	if err != nil {
		return appendRun{}, err
	}
	defer s.stop()
	ids := make([]string, b.Conversations)
	for i := range ids {
		ids[i] = conversation(i)
	}
	if err := s.prepare(ctx, ids); err != nil {
		return appendRun{}, err
	}
	return b.measureAppends(ctx, s, ids)
}

// phase says which appends count: those that begin and end while it is the
// same measured one.
type phase int32

const (
	warming phase = iota
	measuring
	over
)

// measureAppends runs closed-loop clients against a side.
func (b *bench) measureAppends(ctx context.Context, s side, ids []string) (appendRun, error) {
	var (
		wg        sync.WaitGroup
		now       atomic.Int32
		latencies = make([][]time.Duration, b.Clients)
		failures  = make([]error, b.Clients)
		bodies    = newTexts(b.TextBytes)
	)
	writers := make([]writer, 0, b.Clients)
	defer func() {
		for _, w := range writers {
			w.close()
		}
	}()
	for range b.Clients {
		w, err := s.connect(ctx)
		if err != nil {
			return appendRun{}, err
		}
		writers = append(writers, w)
	}
	for i, w := range writers {
		wg.Go(func() {
			latencies[i], failures[i] = closedLoop(ctx, w, ids, bodies, &now, uint64(i))
		})
	}
	pause(ctx, b.Warmup)
	before, beforeOwn, started := mustCost(s), ownProcessorTime(), time.Now()
	now.Store(int32(measuring))
	pause(ctx, b.Duration)
	now.Store(int32(over))
	elapsed, after, afterOwn := time.Since(started), mustCost(s), ownProcessorTime()
	memory, memoryErr := footprint(s)
	wg.Wait()
	if err := errors.Join(append(failures, ctx.Err(), memoryErr)...); err != nil {
		return appendRun{}, err
	}
	return summarise(slices.Concat(latencies...), elapsed, after-before, afterOwn-beforeOwn, memory)
}

// mustCost returns 0 for a side that is gone, which its clients report better.
func mustCost(s side) time.Duration {
	used, err := cost(s)
	if err != nil {
		return 0
	}
	return used
}

func summarise(all []time.Duration, elapsed, server, client time.Duration, memory int64) (appendRun, error) {
	if len(all) == 0 {
		return appendRun{}, errors.New("no append was answered in the measured time")
	}
	slices.Sort(all)
	n := float64(len(all))
	return appendRun{
		Appends:         len(all),
		PerSecond:       n / elapsed.Seconds(),
		ServerMicros:    microseconds(server) / n,
		ClientMicros:    microseconds(client) / n,
		P50Milliseconds: milliseconds(percentile(all, 50)),
		P99Milliseconds: milliseconds(percentile(all, 99)),
		ResidentMiB:     mebibytes(memory),
	}, nil
}

// closedLoop appends one after another until the run is over, and returns the
// latencies of the measured ones.
func closedLoop(ctx context.Context, w writer, ids []string, bodies texts, now *atomic.Int32, seed uint64) ([]time.Duration, error) {
	r := rand.New(rand.NewPCG(seed, 1))
	var measured []time.Duration
	for n := int(seed); ; n++ {
		began := phase(now.Load())
		if began == over || ctx.Err() != nil {
			return measured, nil
		}
		start := time.Now()
		if err := w.write(ctx, ids[r.IntN(len(ids))], bodies.at(n)); err != nil {
			return measured, err
		}
		if began == measuring && phase(now.Load()) == measuring {
			measured = append(measured, time.Since(start))
		}
	}
}

// pause waits, or less when the context ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
