package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"
)

// histogram counts integers (nanoseconds, bytes, writes) by upper bounds. A
// value costs two atomic additions, a tenth of what the SDK's instruments do, so
// that every append can leave eight of them. Values of sampled requests become
// exemplars.
type histogram struct {
	set       attribute.Set
	bounds    []int64
	counts    []atomic.Uint64 // one more than bounds
	sum       atomic.Int64
	exemplars []atomic.Pointer[sampledValue]
	always    bool // shown although nothing was counted
}

type sampledValue struct {
	value int64
	at    time.Time
	trace trace.TraceID
	span  trace.SpanID
}

func newHistogram(bounds []int64, attributes ...attribute.KeyValue) *histogram {
	return &histogram{
		set: attribute.NewSet(attributes...), bounds: bounds,
		counts: make([]atomic.Uint64, len(bounds)+1), exemplars: make([]atomic.Pointer[sampledValue], len(bounds)+1),
	}
}

// record counts v. span is that of the request, when it is sampled, or nil.
func (h *histogram) record(v int64, span trace.Span) {
	low, high := 0, len(h.bounds)
	for low < high {
		if at := (low + high) / 2; v > h.bounds[at] {
			low = at + 1
		} else {
			high = at
		}
	}
	h.counts[low].Add(1)
	h.sum.Add(v)
	if span != nil {
		of := span.SpanContext()
		h.exemplars[low].Store(&sampledValue{value: v, at: time.Now(), trace: of.TraceID(), span: of.SpanID()})
	}
}

// point reads the histogram in units of so many of its integers. The count is
// that of the buckets read, so that they always agree.
func (h *histogram) point(since, now time.Time, unit float64) (metricdata.HistogramDataPoint[float64], bool) {
	p := metricdata.HistogramDataPoint[float64]{
		Attributes: h.set, StartTime: since, Time: now,
		Bounds: make([]float64, len(h.bounds)), BucketCounts: make([]uint64, len(h.counts)),
		Sum: float64(h.sum.Load()) / unit,
	}
	for i, bound := range h.bounds {
		p.Bounds[i] = float64(bound) / unit
	}
	for i := range h.counts {
		p.BucketCounts[i] = h.counts[i].Load()
		p.Count += p.BucketCounts[i]
		if e := h.exemplars[i].Load(); e != nil {
			p.Exemplars = append(p.Exemplars, metricdata.Exemplar[float64]{
				Time: e.at, Value: float64(e.value) / unit, SpanID: e.span[:], TraceID: e.trace[:],
			})
		}
	}
	return p, p.Count > 0 || h.always
}

// family is one metric with all its attributes.
type family struct {
	name, help, unit string
	scale            float64 // integers to a unit
	of               []*histogram
}

// producer gives families, and what others count, to the readers of the SDK.
type producer struct {
	since    time.Time
	families []*family

	mu     sync.Mutex // guards others, and is held while they are asked
	others map[*int]func() (metricdata.Metrics, bool)
}

// add has a metric produced until remove has returned.
func (p *producer) add(produce func() (metricdata.Metrics, bool)) (remove func()) {
	key := new(int)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.others == nil {
		p.others = make(map[*int]func() (metricdata.Metrics, bool))
	}
	p.others[key] = produce
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.others, key)
	}
}

var _ sdkmetric.Producer = (*producer)(nil)

// scopeName is the instrumentation scope of everything that is measured here.
const scopeName = "github.com/fastpaca/fastpaca"

// Produce implements sdkmetric.Producer.
func (p *producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	out := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: scopeName, Version: version()}}
	now := time.Now()
	for _, f := range p.families {
		if m, ok := f.metric(p.since, now); ok {
			out.Metrics = append(out.Metrics, m)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, produce := range p.others {
		if m, ok := produce(); ok {
			out.Metrics = append(out.Metrics, m)
		}
	}
	return []metricdata.ScopeMetrics{out}, nil
}

// metric reads the family, and returns false when there is nothing to show.
func (f *family) metric(since, now time.Time) (metricdata.Metrics, bool) {
	data := metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}
	for _, h := range f.of {
		if point, shown := h.point(since, now, f.scale); shown {
			data.DataPoints = append(data.DataPoints, point)
		}
	}
	return metricdata.Metrics{Name: f.name, Description: f.help, Unit: f.unit, Data: data}, len(data.DataPoints) > 0
}

// exponential returns n bounds that double from first on.
func exponential(first int64, n int) []int64 {
	bounds := make([]int64, n)
	for i := range bounds {
		bounds[i] = first << i
	}
	return bounds
}

// latencyBounds reach from what a sync of a fast disk takes to the longest
// request. 150 ms is the promised p99.
var latencyBounds = func() []int64 {
	var bounds []int64
	for _, micros := range []int64{50, 100, 250, 500, 1_000, 2_000, 3_500, 5_000, 7_500, 10_000, 15_000, 25_000, 50_000,
		75_000, 100_000, 150_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 15_000_000} {
		bounds = append(bounds, int64(time.Duration(micros)*time.Microsecond))
	}
	return bounds
}()
