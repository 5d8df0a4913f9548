package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// startRole runs a command of this program until the test ends. It returns when
// the command has said what runs where: the parsing of flags, before that, is
// not for several at a time.
func startRole(t *testing.T, log io.Writer, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	said := &firstWrite{done: make(chan struct{})}
	go func() { done <- run(ctx, append([]string{"fastpaca"}, args...), said, log) }()
	t.Cleanup(func() {
		cancel()
		require.Equal(t, exitOK, <-done)
	})
	select {
	case <-said.done:
	case code := <-done:
		done <- code
		t.Fatalf("%v exited with %d", args, code)
	}
}

// firstWrite drops what is written and tells of the first time.
type firstWrite struct {
	once sync.Once
	done chan struct{}
}

func (w *firstWrite) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.done) })
	return len(p), nil
}

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startServer runs every role in one process and returns its public address.
func startServer(t *testing.T, log io.Writer) string {
	t.Helper()
	addresses, err := freeAddresses(1)
	require.NoError(t, err)
	startRole(t, log, "serve", "--data-dir", t.TempDir(), "--listen", addresses[0], "--log-level", "info")
	waitReady(t, addresses[0])
	return addresses[0]
}

// request does one request and returns its status.
func request(t *testing.T, method, address, path, body string, header ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode
}

const oneMessage = `{"message":{"role":"user","parts":[{"type":"text","text":"hi"}]}}`

func scrape(t *testing.T, address string) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	require.NoError(t, err)
	return families
}

// The goal: where an append spent its time adds up to what it took, of the median
// append and of all together, and nothing that a client chooses becomes a label.
// Thirty appends to as many conversations go through a live server, whose /metrics is
// read after each and walked at the end.
func TestLiveMetrics(t *testing.T) {
	address := startServer(t, io.Discard)
	const appends = 30
	var ratios []float64 // of the stages' sum to the total, of each append
	passed := sumsOf(t, scrape(t, address), 0)
	for i := range appends {
		id := fmt.Sprintf("/v1/conversations/unbounded-%d", i)
		require.Equal(t, http.StatusOK, request(t, http.MethodPut, address, id, `{}`))
		require.Equal(t, http.StatusCreated, request(t, http.MethodPost, address, id+"/messages", oneMessage))
		now := sumsOf(t, scrape(t, address), i+1)
		parts := 0.0
		for stage := range now {
			if stage != "total" {
				parts += now[stage] - passed[stage]
			}
		}
		ratios = append(ratios, parts/(now["total"]-passed["total"]))
		passed = now
	}
	slices.Sort(ratios)
	require.InEpsilon(t, 1, ratios[appends/2], 0.05, "the stages of an append divide its total: %v", ratios)
	require.Equal(t, http.StatusNotFound, request(t, http.MethodPost, address, "/v1/conversations/absent/messages", oneMessage))
	require.Equal(t, http.StatusOK, request(t, http.MethodGet, address, "/v1/conversations/unbounded-1/tail", ""))
	families := scrape(t, address)

	sums := sumsOf(t, families, appends)
	require.Len(t, sums, int(stages))
	total, parts := sums["total"], 0.0
	delete(sums, "total")
	for _, sum := range sums {
		parts += sum
	}
	require.InEpsilon(t, total, parts, 0.05, "the stages divide the total: %v", sums)
	require.EqualValues(t, appends, families["fastpaca_messages_append_total"].GetMetric()[0].GetCounter().GetValue())

	values := map[string]map[string]bool{}
	series := 0
	for name, family := range families {
		require.NotEmpty(t, family.GetHelp(), name)
		for _, m := range family.GetMetric() {
			series++
			for label, value := range labelsOf(m) {
				require.NotContains(t, value, "unbounded", "%s{%s}", name, label)
				if values[label] == nil {
					values[label] = map[string]bool{}
				}
				values[label][value] = true
			}
		}
	}
	for label, of := range values {
		limit := 30
		if label == "group" {
			limit = 256
		}
		require.LessOrEqual(t, len(of), limit, "label %s has values %v", label, of)
	}
	for name, family := range families {
		if len(family.GetMetric()) > 100 {
			require.Contains(t, []string{"fastpaca_group_leader", "fastpaca_group_lag"}, name, "only cheap gauges are told by group")
		}
	}
	require.Less(t, series, 1500)
}

