package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/archiver"
)

// seedArchive keeps the archive's series under the names that Fastpaca documented
// before it was rewritten, for dashboards that know them. What is written twice,
// because an answer was lost, is attempted and inserted twice. Those that named
// conversations in a label are gone.
type seedArchive struct {
	attempted, inserted           prometheus.Counter
	bytesAttempted, bytesInserted prometheus.Counter
	flush                         prometheus.Histogram
}

func newSeedArchive() *seedArchive {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &seedArchive{
		attempted:      counter("fastpaca_archive_attempted_total", "Messages that were tried to be archived."),
		inserted:       counter("fastpaca_archive_inserted_total", "Messages that were archived."),
		bytesAttempted: counter("fastpaca_archive_bytes_attempted_total", "Bytes of JSON of messages that were tried to be archived."),
		bytesInserted:  counter("fastpaca_archive_bytes_inserted_total", "Bytes of JSON of messages that were archived."),
		flush: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fastpaca_archive_flush_duration_ms", Help: "How long batches take to be written to the archive, in milliseconds.",
			Buckets: []float64{1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000},
		}),
	}
}

func (s *seedArchive) all() []prometheus.Collector {
	return []prometheus.Collector{s.attempted, s.inserted, s.bytesAttempted, s.bytesInserted, s.flush}
}

func (s *seedArchive) flushed(runs []archive.Run, took time.Duration, err error) {
	rows, bytes := 0, 0
	for i := range runs {
		rows += len(runs[i].Messages)
		for j := range runs[i].Messages {
			bytes += len(runs[i].Messages[j].JSON)
		}
	}
	s.attempted.Add(float64(rows))
	s.bytesAttempted.Add(float64(bytes))
	if err == nil {
		s.inserted.Add(float64(rows))
		s.bytesInserted.Add(float64(bytes))
	}
	s.flush.Observe(float64(took) / float64(time.Millisecond))
}

// seedBacklog is what of these series the archiver knows.
type seedBacklog struct{ of *archiver.Archiver }

var (
	pendingRowsDesc = prometheus.NewDesc("fastpaca_archive_pending_rows", "Messages that wait to be archived.", nil, nil)
	oldestAgeDesc   = prometheus.NewDesc("fastpaca_archive_oldest_age_seconds", "How long the oldest of them has waited.", nil, nil)
)

// Describe implements prometheus.Collector.
func (seedBacklog) Describe(out chan<- *prometheus.Desc) {
	out <- pendingRowsDesc
	out <- oldestAgeDesc
}

// Collect implements prometheus.Collector.
func (b seedBacklog) Collect(out chan<- prometheus.Metric) {
	status, oldest := b.of.Status(), time.Duration(0)
	for i := range status.Groups {
		if since := status.Groups[i].Behind; !since.IsZero() {
			oldest = max(oldest, time.Since(since))
		}
	}
	out <- prometheus.MustNewConstMetric(pendingRowsDesc, prometheus.GaugeValue, float64(status.Pending()))
	out <- prometheus.MustNewConstMetric(oldestAgeDesc, prometheus.GaugeValue, oldest.Seconds())
}
