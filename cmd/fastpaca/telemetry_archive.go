package main

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/node"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// archiveOperation is what a node does with the archive.
type archiveOperation uint8

const (
	archiveWrite archiveOperation = iota // one transaction of messages
	archiveRead                          // one page for a reader
	archiveOperations
)

var archiveOperationNames = [archiveOperations]string{"write", "read"}

// measuredArchive is an archive whose calls are timed.
type measuredArchive struct {
	node.ArchiveStore
	of   [archiveOperations][2]*histogram // by failure
	seed *seedArchive
}

// measureArchive has the calls to the archive timed. conf may be nil.
func (t *telemetry) measureArchive(conf *node.ArchiveConfig, p *parts) {
	if t.measured == nil || conf == nil {
		return
	}
	m := &measuredArchive{ArchiveStore: conf.Store, seed: newSeedArchive()}
	calls := &family{name: "fastpaca.archive.operation.duration", unit: "s", scale: float64(time.Second),
		help: "How long calls of the archive take: transactions that write, and pages that are read from it."}
	for op := range archiveOperations {
		for failed, outcome := range [...]string{outcomeNames[outcomeOK], outcomeNames[outcomeFailed]} {
			h := newHistogram(latencyBounds, attribute.String("operation", archiveOperationNames[op]), attribute.String("outcome", outcome))
			h.always = failed == 0
			m.of[op][failed] = h
			calls.of = append(calls.of, h)
		}
	}
	t.registry.MustRegister(m.seed.all()...) // a process has one archive at most
	remove := t.paths.add(func() (metricdata.Metrics, bool) { return calls.metric(t.paths.since, time.Now()) })
	p.add("telemetry of the archive", func(context.Context) error { remove(); return nil })
	conf.Store = m
}

func (m *measuredArchive) took(op archiveOperation, began time.Time, err error) {
	failed := 0
	if err != nil {
		failed = 1
	}
	m.of[op][failed].record(int64(time.Since(began)), nil)
}

// Write implements archiver.Store.
func (m *measuredArchive) Write(ctx context.Context, runs []archive.Run) (heads [][32]byte, err error) {
	defer func(began time.Time) {
		m.took(archiveWrite, began, err)
		m.seed.flushed(runs, time.Since(began), err)
	}(time.Now())
	return m.ArchiveStore.Write(ctx, runs)
}

// Messages implements node.ArchiveStore.
func (m *measuredArchive) Messages(ctx context.Context, r archive.Range) (messages []rpc.Message, err error) {
	defer func(began time.Time) { m.took(archiveRead, began, err) }(time.Now())
	return m.ArchiveStore.Messages(ctx, r)
}