// sumsOf returns what each stage took of all appends that succeeded, of which
// there are so many.
func sumsOf(t *testing.T, families map[string]*dto.MetricFamily, appends int) map[string]float64 {
	t.Helper()
	sums := map[string]float64{}
	for _, m := range families["fastpaca_append_duration_seconds"].GetMetric() {
		if labels := labelsOf(m); labels["outcome"] == "ok" {
			require.EqualValues(t, appends, m.GetHistogram().GetSampleCount(), "%v", labels)
			sums[labels["stage"]] = m.GetHistogram().GetSampleSum()
		} else {
			require.Equal(t, "rejected", labels["outcome"])
		}
	}
	return sums
}

func labelsOf(m *dto.Metric) map[string]string {
	labels := map[string]string{}
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return labels
}

// collector takes traces by OTLP over HTTP.
type collector struct {
	*httptest.Server
	mu    sync.Mutex // guards spans and metrics
	spans map[string][]*tracepb.Span
	posts int // of metrics
}

func newCollector(t *testing.T) *collector {
	c := &collector{spans: map[string][]*tracepb.Span{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.URL.Path != "/v1/traces" {
			c.posts++
			return
		}
		var export collectortrace.ExportTraceServiceRequest
		if proto.Unmarshal(body, &export) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, resource := range export.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					id := fmt.Sprintf("%x", span.GetTraceId())
					c.spans[id] = append(c.spans[id], span)
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) trace(id string) map[string]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	byName := map[string]*tracepb.Span{}
	for _, span := range c.spans[id] {
		byName[span.GetName()] = span
	}
	return byName
}

// exporting points the standard variables at the collector.
func exporting(t *testing.T, endpoint string) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2000")
	t.Setenv("OTEL_METRIC_EXPORT_TIMEOUT", "2000")
	t.Setenv("OTEL_BSP_EXPORT_TIMEOUT", "2000")
}

const (
	clientTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan  = "00f067aa0ba902b7"
)

// One trace leads from the client through the router and the network to the
// data node, its Raft entry and its state machine. The roles run as they do in a
// cluster.
func TestATraceReachesTheStateMachine(t *testing.T) {
	collector := newCollector(t)
	exporting(t, collector.URL)
	addresses, err := freeAddresses(3)
	require.NoError(t, err)
	control, data, public := addresses[0], addresses[1], addresses[2]
	dir := t.TempDir()
	startRole(t, io.Discard, "control", "--id", "c1", "--data-dir", dir, "--listen", control, "--replication-factor", "1")
	startRole(t, io.Discard, "data", "--id", "d1", "--data-dir", dir, "--listen", data, "--control", control)
	startRole(t, io.Discard, "router", "--listen", public, "--control", control)
	waitReady(t, public)
	require.Eventually(t, func() bool {
		return request(t, http.MethodPut, public, "/v1/conversations/traced", `{}`) < 300
	}, 30*time.Second, 20*time.Millisecond)
	unsampled := strings.Repeat("a", 32)
	for id, flags := range map[string]string{clientTrace: "01", unsampled: "00"} {
		require.Equal(t, http.StatusCreated, request(t, http.MethodPost, public, "/v1/conversations/traced/messages", oneMessage,
			"traceparent", "00-"+id+"-"+clientSpan+"-"+flags, "tracestate", "vendor=value"))
	}
	names := []string{
		"POST /v1/conversations/{id}/messages", "forward append", "append in group",
		"queue", "log sync", "replicate", "apply",
	}
	require.Eventually(t, func() bool { return len(collector.trace(clientTrace)) == len(names) }, 30*time.Second, 20*time.Millisecond)
	spans := collector.trace(clientTrace)
	parent := clientSpan
	for i, name := range names {
		span := spans[name]
		require.NotNil(t, span, name)
		require.Equal(t, parent, fmt.Sprintf("%x", span.GetParentSpanId()), name)
		require.Equal(t, "vendor=value", span.GetTraceState(), name)
		if i < 3 {
			parent = fmt.Sprintf("%x", span.GetSpanId())
		}
	}
	require.Empty(t, collector.trace(unsampled), "its client decided")
	require.Eventually(t, func() bool {
		collector.mu.Lock()
		defer collector.mu.Unlock()
		return collector.posts > 0
	}, 30*time.Second, 20*time.Millisecond, "metrics are pushed too")

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+public+"/metrics", nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "application/openmetrics-text")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.True(t, strings.Contains(string(text), `trace_id="`+clientTrace), "buckets name a trace")
	require.NotContains(t, scrape(t, public), "fastpaca_raft_log_sync_duration_seconds", "a router has no log")
}
