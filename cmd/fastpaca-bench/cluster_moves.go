package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

const (
	// movesStored is how many bytes of text the groups hold in all before
	// anything moves.
	movesStored = 10 << 20
	// movesBefore is how long the latency is measured before anything moves, and
	// movesAfter how long the load goes on when everything is over.
	movesBefore = 20 * time.Second
	movesAfter  = 3 * time.Second
	// movesBound ends a benchmark in which nothing gets ahead.
	movesBound = 10 * time.Minute
	// What the moves must reach: the time of all together, the p99 of appends
	// meanwhile over that of before, and how soon a retry heals a failed append.
	movesSeconds   = 180.0
	movesP99Over   = 5.0
	movesCuredMost = 2.0
)

// movesResult is what moving replicas under load did.
type movesResult struct {
	Steps []movesStep `json:"steps"`
	// Appends were asked for; Failures are answers other than an ack, each of
	// which was asked for again with the same id; CuredSeconds is the longest that
	// it took from the first of them to the ack; Uncured never got one.
	Appends      int     `json:"appends"`
	Failures     int     `json:"failures"`
	CuredSeconds float64 `json:"cured_s"`
	Uncured      int     `json:"uncured"`
	// Lost were acknowledged and are not there, or not once.
	Lost int `json:"lost"`
}

// movesStep is one part of the time, and the latency of the appends that were
// due in it, from when they were due until they were acknowledged.
type movesStep struct {
	Name            string  `json:"name"`
	Seconds         float64 `json:"seconds"`
	Appends         int     `json:"appends"`
	Failures        int     `json:"failures"`
	P50Milliseconds float64 `json:"p50_ms"`
	P99Milliseconds float64 `json:"p99_ms"`
	MaxMilliseconds float64 `json:"max_ms"`
}

// moves measures what clients see while two nodes join, replicas are evened out
// and the first node is drained and removed.
func (b *bench) moves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, movesBound)
	defer cancel()
	f, err := b.freshCluster(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	ids := onePerGroup()
	bodies := newTexts(b.TextBytes)
	if err := fillGroups(ctx, f, ids, bodies); err != nil {
		return err
	}
	l := startMovesLoad(ctx, f.address(), ids, bodies)
	marks, err := b.moveAll(ctx, f)
	l.end()
	if err != nil {
		return err
	}
	result := l.result(marks)
	if result.Lost, err = l.lost(ctx, f); err != nil {
		return err
	}
	if code, output, err := f.Run(ctx, "cluster", "verify", "--control", f.ControlAddresses()); err != nil || code != 0 {
		return fmt.Errorf("compare replicas: exit code %d: %w\n%s", code, err, output)
	}
	b.report.Moves = result
	b.judgeMoves(result, marks)
	return nil
}

func (b *bench) judgeMoves(result *movesResult, marks []mark) {
	before, during := result.Steps[0], result.Steps[len(result.Steps)-1]
	took := marks[len(marks)-1].at.Sub(marks[1].at)
	b.report.atMost("moves: 2 nodes join, rebalance, drain and remove 1", took.Seconds(), movesSeconds, "s")
	b.report.atMost("moves: p99 over that before", during.P99Milliseconds/before.P99Milliseconds, movesP99Over, "×")
	b.report.atMost("moves: until a retry healed a failed append", result.CuredSeconds, movesCuredMost, "s")
	b.report.atMost("moves: appends that no retry healed", float64(result.Uncured), 0, "")
	b.report.atMost("moves: acknowledged appends lost or doubled", float64(result.Lost), 0, "")
}

