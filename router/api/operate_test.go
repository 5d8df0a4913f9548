package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	var broken error
	h := newHarness(t, func(_ *Config, d *Deps) {
		d.Checks = []Check{
			{Name: "table", Ready: func(context.Context) error { return nil }},
			{Name: "groups", Ready: func(context.Context) error { return broken }},
		}
	})
	h.do("GET", "/health/live", "").is(200).says(`{"status":"ok"}`)
	h.do("GET", "/health/ready", "").is(200).says(`{"status":"ok","checks":{"table":"ok","groups":"ok"}}`)
	broken = errors.New(`3 groups have no "leader"`)
	got := h.do("GET", "/health/ready", "").is(503)
	got.says(`{"status":"starting","reason":"groups: 3 groups have no \"leader\"","checks":{"table":"ok","groups":"3 groups have no \"leader\""}}`)
	require.Equal(t, "1", got.header.Get("Retry-After"))
	h.api.Drain()
	h.do("GET", "/health/ready", "").is(503)
	broken = nil
	h.do("GET", "/health/ready", "").is(503).says(`{"status":"draining","reason":"the server is stopping","checks":{"table":"ok","groups":"ok"}}`)
	h.do("GET", "/health/live", "").is(200)
	h.do("PUT", "/v1/conversations/c", "").is(200)
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	h := newHarness(t, func(_ *Config, d *Deps) {
		d.Registerer = registry
		d.MetricsHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("# metrics")) })
	})
	path := h.create("c")
	h.appendN(path, 2)
	h.do("POST", path+"/messages", `{"messages":[{"id":"a","role":"u","parts":[{"type":"t"}]},{"id":"b","role":"u","parts":[{"type":"t"}]}]}`).is(201)
	h.do("POST", path+"/messages", `{"messages":[{"id":"a","role":"u","parts":[{"type":"t"}]},{"id":"b","role":"u","parts":[{"type":"t"}]}]}`).is(200)
	h.do("POST", path+"/messages", `{"messages":[{"id":"a","role":"u","parts":[{"type":"t"}]},{"id":"c","role":"u","parts":[{"type":"t"}]}]}`).is(201)
	h.do("POST", path+"/messages", `{}`).is(400)
	h.do("GET", "/nothing", "").is(404)
	require.InDelta(t, 5, counted(t, h.api.metrics.appended), 0)
	require.InDelta(t, 5, counted(t, h.api.metrics.requests.WithLabelValues("appendMessages", "2xx")), 0)
	require.InDelta(t, 1, counted(t, h.api.metrics.requests.WithLabelValues("appendMessages", "4xx")), 0)
	require.InDelta(t, 1, counted(t, h.api.metrics.requests.WithLabelValues("other", "4xx")), 0)
	require.InDelta(t, 1, counted(t, h.api.metrics.failures.WithLabelValues("invalid_message")), 0)
	families, err := registry.Gather()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	require.True(t, names["fastpaca_messages_append_total"])
	require.True(t, names["fastpaca_http_requests_in_flight"])
	require.Equal(t, "# metrics", string(h.do("GET", "/metrics", "").is(200).body))

	_, err = New(DefaultConfig(), h.store, Deps{Log: slog.New(slog.DiscardHandler), Registerer: registry})
	require.ErrorContains(t, err, "metrics")
}
