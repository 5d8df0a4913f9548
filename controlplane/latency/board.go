package latency

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Bounds of a Board.
const (
	// maxProcesses times the size of a summary, some 4 KiB, is its memory.
	maxProcesses = 1024
	// forgetAfter is how long a process may be silent.
	forgetAfter = 6 * Interval
)

// Interval is how often processes report.
const Interval = 5 * time.Second

// ErrFull: so many processes report that no other can be taken.
var ErrFull = errors.New("too many processes report latencies")

// Board keeps what processes report. Methods may be called from any goroutine.
type Board struct {
	now func() time.Time

	mu      sync.Mutex // guards reports
	reports map[string]report
}

type report struct {
	at time.Time
	Summary
}

// NewBoard returns an empty board.
func NewBoard() *Board { return &Board{now: time.Now, reports: make(map[string]report)} }

// Report replaces what the process reported before. The summary is the board's
// from then on. It wraps ErrInvalid and ErrFull.
func (b *Board) Report(_ context.Context, s *Summary) error {
	if err := s.validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.reports[s.Process]; !known && len(b.reports) >= maxProcesses {
		if b.forget(); len(b.reports) >= maxProcesses {
			return ErrFull
		}
	}
	b.reports[s.Process] = report{b.now(), *s}
	return nil
}

// forget drops those who are silent. The mutex is held.
func (b *Board) forget() {
	now := b.now()
	for process, r := range b.reports {
		if now.Sub(r.at) > forgetAfter {
			delete(b.reports, process)
		}
	}
}

// order is the course of an append, in which stages are shown. Others come after.
var order = []string{"total", "receive", "route_wait", "forward", "queue", "log_sync", "replicate", "apply", "respond"}

// Recent adds up what is there. Processes that disagree on bounds cannot be
// added: those count that agree with most of the others.
func (b *Board) Recent() Recent {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
	out := Recent{Processes: len(b.reports), Bounds: b.commonBounds()}
	index := make(map[string]int)
	for _, r := range b.reports {
		if !slices.Equal(r.Bounds, out.Bounds) {
			out.LeftOut++
			continue
		}
		out.Failed += r.Failed
		out.Window = max(out.Window, r.Window)
		for i := range r.Stages {
			stage := &r.Stages[i]
			at, known := index[stage.Name]
			if !known {
				if len(out.Stages) >= maxStages {
					continue
				}
				at = len(out.Stages)
				index[stage.Name] = at
				out.Stages = append(out.Stages, Stage{Name: stage.Name, Counts: make([]uint64, len(stage.Counts))})
			}
			sum := &out.Stages[at]
			sum.Sum += stage.Sum
			for i, n := range stage.Counts {
				sum.Counts[i] += n
			}
			if stage.Name == order[0] {
				out.PerSecond += float64(stage.Count()) / r.Window.Seconds()
			}
		}
	}
	slices.SortFunc(out.Stages, func(a, b Stage) int { return rank(a.Name) - rank(b.Name) })
	return out
}

func rank(stage string) int {
	if at := slices.Index(order, stage); at >= 0 {
		return at
	}
	return len(order)
}

// commonBounds are those of most reports. The mutex is held.
func (b *Board) commonBounds() []time.Duration {
	type votes struct {
		bounds []time.Duration
		n      int
	}
	var all []votes
	for _, r := range b.reports {
		at := slices.IndexFunc(all, func(v votes) bool { return slices.Equal(v.bounds, r.Bounds) })
		if at < 0 {
			at = len(all)
			all = append(all, votes{bounds: r.Bounds})
		}
		all[at].n++
	}
	if len(all) == 0 {
		return nil
	}
	return slices.MaxFunc(all, func(a, b votes) int {
		if a.n != b.n {
			return a.n - b.n
		}
		return slices.Compare(a.bounds, b.bounds)
	}).bounds
}