// fillGroups makes the conversations and stores in them what is to be moved.
func fillGroups(ctx context.Context, f *fastpacaCluster, ids []string, bodies texts) error {
	if err := f.prepareMany(ctx, ids); err != nil {
		return err
	}
	size := len(bodies.at(0))
	messages := min(1000, (movesStored/len(ids)+size-1)/size)
	return inParallel(openers, func(worker int) error {
		w, err := dialWire(ctx, f.address())
		if err != nil {
			return err
		}
		defer w.close()
		for i := worker; i < len(ids); i += openers {
			if _, err := w.must(201, "POST", path(ids[i])+"/messages", appendBatch(nil, messages, i, bodies)); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// mark is when a step was over.
type mark struct {
	name string
	at   time.Time
}

// moveAll does what an operator would, with the program that operators use, and
// returns when each step was over.
func (b *bench) moveAll(ctx context.Context, f *fastpacaCluster) ([]mark, error) {
	marks := []mark{{"", time.Now()}}
	over := func(name string) {
		marks = append(marks, mark{name, time.Now()})
		b.progress("moves: %s took %.1f s", name, marks[len(marks)-1].at.Sub(marks[len(marks)-2].at).Seconds())
	}
	pause(ctx, movesBefore)
	over("before")
	for range 2 {
		n, err := f.AddData()
		if err == nil {
			err = n.Start()
		}
		if err != nil {
			return nil, err
		}
	}
	if err := nodesUp(ctx, f, len(f.Data)); err != nil {
		return nil, err
	}
	over("two nodes join")
	leaver := f.Data[0]
	for _, step := range []struct {
		name string
		args []string
	}{
		{"rebalance", []string{"rebalance", "--yes", "--wait"}},
		{"drain", []string{"drain", leaver.Name, "--yes", "--wait"}},
		{"remove", []string{"remove", leaver.Name, "--yes"}},
	} {
		args := append([]string{"cluster"}, step.args...)
		code, output, err := f.Run(ctx, append(args, "--control", f.ControlAddresses())...)
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d:\n%s", code, output)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		over(step.name)
	}
	if err := leaver.Terminate(); err != nil {
		return nil, err
	}
	pause(ctx, movesAfter)
	return marks, ctx.Err()
}

// nodesUp waits until so many data nodes are in session with the control plane.
func nodesUp(ctx context.Context, f *fastpacaCluster, want int) error {
	ctx, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	for {
		_, output, err := f.Run(ctx, "cluster", "nodes", "-o", "json", "--control", f.ControlAddresses())
		if err == nil && strings.Count(output, `"state": "up"`) == want {
			return nil
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("wait for %d nodes to be up: %w: %w\n%s", want, ctx.Err(), err, output)
		}
	}
}

// step measures the appends that were due in a time.
func (l *movesLoad) step(name string, from, to time.Time) movesStep {
	s := movesStep{Name: name, Seconds: to.Sub(from).Seconds()}
	var took []time.Duration
	for _, done := range l.done {
		for i := range done {
			if a := &done[i]; !a.due.Before(from) && a.due.Before(to) {
				took = append(took, a.acked.Sub(a.due))
				s.Failures += a.failures
			}
		}
	}
	slices.Sort(took)
	s.Appends = len(took)
	s.P50Milliseconds, s.P99Milliseconds = milliseconds(percentile(took, 50)), milliseconds(percentile(took, 99))
	s.MaxMilliseconds = milliseconds(percentile(took, 100))
	return s
}

// result sums up a load that has ended. The last step is all moves together.
func (l *movesLoad) result(marks []mark) *movesResult {
	r := &movesResult{Uncured: l.uncured()}
	for i, m := range marks[1:] {
		r.Steps = append(r.Steps, l.step(m.name, marks[i].at, m.at))
	}
	r.Steps = append(r.Steps, l.step("all moves", marks[1].at, marks[len(marks)-1].at))
	for _, done := range l.done {
		for i := range done {
			a := &done[i]
			r.Appends++
			r.Failures += a.failures
			if a.failures > 0 {
				r.CuredSeconds = max(r.CuredSeconds, a.acked.Sub(a.failed).Seconds())
			}
		}
	}
	return r
}

// lost reads everything back and returns how many acknowledged appends are not
// there exactly once.
func (l *movesLoad) lost(ctx context.Context, f *fastpacaCluster) (int, error) {
	times := make(map[string]int)
	c := client.New(f.Routers[0].URL())
	defer c.Close()
	for _, id := range l.ids {
		_, log, err := c.Verified(ctx, id)
		if err != nil {
			return 0, err
		}
		for _, m := range log {
			times[m.ID]++
		}
	}
	lost := 0
	for _, done := range l.done {
		for i := range done {
			if times[messageID(done[i].number)] != 1 {
				lost++
			}
		}
	}
	return lost, nil
}
