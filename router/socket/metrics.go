package socket

import "github.com/prometheus/client_golang/prometheus"

// transport is one way to stream.
type transport int

const (
	transportWebSocket transport = iota
	transportEvents
	transportPhoenix
	transports
)

var transportNames = [transports]string{"websocket", "sse", "phoenix"}

// metrics are the metrics of a Server. All labels are of closed sets.
type metrics struct {
	open     *prometheus.GaugeVec
	sent     *prometheus.CounterVec
	closed   *prometheus.CounterVec
	delivery *prometheus.HistogramVec
	of       [transports]struct {
		open     prometheus.Gauge
		sent     prometheus.Counter
		delivery prometheus.Observer
	}
}

// deliveryBounds are in seconds.
var deliveryBounds = []float64{
	.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .15, .25, .5, 1, 2.5, 5, 10,
}

func newMetrics() *metrics {
	m := &metrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "fastpaca_stream_connections", Help: "Open streams, by transport.",
		}, []string{"transport"}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fastpaca_stream_messages_sent_total", Help: "Messages sent to clients of streams, by transport.",
		}, []string{"transport"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fastpaca_stream_closed_total", Help: "Streams that ended, by cause.",
		}, []string{"cause"}),
		delivery: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fastpaca_stream_delivery_duration_seconds",
			Help:    "How long the oldest message of each write to a client that had caught up took from its arrival at the router, by transport.",
			Buckets: deliveryBounds,
		}, []string{"transport"}),
	}
	for i, name := range transportNames {
		m.of[i].open = m.open.WithLabelValues(name)
		m.of[i].sent = m.sent.WithLabelValues(name)
		m.of[i].delivery = m.delivery.WithLabelValues(name)
	}
	for _, cause := range []string{causeClient, causeSlow, causeSilent, causeProtocol, causeDrain, causeOverload} {
		m.closed.WithLabelValues(cause)
	}
	return m
}

func (m *metrics) register(to prometheus.Registerer) error {
	if to == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.open, m.sent, m.closed, m.delivery} {
		if err := to.Register(c); err != nil {
			return err
		}
	}
	return nil
}
