package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What delivery must reach: the time from sending an append to its frame at the
// subscriber, over the time to the append's own acknowledgement.
const (
	deliveryP50 = 1.3
	deliveryP99 = 2.0
	// deliveryPatience bounds the wait for the last messages.
	deliveryPatience = 10 * time.Second
)

// deliveryRun holds both times, from when appends were sent, in one run.
type deliveryRun struct {
	Appends          int     `json:"appends"`
	AckP50           float64 `json:"ack_p50_ms"`
	AckP99           float64 `json:"ack_p99_ms"`
	DeliveryP50      float64 `json:"delivery_p50_ms"`
	DeliveryP99      float64 `json:"delivery_p99_ms"`
	AfterAckP99      float64 `json:"delivery_after_ack_p99_ms"` // 0 if before it
	DeliveredFirst   float64 `json:"delivered_before_ack_percent"`
	RouterMicros     float64 `json:"router_cpu_us_per_append"`
	AllServersMicros float64 `json:"server_cpu_us_per_append"`
}

// delivery appends in an open loop to conversations that have one subscriber
// each, as front ends do: one connection per conversation.
func (b *bench) delivery(ctx context.Context) error {
	f, err := b.freshCluster(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	ids := b.conversationIDs()
	if err := f.prepareMany(ctx, ids); err != nil {
		return err
	}
	a, err := gather(ctx, overWebSocket, f.address(), ids, idleBuffer)
	defer a.close()
	if err != nil {
		return err
	}
	arrivals := newArrivals(len(ids))
	a.listen(arrivals.heard)
	var runs []deliveryRun
	for n := range b.Runs {
		stopProfiles := func() error { return nil }
		if b.ProfileDir != "" && n == 0 {
			stopProfiles = b.profile(ctx, f, filepath.Join(b.ProfileDir, "delivery"))
		}
		run, err := b.deliverOnce(ctx, f, ids, arrivals)
		if err := errors.Join(a.err(), err, stopProfiles()); err != nil {
			return err
		}
		runs = append(runs, run)
		b.progress("delivery %d/%d: acknowledged p50 %.2f ms, p99 %.2f ms; delivered p50 %.2f ms, p99 %.2f ms", n+1, b.Runs, run.AckP50, run.AckP99, run.DeliveryP50, run.DeliveryP99)
	}
	b.report.Delivery = runs
	b.report.atMost("delivery: p50 over the acknowledgement's", medianOf(runs, func(r deliveryRun) float64 { return r.DeliveryP50 / r.AckP50 }), deliveryP50, "×")
	b.report.atMost("delivery: p99 over the acknowledgement's", medianOf(runs, func(r deliveryRun) float64 { return r.DeliveryP99 / r.AckP99 }), deliveryP99, "×")
	return nil
}

// arrivals holds when each message of each conversation reached its subscriber.
type arrivals struct {
	total   atomic.Int64
	of      []arrived
	arrived chan struct{} // signalled after each, as far as somebody waits
}

type arrived struct {
	mu sync.Mutex  // guards at
	at []time.Time // by sequence, from 1 on
}

func newArrivals(n int) *arrivals {
	return &arrivals{of: make([]arrived, n), arrived: make(chan struct{}, 1)}
}

func (a *arrivals) heard(feed int, _ uint64) {
	now := time.Now()
	one := &a.of[feed]
	one.mu.Lock()
	one.at = append(one.at, now) // feeds see to it that none is left out
	one.mu.Unlock()
	a.total.Add(1)
	select {
	case a.arrived <- struct{}{}:
	default:
	}
}

// when returns when a message arrived.
func (a *arrivals) when(conversation int, seq uint64) (time.Time, error) {
	one := &a.of[conversation]
	one.mu.Lock()
	defer one.mu.Unlock()
	if seq == 0 || seq > uint64(len(one.at)) {
		return time.Time{}, fmt.Errorf("message %d of conversation %d was not delivered", seq, conversation)
	}
	return one.at[seq-1], nil
}

// await waits, within bounds, until so many messages have arrived in all.
func (a *arrivals) await(ctx context.Context, total int64) error {
	ctx, cancel := context.WithTimeout(ctx, deliveryPatience)
	defer cancel()
	for a.total.Load() < total {
		select {
		case <-a.arrived:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages were delivered: %w", a.total.Load(), total, ctx.Err())
		}
	}
	return nil
}

// sent is one acknowledged append.
type sent struct {
	conversation int
	seq          uint64
	at, acked    time.Time
	counts       bool
}

func (b *bench) deliverOnce(ctx context.Context, f *fastpacaCluster, ids []string, arrivals *arrivals) (deliveryRun, error) {
	var (
		bodies   = newTexts(b.TextBytes)
		queue    = make(chan due, openLoopRate) // a second of them may wait
		logs     = make([][]sent, openLoopClients)
		failures = make([]error, openLoopClients)
		wg       sync.WaitGroup
		before   = arrivals.total.Load()
	)
	for i := range openLoopClients {
		w, err := dialWire(ctx, f.address())
		if err != nil {
			close(queue)
			wg.Wait()
			return deliveryRun{}, err
		}
		wg.Go(func() {
			defer w.close()
			logs[i], failures[i] = appendDue(w, queue, ids, bodies)
		})
	}
	used := usage(f)
	missed := schedule(ctx, queue, b.Warmup, b.Duration)
	close(queue)
	wg.Wait()
	if err := errors.Join(append(failures, ctx.Err(), missed)...); err != nil {
		return deliveryRun{}, err
	}
	all := slices.Concat(logs...)
	if err := arrivals.await(ctx, before+int64(len(all))); err != nil {
		return deliveryRun{}, err
	}
	run, err := compareDelivery(all, arrivals)
	router, servers := used()
	run.RouterMicros, run.AllServersMicros = microseconds(router)/float64(len(all)), microseconds(servers)/float64(len(all))
	return run, err
}

// usage begins to count processor time; what it returns tells how much the
// router and all processes have used since.
func usage(f *fastpacaCluster) func() (router, all time.Duration) {
	now := func() (router, all time.Duration) {
		router, _ = processorTime(f.Routers[0].PID()) // one that is gone fails otherwise
		return router, mustCost(f)
	}
	routerBefore, allBefore := now()
	return func() (time.Duration, time.Duration) {
		router, all := now()
		return router - routerBefore, all - allBefore
	}
}

// appendDue appends what is due, and returns what was acknowledged.
func appendDue(w *wire, queue <-chan due, ids []string, bodies texts) (log []sent, err error) {
	var body []byte
	for d := range queue {
		if err != nil {
			continue // the queue is to be emptied
		}
		one := sent{conversation: d.number % len(ids), counts: d.counts}
		body = append(appendMessage(append(body[:0], `{"message":`...), bodies.at(d.number)), '}')
		target := path(ids[one.conversation]) + "/messages"
		one.at = time.Now()
		var answer []byte
		if answer, err = w.must(201, "POST", target, body); err != nil {
			continue
		}
		one.acked = time.Now()
		if one.seq, err = parseAck(answer); err == nil {
			log = append(log, one)
		}
	}
	return log, err
}

// parseAck returns the sequence in the answer to an append.
func parseAck(answer []byte) (uint64, error) {
	_, digits, ok := bytes.Cut(answer, []byte(`"seq":`))
	if !ok {
		return 0, fmt.Errorf("no sequence in %.100q", answer)
	}
	return parseDigits(digits)
}

func compareDelivery(all []sent, arrivals *arrivals) (deliveryRun, error) {
	var acks, deliveries, after []time.Duration
	first := 0
	for _, s := range all {
		if !s.counts {
			continue
		}
		at, err := arrivals.when(s.conversation, s.seq)
		if err != nil {
			return deliveryRun{}, err
		}
		acks = append(acks, s.acked.Sub(s.at))
		deliveries = append(deliveries, at.Sub(s.at))
		after = append(after, max(0, at.Sub(s.acked)))
		if at.Before(s.acked) {
			first++
		}
	}
	if len(acks) == 0 {
		return deliveryRun{}, errors.New("no append was answered in the measured time")
	}
	for _, durations := range [][]time.Duration{acks, deliveries, after} {
		slices.Sort(durations)
	}
	return deliveryRun{
		Appends: len(acks),
		AckP50:  milliseconds(percentile(acks, 50)), AckP99: milliseconds(percentile(acks, 99)),
		DeliveryP50: milliseconds(percentile(deliveries, 50)), DeliveryP99: milliseconds(percentile(deliveries, 99)),
		AfterAckP99: milliseconds(percentile(after, 99)), DeliveredFirst: 100 * float64(first) / float64(len(acks)),
	}, nil
}
