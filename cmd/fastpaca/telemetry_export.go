package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// otlp is what the standard variables say about OTLP. The exporters read
// theirs (endpoints, headers, certificates, timeouts, compression) themselves.
type otlp struct {
	metrics, traces protocol // "" for none
	disabled        bool     // nothing is measured but what Prometheus's own collectors do
	sampling        sampling
}

type protocol string

const (
	protocolGRPC protocol = "grpc"
	protocolHTTP protocol = "http/protobuf"
)

func otlpFromEnv() (otlp, error) {
	var e otlp
	var err error
	if e.sampling, err = samplingFromEnv(); err != nil {
		return e, err
	}
	if e.disabled = strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true"); e.disabled {
		return e, nil
	}
	metrics, metricsErr := protocolFromEnv("METRICS")
	traces, tracesErr := protocolFromEnv("TRACES")
	e.metrics, e.traces = metrics, traces
	return e, errors.Join(metricsErr, tracesErr)
}

// protocolFromEnv returns how a signal is exported, or "" when it is not.
func protocolFromEnv(signal string) (protocol, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") == "" {
		return "", nil
	}
	switch exporter := os.Getenv("OTEL_" + signal + "_EXPORTER"); exporter {
	case "", "otlp":
	case "none":
		return "", nil
	default:
		return "", fmt.Errorf("OTEL_%s_EXPORTER %q: want otlp or none; Prometheus is served at /metrics in any case", signal, exporter)
	}
	variable := "OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL"
	value := os.Getenv(variable)
	if value == "" {
		variable = "OTEL_EXPORTER_OTLP_PROTOCOL"
		value = os.Getenv(variable)
	}
	switch p := protocol(value); p {
	case "":
		return protocolHTTP, nil
	case protocolGRPC, protocolHTTP:
		return p, nil
	default:
		return "", fmt.Errorf("%s %q: want grpc or http/protobuf", variable, value)
	}
}

// exporters are nil where nothing is exported.
type exporters struct {
	metrics sdkmetric.Exporter
	spans   sdktrace.SpanExporter
}

// exporters makes them. None of them connects before there is something to
// send.
func (e otlp) exporters(log *slog.Logger) (exporters, error) {
	var out exporters
	var errs [2]error
	ctx := context.Background()
	switch e.metrics {
	case protocolGRPC:
		out.metrics, errs[0] = otlpmetricgrpc.New(ctx)
	case protocolHTTP:
		out.metrics, errs[0] = otlpmetrichttp.New(ctx)
	}
	switch e.traces {
	case protocolGRPC:
		out.spans, errs[1] = otlptracegrpc.New(ctx)
	case protocolHTTP:
		out.spans, errs[1] = otlptracehttp.New(ctx)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return exporters{}, err
	}
	if out.metrics != nil {
		out.metrics = watchedMetrics{out.metrics, &watch{log: log, signal: "metrics"}}
	}
	if out.spans != nil {
		out.spans = watchedSpans{out.spans, &watch{log: log, signal: "traces"}}
	}
	return out, nil
}

// watch writes one line when a collector is lost and one when it is back,
// however many exports fail between. What could not be exported is dropped: the
// SDK's queues are bounded and nobody waits for them.
type watch struct {
	log    *slog.Logger
	signal string

	mu   sync.Mutex // guards lost
	lost int        // exports that failed since one succeeded
}

func (w *watch) saw(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil && w.lost > 0:
		w.log.Info("telemetry is exported again", "signal", w.signal, "exports_lost", w.lost)
		w.lost = 0
	case err != nil:
		if w.lost++; w.lost == 1 {
			w.log.Warn("telemetry cannot be exported; nothing waits for it", "signal", w.signal, "error", err)
		}
	}
}

type watchedMetrics struct {
	sdkmetric.Exporter
	watch *watch
}

// Export implements sdkmetric.Exporter. It swallows the error, which is logged.
func (w watchedMetrics) Export(ctx context.Context, data *metricdata.ResourceMetrics) error {
	w.watch.saw(w.Exporter.Export(ctx, data))
	return nil
}

type watchedSpans struct {
	sdktrace.SpanExporter
	watch *watch
}

// ExportSpans implements sdktrace.SpanExporter, as watchedMetrics does its.
func (w watchedSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	w.watch.saw(w.SpanExporter.ExportSpans(ctx, spans))
	return nil
}
