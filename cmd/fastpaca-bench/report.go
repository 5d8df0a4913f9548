package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// report is everything an invocation measured; parts that did not run are
// absent.
type report struct {
	Machine string         `json:"machine"`
	Append  []appendResult `json:"append,omitempty"`
	Tail    []tailResult   `json:"tail,omitempty"`
	Idle    *idleResult    `json:"idle,omitempty"`
	Memory  *memoryResult  `json:"memory,omitempty"`
	Start   *startResult   `json:"start,omitempty"`
	Archive *archiveResult `json:"archive,omitempty"`
	Trim    *trimResult    `json:"trim,omitempty"`
	clusterReport
	streamReport
	Targets []target `json:"targets"`
}

// target is a figure with what it must reach.
type target struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	// Limit is the least that will do if AtLeast, else the most.
	Limit   float64 `json:"limit"`
	AtLeast bool    `json:"at_least"`
	Unit    string  `json:"unit"`
	Met     bool    `json:"met"`
}

func (r *report) atLeast(name string, value, limit float64, unit string) {
	r.Targets = append(r.Targets, target{name, value, limit, true, unit, value >= limit})
}

func (r *report) atMost(name string, value, limit float64, unit string) {
	r.Targets = append(r.Targets, target{name, value, limit, false, unit, value <= limit})
}

func (r *report) missed() bool {
	for _, t := range r.Targets {
		if !t.Met {
			return true
		}
	}
	return false
}

// print writes the report as tables.
func (r *report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\n", r.Machine)
	r.printAppend(t)
	if len(r.Tail) > 0 {
		fmt.Fprintf(t, "\ntail of 100\tp50 µs\tp99 µs\tserver CPU µs/read\n")
		for _, result := range r.Tail {
			fmt.Fprintf(t, "of %d messages\t%.0f\t%.0f\t%.0f\n", result.Length,
				medianOf(result.Runs, func(r tailRun) float64 { return r.P50Micros }),
				medianOf(result.Runs, func(r tailRun) float64 { return r.P99Micros }),
				medianOf(result.Runs, func(r tailRun) float64 { return r.ServerMicros }))
		}
	}
	if r.Idle != nil {
		fmt.Fprintf(t, "\nidle\t%.2f %% of a core\t%.0f MiB resident\n", r.Idle.CorePercent, r.Idle.ResidentMiB)
	}
	if r.Memory != nil {
		fmt.Fprintf(t, "\nmessages\tresident MiB\n")
		for _, p := range r.Memory.Points {
			fmt.Fprintf(t, "%d\t%.0f\n", p.Messages, p.ResidentMiB)
		}
		fmt.Fprintf(t, "loaded at %.0f messages/s, %.0f MiB on disk\n", r.Memory.LoadPerSecond, r.Memory.DiskMiB)
	}
	if r.Start != nil {
		fmt.Fprintf(t, "\nexec to first ack\tms (median)\n")
		fmt.Fprintf(t, "empty directory\t%.0f\n", median(r.Start.EmptyMS))
		fmt.Fprintf(t, "%d messages, clean stop\t%.0f\n", r.Start.LoadedWithIt, median(r.Start.RestartMS))
		fmt.Fprintf(t, "%d messages, SIGKILL\t%.0f\n", r.Start.LoadedWithIt, median(r.Start.AfterKillMS))
	}
	if a := r.Archive; a != nil {
		fmt.Fprintf(t, "\narchive\twithout\twith\n")
		fmt.Fprintf(t, "appends/s\t%.0f\t%.0f\n", a.OffPerSecond, a.OnPerSecond)
		fmt.Fprintf(t, "caught up %.1f s after the load\n", a.CaughtUpSeconds)
	}
	if m := r.Trim; m != nil {
		fmt.Fprintf(t, "\ntrim\t%d messages\n", m.Messages)
		fmt.Fprintf(t, "rows archived/s\t%.0f\n", m.DrainPerSecond)
		fmt.Fprintf(t, "rows \\copied/s\t%.0f\n", m.CopyPerSecond)
		fmt.Fprintf(t, "data directory before\t%.0f MiB, %.0f of them write-ahead log\n", m.BeforeMiB, m.BeforeWALMiB)
		fmt.Fprintf(t, "after, at rest\t%.0f MiB, below a third after %.1f s (0: never)\n", m.AfterMiB, m.ShrinkSeconds)
		fmt.Fprintf(t, "read back/s\t%.0f\n", m.ReplayPerSecond)
	}
	r.clusterReport.print(t)
	r.streamReport.print(t)
	fmt.Fprintf(t, "\ntarget\tmeasured\twanted\t\n")
	for _, target := range r.Targets {
		verdict, relation := "met", "≤"
		if !target.Met {
			verdict = "MISSED"
		}
		if target.AtLeast {
			relation = "≥"
		}
		fmt.Fprintf(t, "%s\t%.2f %s\t%s %.4g\t%s\n", target.Name, target.Value, target.Unit, relation, target.Limit, verdict)
	}
	return t.Flush()
}

// printAppend writes every run, for the spread, and the medians.
func (r *report) printAppend(w io.Writer) {
	if len(r.Append) == 0 {
		return
	}
	fmt.Fprintf(w, "\nappend\tappends/s\tserver CPU µs\tclient CPU µs\tp50 ms\tp99 ms\tresident MiB\n")
	row := func(name string, run appendRun) {
		fmt.Fprintf(w, "%s\t%.0f\t%.1f\t%.1f\t%.2f\t%.2f\t%.0f\n", name,
			run.PerSecond, run.ServerMicros, run.ClientMicros, run.P50Milliseconds, run.P99Milliseconds, run.ResidentMiB)
	}
	for _, result := range r.Append {
		for i, run := range result.Runs {
			row(fmt.Sprintf("%s, run %d", result.Side, i+1), run)
		}
	}
	for _, result := range r.Append {
		row(result.Side+", median", appendRun{
			PerSecond:       medianOf(result.Runs, func(r appendRun) float64 { return r.PerSecond }),
			ServerMicros:    medianOf(result.Runs, func(r appendRun) float64 { return r.ServerMicros }),
			ClientMicros:    medianOf(result.Runs, func(r appendRun) float64 { return r.ClientMicros }),
			P50Milliseconds: medianOf(result.Runs, func(r appendRun) float64 { return r.P50Milliseconds }),
			P99Milliseconds: medianOf(result.Runs, func(r appendRun) float64 { return r.P99Milliseconds }),
			ResidentMiB:     medianOf(result.Runs, func(r appendRun) float64 { return r.ResidentMiB }),
		})
	}
}
