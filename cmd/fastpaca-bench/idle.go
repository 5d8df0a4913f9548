package main

import (
	"context"
	"time"
)

type idleResult struct {
	CorePercent float64 `json:"core_percent"`
	ResidentMiB float64 `json:"resident_mib"`
	Seconds     float64 `json:"seconds"`
}

const (
	idleSettle  = 5 * time.Second
	idleMeasure = 20 * time.Second
)

// idle measures a server with all groups formed and nobody talking to it.
func (b *bench) idle(ctx context.Context) error {
	f, err := b.freshFastpaca(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	if err := tryAppend(ctx, f); err != nil {
		return err
	}
	pause(ctx, idleSettle)
	before, err := cost(f)
	if err != nil {
		return err
	}
	started := time.Now()
	pause(ctx, idleMeasure)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	after, err := cost(f)
	if err != nil {
		return err
	}
	memory, err := footprint(f)
	if err != nil {
		return err
	}
	elapsed := time.Since(started)
	b.report.Idle = &idleResult{
		CorePercent: 100 * (after - before).Seconds() / elapsed.Seconds(),
		ResidentMiB: mebibytes(memory),
		Seconds:     elapsed.Seconds(),
	}
	b.progress("idle: %.2f %% of a core", b.report.Idle.CorePercent)
	b.report.atMost("idle processor time", b.report.Idle.CorePercent, 3, "% of a core")
	return nil
}
