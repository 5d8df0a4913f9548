package main

import (
	"context"
	"slices"
	"time"
)

// idleDataTarget is what an idle data node may use, in percent of a core.
const idleDataTarget = 4.0

// clusterIdleResult is the processor time of a cluster that nobody talks to.
type clusterIdleResult struct {
	Processes []idleProcess `json:"processes"`
}

type idleProcess struct {
	Name        string  `json:"name"`
	CorePercent float64 `json:"core_percent"`
	ResidentMiB float64 `json:"resident_mib"`
}

// clusterIdle measures a cluster with all groups formed and nobody talking to it.
func (b *bench) clusterIdle(ctx context.Context) error {
	f, err := b.freshCluster(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	if err := f.prepare(ctx, []string{conversation(0)}); err != nil {
		return err
	}
	pause(ctx, idleSettle)
	before := make([]time.Duration, len(f.Nodes()))
	for i, n := range f.Nodes() {
		if before[i], err = processorTime(n.PID()); err != nil {
			return err
		}
	}
	started := time.Now()
	pause(ctx, idleMeasure)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	elapsed := time.Since(started)
	result := &clusterIdleResult{}
	most := 0.0
	for i, n := range f.Nodes() {
		after, err := processorTime(n.PID())
		if err != nil {
			return err
		}
		memory, err := resident(n.PID())
		if err != nil {
			return err
		}
		p := idleProcess{Name: n.Name, CorePercent: 100 * (after - before[i]).Seconds() / elapsed.Seconds(), ResidentMiB: mebibytes(memory)}
		result.Processes = append(result.Processes, p)
		if slices.Contains(f.Data, n) {
			most = max(most, p.CorePercent)
		}
		b.progress("clusteridle: %s %.2f %% of a core, %.0f MiB", p.Name, p.CorePercent, p.ResidentMiB)
	}
	b.report.ClusterIdle = result
	b.report.atMost("idle cluster: busiest data node", most, idleDataTarget, "% of a core")
	return nil
}
