package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

const (
	// telemetryOverhead is the server's processor time per append with all of
	// telemetry over that without any.
	telemetryOverhead = 1.03
	// scrapeInterval is a third of what is usual for a Prometheus, so that every
	// run sees some.
	scrapeInterval = 5 * time.Second
	// exportInterval is that of metrics by OTLP, in milliseconds: a twelfth of
	// OpenTelemetry's default.
	exportInterval = "5000"
)

// telemetry measures the same cluster with everything on (metrics pushed and
// scraped, 1 % of requests traced, to a collector that takes all) and with the
// SDK disabled. Each pair is compared by itself, and which comes first
// alternates: machines drift.
func (b *bench) telemetry(ctx context.Context) error {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a process that stops cuts it off
	}))
	defer collector.Close()
	on := &clusterResult{Side: "telemetry on", Clients: b.Clients}
	off := &clusterResult{Side: "telemetry off", Clients: b.Clients}
	environments := map[*clusterResult][]string{
		on:  {"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL, "OTEL_METRIC_EXPORT_INTERVAL=" + exportInterval},
		off: {"OTEL_SDK_DISABLED=true"},
	}
	var ratios []float64
	for run := range b.Runs {
		pair := []*clusterResult{on, off}
		if run%2 == 1 {
			pair[0], pair[1] = pair[1], pair[0]
		}
		for _, side := range pair {
			measured, err := b.telemetryRun(ctx, environments[side], side == on)
			if err != nil {
				return fmt.Errorf("%s: %w", side.Side, err)
			}
			side.Runs = append(side.Runs, measured)
		}
		ratios = append(ratios, on.Runs[run].ServerMicros/off.Runs[run].ServerMicros)
		b.progress("telemetry %d/%d: %.1f µs of server CPU per append with, %.1f µs without: %.3f ×",
			run+1, b.Runs, on.Runs[run].ServerMicros, off.Runs[run].ServerMicros, ratios[run])
	}
	b.report.Cluster = append(b.report.Cluster, *on, *off)
	b.report.atMost(fmt.Sprintf("telemetry, %d clients: server CPU per append, on over off (median of pairs)", b.Clients),
		median(ratios), telemetryOverhead, "×")
	return nil
}

// telemetryRun is one run on a fresh cluster.
func (b *bench) telemetryRun(ctx context.Context, env []string, scraped bool) (appendRun, error) {
	dir, err := os.MkdirTemp(b.dir, "telemetry-")
	if err != nil {
		return appendRun{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what stays, the bench's end removes
	c, err := cluster.New(cluster.Config{Binary: b.Binary, Dir: dir, Data: dataNodes, Env: env})
	if err != nil {
		return appendRun{}, err
	}
	side := &fastpacaCluster{c}
	defer side.stop()
	ready, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	if err := c.Start(ready); err != nil {
		return appendRun{}, err
	}
	ids := b.conversationIDs()
	if err := side.prepare(ctx, ids); err != nil {
		return appendRun{}, err
	}
	scrapes, stop := context.WithCancel(ctx)
	var scraping sync.WaitGroup
	if scraped {
		for _, n := range c.Nodes() {
			scraping.Go(func() { scrapeUntil(scrapes, n.Ops()) })
		}
	}
	measured, err := b.measureAppends(ctx, side, ids)
	stop()
	scraping.Wait()
	return measured, errors.Join(err, ctx.Err())
}

// scrapeUntil reads /metrics as a Prometheus does.
func scrapeUntil(ctx context.Context, address string) {
	ticker := time.NewTicker(scrapeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
		if err != nil {
			return
		}
		r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
		if resp, err := http.DefaultClient.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // the next one comes anyway
			_ = resp.Body.Close()
		}
	}
}
