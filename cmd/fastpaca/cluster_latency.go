package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/controlplane/latency"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
)

// latencyPatience bounds the wait for what is shown beside the status.
const latencyPatience = 2 * time.Second

// latencyAnswer is how long appends took lately, as `cluster status -o json`
// prints it.
type latencyAnswer struct {
	WindowSeconds float64         `json:"window_seconds"`
	Processes     int             `json:"processes"`
	LeftOut       int             `json:"left_out"` // of other versions, not in the rest
	PerSecond     float64         `json:"per_second"`
	Failed        uint64          `json:"failed"`
	Stages        []latencyOfPart `json:"stages"`
}

type latencyOfPart struct {
	Stage       string  `json:"stage"`
	Count       uint64  `json:"count"`
	MeanSeconds float64 `json:"mean_seconds"`
	P50Seconds  float64 `json:"p50_seconds"`
	P99Seconds  float64 `json:"p99_seconds"`
}

// latency asks all members named by --control, for each knows only what it was
// told, and takes the answer of the one that knows most. Without one it is nil:
// the status does not depend on it.
func (o *operator) latency() *latencyAnswer {
	addresses, err := addressList("control", o.conf.Control)
	if err != nil {
		return nil
	}
	in, err := openInternal(o.conf.Credentials.mesh(mesh.RoleAdmin, "", slog.New(slog.DiscardHandler)), "")
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(o.ctx, latencyPatience)
	defer cancel()
	answers := make([]*latency.Recent, len(addresses))
	var asked errgroup.Group
	for i, address := range addresses {
		asked.Go(func() error {
			conn, err := mesh.NewGRPCClient(in.dialer, "", address)
			if err != nil {
				return err
			}
			answers[i], err = latency.NewClient(conn).Recent(ctx)
			_ = conn.Close() // there is nothing on it any more
			return err
		})
	}
	_ = asked.Wait() // who did not answer has no say
	var best *latency.Recent
	for _, answer := range answers {
		if answer != nil && (best == nil || answer.Processes > best.Processes) {
			best = answer
		}
	}
	return latencyOf(best)
}

func latencyOf(r *latency.Recent) *latencyAnswer {
	if r == nil {
		return nil
	}
	answer := &latencyAnswer{
		WindowSeconds: r.Window.Seconds(), Processes: r.Processes, LeftOut: r.LeftOut, PerSecond: r.PerSecond, Failed: r.Failed,
		Stages: []latencyOfPart{},
	}
	for i := range r.Stages {
		s := &r.Stages[i]
		answer.Stages = append(answer.Stages, latencyOfPart{
			Stage: s.Name, Count: s.Count(), MeanSeconds: s.Mean().Seconds(),
			P50Seconds: s.Quantile(0.5, r.Bounds).Seconds(), P99Seconds: s.Quantile(0.99, r.Bounds).Seconds(),
		})
	}
	return answer
}

// latencyTable is the part of the status about appends.
func (o *operator) latencyTable(a *latencyAnswer) {
	switch {
	case a == nil:
		fmt.Fprintln(o.out, "Appends    not known: no control member answered")
		return
	case a.Processes == 0:
		fmt.Fprintln(o.out, "Appends    not known: no process has reported for a while")
		return
	}
	window := time.Duration(a.WindowSeconds * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(o.out, "Appends    %.1f/s over %s, %d failed, as %d processes report", a.PerSecond, window, a.Failed, a.Processes)
	if a.LeftOut > 0 {
		fmt.Fprintf(o.out, "; %d of other versions left out", a.LeftOut)
	}
	fmt.Fprint(o.out, "\n\n")
	o.table("STAGE\tP50\tP99\tMEAN\tAPPENDS", func(row func(...any)) {
		for i := range a.Stages {
			s := &a.Stages[i]
			row(s.Stage, milliseconds(s.Count, s.P50Seconds), milliseconds(s.Count, s.P99Seconds), milliseconds(s.Count, s.MeanSeconds), s.Count)
		}
	})
}

// milliseconds is a latency as people read it, "-" when nothing was measured.
func milliseconds(count uint64, seconds float64) string {
	if count == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f ms", 1e3*seconds)
}
