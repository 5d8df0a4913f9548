package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// tailRun is one run of tails of one conversation.
type tailRun struct {
	P50Micros    float64 `json:"p50_us"`
	P99Micros    float64 `json:"p99_us"`
	ServerMicros float64 `json:"server_cpu_us_per_read"`
}

type tailResult struct {
	Length int       `json:"conversation_messages"`
	Runs   []tailRun `json:"runs"`
}

const (
	tailMeasure = 2 * time.Second
	tailSlack   = 1.25
)

// tail compares the newest messages of a long conversation with those of a
// short one, in turn.
func (b *bench) tail(ctx context.Context) error {
	f, err := b.freshFastpaca(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	results := []tailResult{{Length: 200}, {Length: 100_000}}
	bodies := newTexts(b.TextBytes)
	for _, r := range results {
		if err := fillConversation(ctx, f, conversation(r.Length), r.Length, bodies); err != nil {
			return err
		}
	}
	for range max(b.Runs, 3) {
		for i := range results {
			run, err := tailOnce(ctx, f, conversation(results[i].Length))
			if err != nil {
				return err
			}
			results[i].Runs = append(results[i].Runs, run)
		}
	}
	b.report.Tail = results
	p50 := func(r tailRun) float64 { return r.P50Micros }
	processor := func(r tailRun) float64 { return r.ServerMicros }
	short, long := results[0].Runs, results[1].Runs
	b.progress("tail: p50 %.0f µs of 200 messages, %.0f µs of 100,000", medianOf(short, p50), medianOf(long, p50))
	b.report.atMost("tail p50, 100,000 messages over 200", medianOf(long, p50)/medianOf(short, p50), tailSlack, "×")
	b.report.atMost("tail CPU, 100,000 messages over 200", medianOf(long, processor)/medianOf(short, processor), tailSlack, "×")
	return nil
}

func tailOnce(ctx context.Context, f *fastpaca, id string) (tailRun, error) {
	w, err := dialWire(ctx, f.server.Address())
	if err != nil {
		return tailRun{}, err
	}
	defer w.close()
	target := path(id) + "/tail?limit=100"
	if _, err := w.must(200, "GET", target, nil); err != nil {
		return tailRun{}, err
	}
	before, err := cost(f)
	if err != nil {
		return tailRun{}, err
	}
	var latencies []time.Duration
	for started := time.Now(); time.Since(started) < tailMeasure && ctx.Err() == nil; {
		began := time.Now()
		if _, err := w.must(200, "GET", target, nil); err != nil {
			return tailRun{}, err
		}
		latencies = append(latencies, time.Since(began))
	}
	after, err := cost(f)
	if err != nil {
		return tailRun{}, err
	}
	if len(latencies) == 0 {
		return tailRun{}, fmt.Errorf("no read was answered: %w", context.Cause(ctx))
	}
	slices.Sort(latencies)
	return tailRun{
		P50Micros:    microseconds(percentile(latencies, 50)),
		P99Micros:    microseconds(percentile(latencies, 99)),
		ServerMicros: microseconds(after-before) / float64(len(latencies)),
	}, nil
}
