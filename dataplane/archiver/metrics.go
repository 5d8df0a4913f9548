package archiver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	_ prometheus.Collector = (*Archiver)(nil)

	upDesc = prometheus.NewDesc("fastpaca_archive_up",
		"Whether the archive could be used the last time it was tried.", nil, nil)
	leasesDesc = prometheus.NewDesc("fastpaca_archive_leases",
		"Groups that this node holds the archiver lease of.", nil, nil)
	pendingDesc = prometheus.NewDesc("fastpaca_archive_pending_messages",
		"Committed messages of these groups that are known not to be archived.", nil, nil)
	behindDesc = prometheus.NewDesc("fastpaca_archive_pending_conversations",
		"Conversations of these groups that the archive lacks something of.", nil, nil)
	lagDesc = prometheus.NewDesc("fastpaca_archive_lag_seconds",
		"How long the conversation that waits longest has been waiting.", nil, nil)
	problemsDesc = prometheus.NewDesc("fastpaca_archive_problem_conversations",
		"Conversations that cannot be archived, at most 100.", nil, nil)
	messagesDesc = prometheus.NewDesc("fastpaca_archive_messages_total",
		"Messages written to the archive, repeats included.", nil, nil)
	bytesDesc = prometheus.NewDesc("fastpaca_archive_bytes_total",
		"Bytes of JSON of these messages.", nil, nil)
	batchesDesc = prometheus.NewDesc("fastpaca_archive_batches_total",
		"Transactions committed.", nil, nil)
	acksDesc = prometheus.NewDesc("fastpaca_archive_acks_total",
		"Acknowledgements that groups have taken.", nil, nil)
	failuresDesc = prometheus.NewDesc("fastpaca_archive_failures_total",
		"Batches and acknowledgements that failed and are tried again.", nil, nil)
)

// Describe implements prometheus.Collector.
func (a *Archiver) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, leasesDesc, pendingDesc, behindDesc, lagDesc, problemsDesc,
		messagesDesc, bytesDesc, batchesDesc, acksDesc, failuresDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (a *Archiver) Collect(out chan<- prometheus.Metric) {
	s := a.Status()
	up, behind, lag := 0.0, 0, time.Duration(0)
	if s.Ready && s.Error == "" {
		up = 1
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		behind += g.Conversations
		if !g.Behind.IsZero() {
			lag = max(lag, time.Since(g.Behind))
		}
	}
	gauge := func(d *prometheus.Desc, v float64) { out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	counter := func(d *prometheus.Desc, v uint64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge(upDesc, up)
	gauge(leasesDesc, float64(len(s.Groups)))
	gauge(pendingDesc, float64(s.Pending()))
	gauge(behindDesc, float64(behind))
	gauge(lagDesc, lag.Seconds())
	gauge(problemsDesc, float64(len(s.Problems)))
	counter(messagesDesc, s.Totals.Messages)
	counter(bytesDesc, s.Totals.Bytes)
	counter(batchesDesc, s.Totals.Batches)
	counter(acksDesc, s.Totals.Acks)
	counter(failuresDesc, s.Totals.Failures)
}
