package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// mostUnderWay bounds the appends under way at a time. At it, the rate falls,
// which the result shows.
const mostUnderWay = 2000

// settle bounds what is still to do once the load has ended.
const settle = time.Minute

// load is a constant rate of appends.
type load struct {
	client        *client
	rate          int
	conversations int
}

// result is what clients saw.
type result struct {
	Appends int     `json:"appends"`
	Seconds float64 `json:"seconds"`
	// Failed first tries, and what they were answered, at most a few.
	Retried int      `json:"retried"`
	Answers []string `json:"answers,omitempty"`
	// Failed second tries.
	Lost      int      `json:"lost"`
	LostSaid  []string `json:"lost_answers,omitempty"`
	P50       float64  `json:"p50_ms"`
	P99       float64  `json:"p99_ms"`
	Longest   float64  `json:"longest_ms"`
	Messages  int      `json:"messages"` // found in the conversations afterwards
	latencies []time.Duration
}

// mostAnswers is how many different failures are kept.
const mostAnswers = 10

func (r *result) verdict() error {
	switch {
	case r.Appends == 0:
		return fmt.Errorf("nothing was appended")
	case r.Lost > 0:
		return fmt.Errorf("%d of %d appends failed twice: %q", r.Lost, r.Appends, r.LostSaid)
	case r.Messages != r.Appends:
		return fmt.Errorf("%d appends were acknowledged, %d messages are there", r.Appends, r.Messages)
	}
	return nil
}

// run appends until ctx ends, waits for what is under way, and counts.
func (l *load) run(ctx context.Context) (*result, error) {
	for n := range l.conversations {
		if err := l.client.create(ctx, n); err != nil {
			return nil, err
		}
	}
	var (
		mu       sync.Mutex // above r
		r        = &result{}
		underWay sync.WaitGroup
		slots    = make(chan struct{}, mostUnderWay)
	)
	finishing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	started := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(l.rate))
	defer tick.Stop()
	for number := 0; ctx.Err() == nil; number++ {
		select {
		case <-ctx.Done():
			continue
		case <-tick.C:
		}
		slots <- struct{}{}
		underWay.Go(func() {
			defer func() { <-slots }()
			begun := time.Now()
			first, second := l.once(finishing, number)
			mu.Lock()
			defer mu.Unlock()
			r.add(time.Since(begun), first, second)
		})
	}
	r.Seconds = time.Since(started).Seconds()
	time.AfterFunc(settle, cancel)
	underWay.Wait()
	for n := range l.conversations {
		found, err := l.client.lastSeq(finishing, n)
		if err != nil {
			return nil, err
		}
		r.Messages += found
	}
	r.finish()
	return r, nil
}

// once appends one message: a try, and a second one if that failed.
func (l *load) once(ctx context.Context, number int) (first answer, second *answer) {
	conversation := number % l.conversations
	first = l.client.append(ctx, number, conversation, number)
	if first.ok() {
		return first, nil
	}
	select {
	case <-ctx.Done():
	case <-time.After(first.after):
	}
	again := l.client.append(ctx, number+1, conversation, number)
	return first, &again
}

func (r *result) add(took time.Duration, first answer, second *answer) {
	r.Appends++
	r.latencies = append(r.latencies, took)
	if second == nil {
		return
	}
	r.Retried++
	r.Answers = note(r.Answers, first)
	if !second.ok() {
		r.Lost++
		r.LostSaid = note(r.LostSaid, *second)
	}
}

func note(answers []string, a answer) []string {
	if text := a.String(); len(answers) < mostAnswers && !slices.Contains(answers, text) {
		return append(answers, text)
	}
	return answers
}

// finish sorts latencies into quantiles.
func (r *result) finish() {
	if len(r.latencies) == 0 {
		return
	}
	slices.Sort(r.latencies)
	at := func(q float64) float64 {
		return float64(r.latencies[int(q*float64(len(r.latencies)-1))].Microseconds()) / 1000
	}
	r.P50, r.P99, r.Longest = at(0.5), at(0.99), at(1)
}
