package api

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the HTTP metrics of a router. The label values are route names,
// status classes and failure codes, all from closed sets.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	appended prometheus.Counter
	tokens   prometheus.Histogram
	other    routeMetrics // of requests without a route
}

// routeMetrics are the metrics of one route, looked up once.
type routeMetrics struct {
	byClass  [6]prometheus.Counter // by the first digit of the status
	duration prometheus.Observer
}

func newMetrics() *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fastpaca_http_requests_total",
			Help: "HTTP requests answered, by route and class of status.",
		}, []string{"route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fastpaca_http_request_duration_seconds",
			Help:    "Time from the parsed request header to the written answer, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15},
		}, []string{"route"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fastpaca_http_failures_total",
			Help: "HTTP requests answered with a failure, by its stable code.",
		}, []string{"code"}),
		appended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fastpaca_messages_append_total",
			Help: "Messages appended and acknowledged through this router, duplicates not counted.",
		}),
		tokens: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "fastpaca_messages_token_count",
			Help:    "Tokens of each of these messages, as counted or as their client says.",
			Buckets: []float64{10, 50, 100, 500, 1000, 5000, 10000},
		}),
	}
	m.other = m.route("other")
	return m
}

// register registers the metrics and a gauge of the requests in flight.
func (m *metrics) register(to prometheus.Registerer, a *API) error {
	if to == nil {
		return nil
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fastpaca_http_requests_in_flight",
		Help: "HTTP requests under /v1 being served.",
	}, func() float64 { return float64(a.InFlight()) })
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.failures, m.appended, m.tokens, inFlight} {
		if err := to.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) route(name string) routeMetrics {
	r := routeMetrics{duration: m.duration.WithLabelValues(name)}
	for class, label := range []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		r.byClass[class] = m.requests.WithLabelValues(name, label)
	}
	return r
}

// count records an answered request.
func (a *API) count(x *exchange, started time.Time) {
	m := &a.metrics.other
	if x.op != nil {
		m = &x.op.metrics
	}
	if class := x.status / 100; class < len(m.byClass) {
		m.byClass[class].Inc()
	}
	m.duration.Observe(time.Since(started).Seconds())
	if x.failed != nil {
		a.metrics.failures.WithLabelValues(x.failed.code).Inc()
	}
}

// repeats keeps failures that come in floods from flooding the log.
type repeats struct {
	mu   sync.Mutex // guards last
	last map[*kind]repeat
}

type repeat struct {
	logged     time.Time
	suppressed int
}

// allow reports whether a failure of the kind is to be logged now, and how many
// were not since the last that was. Internal failures always are.
func (r *repeats) allow(k *kind, now time.Time) (suppressed int, ok bool) {
	if k == kindInternal {
		return 0, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = make(map[*kind]repeat)
	}
	last := r.last[k]
	if now.Sub(last.logged) < time.Second {
		last.suppressed++
		r.last[k] = last
		return 0, false
	}
	r.last[k] = repeat{logged: now}
	return last.suppressed, true
}
