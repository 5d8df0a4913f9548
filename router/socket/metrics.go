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
	open   *prometheus.GaugeVec
	sent   *prometheus.CounterVec
	closed *prometheus.CounterVec
	of     [transports]struct {
		open prometheus.Gauge
		sent prometheus.Counter
	}
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
	}
	for i, name := range transportNames {
		m.of[i].open = m.open.WithLabelValues(name)
		m.of[i].sent = m.sent.WithLabelValues(name)
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
	for _, c := range []prometheus.Collector{m.open, m.sent, m.closed} {
		if err := to.Register(c); err != nil {
			return err
		}
	}
	return nil
}
