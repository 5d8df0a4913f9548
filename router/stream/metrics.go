package stream

import "github.com/prometheus/client_golang/prometheus"

// metrics are the metrics of a Hub. None has labels.
type metrics struct {
	resubscribes prometheus.Counter
	gaps         prometheus.Counter
	pageReads    prometheus.Counter
	pageFailures prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		resubscribes: counter("fastpaca_stream_resubscribes_total", "Subscriptions to data nodes that ended or failed and were opened anew."),
		gaps:         counter("fastpaca_stream_gaps_total", "Gaps told to clients, because messages are gone from log and archive."),
		pageReads:    counter("fastpaca_stream_page_reads_total", "Pages read from logs for clients that were behind."),
		pageFailures: counter("fastpaca_stream_page_failures_total", "Page reads that failed and were tried again."),
	}
}

func (m *metrics) register(to prometheus.Registerer, h *Hub) error {
	if to == nil {
		return nil
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		m.resubscribes, m.gaps, m.pageReads, m.pageFailures,
		gauge("fastpaca_stream_topics", "Conversations followed, each with one subscription.", func() float64 { return float64(h.Topics()) }),
		gauge("fastpaca_stream_subscriptions", "Conversations followed by clients, counted once per client.", func() float64 { return float64(h.cursors.Load()) }),
		gauge("fastpaca_stream_ring_bytes", "Bytes of the newest messages kept for clients.", func() float64 { return float64(h.ringBytes.Load()) }),
		gauge("fastpaca_stream_page_bytes", "Bytes of pages kept for clients that are behind.", func() float64 { return float64(h.pages.size()) }),
	} {
		if err := to.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (p *pager) size() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}
