package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

const (
	// failoverKills is how often a data node is killed.
	failoverKills = 10
	// failoverTarget is the time until appends to the groups of a killed node
	// succeed again, in seconds, as the median over the kills.
	failoverTarget = 4.0
	// failoverBound ends a benchmark of a cluster that does not recover.
	failoverBound = time.Minute
	// failoverPace is how long each client rests between two appends: enough
	// clients to have one in every group, without loading the machine so much
	// that elections wait for a processor.
	failoverPace = 50 * time.Millisecond
	// failoverRetry is the rest before an append is sent again.
	failoverRetry = 5 * time.Millisecond
	// interrupted is how long a group must have been without an append to count
	// as one that the killed node led: no election is faster.
	interrupted = 500 * time.Millisecond
	// groups is how many groups conversations hash to.
	groups = 256
)

// failoverResult holds what each kill did.
type failoverResult struct {
	Kills []failoverKill `json:"kills"`
}

type failoverKill struct {
	Node string `json:"node"`
	// AllSeconds is the time from the kill until an append had succeeded in
	// every group; MedianSeconds the median over the interrupted groups.
	AllSeconds    float64 `json:"all_s"`
	MedianSeconds float64 `json:"median_s"`
	Interrupted   int     `json:"groups_interrupted"`
	// Failures are answers other than an ack, to groups that were interrupted
	// and to the others.
	Failures       int `json:"failures"`
	FailuresOthers int `json:"failures_others"`
}

// failover kills one data node after the other with SIGKILL, while a client
// appends to each of the groups.
func (b *bench) failover(ctx context.Context) error {
	f, err := b.freshCluster(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	ids := onePerGroup()
	if err := f.prepare(ctx, ids); err != nil {
		return err
	}
	loadCtx, cancel := context.WithCancel(ctx)
	probes := startProbes(loadCtx, f, ids, newTexts(b.TextBytes))
	defer func() {
		cancel()
		probes.wg.Wait()
	}()
	result := &failoverResult{}
	for i := range failoverKills {
		if err := probes.await(ctx, time.Now()); err != nil {
			return err
		}
		kill, err := b.killOnce(ctx, f, probes, i%len(f.Data))
		if err != nil {
			return err
		}
		result.Kills = append(result.Kills, kill)
		b.progress("failover %d/%d: %s killed: %d groups interrupted, half of them back after %.2f s, all after %.2f s; %d failed answers, %d to other groups",
			i+1, failoverKills, kill.Node, kill.Interrupted, kill.MedianSeconds, kill.AllSeconds, kill.Failures, kill.FailuresOthers)
	}
	b.report.Failover = result
	b.report.atMost("failover: until appends succeed in all groups of a killed node, median",
		medianOf(result.Kills, func(k failoverKill) float64 { return k.AllSeconds }), failoverTarget, "s")
	b.report.atMost("failover: failed answers in groups that others lead",
		float64(slices.MaxFunc(result.Kills, func(a, b failoverKill) int { return a.FailuresOthers - b.FailuresOthers }).FailuresOthers), 0, "")
	return nil
}

// killOnce kills a node, waits until every group takes appends, and starts the
// node again.
func (b *bench) killOnce(ctx context.Context, f *fastpacaCluster, p *probes, at int) (failoverKill, error) {
	node := f.Data[at]
	p.reset()
	killed := time.Now()
	node.Kill()
	err := p.await(ctx, killed)
	kill := p.measure(killed)
	kill.Node = node.Name
	if err = errors.Join(err, node.Start()); err != nil {
		return kill, err
	}
	ready, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	return kill, node.WaitReady(ready)
}

// onePerGroup returns a conversation of each group, by the documented function:
// the first byte of the id's SHA-256.
func onePerGroup() []string {
	ids := make([]string, groups)
	for i, missing := 0, groups; missing > 0; i++ {
		id := conversation(i)
		sum := sha256.Sum256([]byte(id))
		if ids[sum[0]] == "" {
			ids[sum[0]] = id
			missing--
		}
	}
	return ids
}

// probes are closed-loop clients, one per group. Each append carries a message
// id and is sent until it is acknowledged.
// Goroutines: one per client.
type probes struct {
	wg     sync.WaitGroup
	groups []probe
}

// probe is what one client knows.
type probe struct {
	failures atomic.Int64

	mu   sync.Mutex // guards acks
	acks []ack      // since reset
}

// ack is one append that was acknowledged.
type ack struct{ called, returned time.Time }

func startProbes(ctx context.Context, f *fastpacaCluster, ids []string, bodies texts) *probes {
	p := &probes{groups: make([]probe, len(ids))}
	for i := range ids {
		p.wg.Go(func() { p.groups[i].run(ctx, f.address(), ids[i], i, bodies) })
	}
	return p
}

func (p *probe) run(ctx context.Context, address, id string, number int, bodies texts) {
	var w *wire
	defer func() {
		if w != nil {
			w.close()
		}
	}()
	target := path(id) + "/messages"
	for n := 0; ctx.Err() == nil; n++ {
		body := append([]byte(`{"message":{"id":"`), strconv.Itoa(n)...)
		body = append(append(append(body, `","role":"user","parts":`...), appendParts(nil, bodies.at(number*31+n))...), "}}"...)
		began := time.Now()
		for ctx.Err() == nil && !p.attempt(ctx, &w, address, target, body) {
			p.failures.Add(1)
			pause(ctx, failoverRetry)
		}
		p.mu.Lock()
		p.acks = append(p.acks, ack{began, time.Now()})
		p.mu.Unlock()
		pause(ctx, failoverPace)
	}
}

// attempt sends an append once, over a new connection if the last one broke.
func (p *probe) attempt(ctx context.Context, w **wire, address, target string, body []byte) bool {
	if *w == nil {
		dialed, err := dialWire(ctx, address)
		if err != nil {
			return false
		}
		*w = dialed
	}
	status, _, err := (*w).do("POST", target, body)
	if err != nil {
		(*w).close()
		*w = nil
	}
	return err == nil && (status == 200 || status == 201)
}

func (p *probes) reset() {
	for i := range p.groups {
		g := &p.groups[i]
		g.failures.Store(0)
		g.mu.Lock()
		g.acks = g.acks[:0]
		g.mu.Unlock()
	}
}

// first returns when an append that was called after a time was first
// acknowledged; one that was under way at that time counts as called then,
// for it was asked for again. It returns the zero time for never.
func (p *probe) first(after time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first time.Time
	for _, a := range p.acks {
		if a.returned.After(after) && (first.IsZero() || a.returned.Before(first)) && (a.called.After(after) || a.returned.Sub(after) > interrupted) {
			first = a.returned
		}
	}
	return first
}

// await returns once every group has acknowledged an append since a time.
func (p *probes) await(ctx context.Context, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, failoverBound)
	defer cancel()
	for {
		missing := 0
		for i := range p.groups {
			if p.groups[i].first(since).IsZero() {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d groups take no appends: %w", missing, ctx.Err())
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// measure tells what a kill at a time did, once all groups are back.
func (p *probes) measure(killed time.Time) failoverKill {
	var (
		out  failoverKill
		gone []float64
	)
	for i := range p.groups {
		g := &p.groups[i]
		took := g.first(killed).Sub(killed)
		failures := int(g.failures.Load())
		out.AllSeconds = max(out.AllSeconds, took.Seconds())
		if took >= interrupted {
			gone = append(gone, took.Seconds())
			out.Failures += failures
		} else {
			out.FailuresOthers += failures
		}
	}
	out.Interrupted, out.MedianSeconds = len(gone), median(gone)
	return out
}
