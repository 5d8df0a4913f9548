package main

import (
	"fmt"
	"io"
)

// clusterReport is the part of a report that the cluster benchmarks fill.
type clusterReport struct {
	Cluster     []clusterResult    `json:"cluster,omitempty"`
	OpenLoop    []openLoopResult   `json:"open_loop,omitempty"`
	Failover    *failoverResult    `json:"failover,omitempty"`
	Moves       *movesResult       `json:"moves,omitempty"`
	ClusterIdle *clusterIdleResult `json:"cluster_idle,omitempty"`
	RouterStart *routerStartResult `json:"router_start,omitempty"`
}

func (r *clusterReport) print(w io.Writer) {
	r.printAppends(w)
	if len(r.OpenLoop) > 0 {
		fmt.Fprintf(w, "\nopen loop, %d appends/s\tp50 ms\tp99 ms\n", openLoopRate)
		for _, side := range r.OpenLoop {
			for i, run := range side.Runs {
				fmt.Fprintf(w, "%s, run %d\t%.2f\t%.2f\n", side.Side, i+1, run.P50Milliseconds, run.P99Milliseconds)
			}
		}
	}
	if r.Failover != nil {
		fmt.Fprintf(w, "\ndata node killed\tgroups interrupted\thalf back, s\tall back, s\tfailed answers\tto other groups\n")
		for _, k := range r.Failover.Kills {
			fmt.Fprintf(w, "%s\t%d\t%.2f\t%.2f\t%d\t%d\n", k.Node, k.Interrupted, k.MedianSeconds, k.AllSeconds, k.Failures, k.FailuresOthers)
		}
	}
	if m := r.Moves; m != nil {
		fmt.Fprintf(w, "\nmoves, %d appends/s\ts\tappends\tfailed answers\tp50 ms\tp99 ms\tmax ms\n", openLoopRate)
		for _, s := range m.Steps {
			fmt.Fprintf(w, "%s\t%.1f\t%d\t%d\t%.2f\t%.2f\t%.0f\n", s.Name, s.Seconds, s.Appends, s.Failures, s.P50Milliseconds, s.P99Milliseconds, s.MaxMilliseconds)
		}
	}
	if r.ClusterIdle != nil {
		fmt.Fprintf(w, "\nidle cluster\t%% of a core\tresident MiB\n")
		for _, p := range r.ClusterIdle.Processes {
			fmt.Fprintf(w, "%s\t%.2f\t%.0f\n", p.Name, p.CorePercent, p.ResidentMiB)
		}
	}
	if r.RouterStart != nil {
		fmt.Fprintf(w, "\nrouter\tfirst append, ms (median)\tresident MB (median)\tafter load\n")
		fmt.Fprintf(w, "\t%.0f\t%.0f\t%.0f\n", median(r.RouterStart.Milliseconds), median(r.RouterStart.ResidentMB), r.RouterStart.LoadedMB)
	}
}

// printAppends writes every run, for the spread, and the medians.
func (r *clusterReport) printAppends(w io.Writer) {
	if len(r.Cluster) == 0 {
		return
	}
	fmt.Fprintf(w, "\ncluster of %d\tclients\tappends/s\tserver CPU µs\tclient CPU µs\tp50 ms\tp99 ms\tresident MiB\n", dataNodes)
	row := func(name string, clients int, run appendRun) {
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.1f\t%.1f\t%.2f\t%.2f\t%.0f\n", name, clients,
			run.PerSecond, run.ServerMicros, run.ClientMicros, run.P50Milliseconds, run.P99Milliseconds, run.ResidentMiB)
	}
	for _, result := range r.Cluster {
		for i, run := range result.Runs {
			row(fmt.Sprintf("%s, run %d", result.Side, i+1), result.Clients, run)
		}
	}
	for _, result := range r.Cluster {
		row(result.Side+", median", result.Clients, medianRun(result.Runs))
	}
}

// medianRun takes the median of each figure by itself.
func medianRun(runs []appendRun) appendRun {
	return appendRun{
		PerSecond:       medianOf(runs, func(r appendRun) float64 { return r.PerSecond }),
		ServerMicros:    medianOf(runs, func(r appendRun) float64 { return r.ServerMicros }),
		ClientMicros:    medianOf(runs, func(r appendRun) float64 { return r.ClientMicros }),
		P50Milliseconds: medianOf(runs, func(r appendRun) float64 { return r.P50Milliseconds }),
		P99Milliseconds: medianOf(runs, func(r appendRun) float64 { return r.P99Milliseconds }),
		ResidentMiB:     medianOf(runs, func(r appendRun) float64 { return r.ResidentMiB }),
	}
}
