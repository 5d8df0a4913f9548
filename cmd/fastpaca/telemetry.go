package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	prombridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	grpcotel "google.golang.org/grpc/stats/opentelemetry"

	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/router/api"
	"github.com/fastpaca/fastpaca/router/forward"
)

// telemetry is what a process measures and where it goes: to /metrics always,
// and by OTLP when the standard OTEL_ variables name a collector.
//
// Goroutines: those of the SDK's reader and span processor, which the process's
// parts stop last.
type telemetry struct {
	// registry takes collectors of Prometheus's kind. What the SDK measures is in
	// a registry of its own, so that each reaches a collector once.
	registry *prometheus.Registry
	sdk      *prometheus.Registry
	measured *measured // nil when the SDK is disabled, as all that follows
	paths    *producer
	meters   metric.MeterProvider
	meter    metric.Meter
	// tracer chooses what to trace; late traces what was not chosen and then
	// failed.
	tracer, late trace.Tracer
}

// The roles of processes, as telemetry names them.
const (
	roleServer  = "server"
	roleRouter  = "router"
	roleData    = "data"
	roleControl = "control"
)

// Bounds of telemetry.
const (
	// telemetryFlush is how long the last export may take at the end.
	telemetryFlush = time.Second
	// metricsScrapes bounds the scrapes served at a time.
	metricsScrapes = 4
)

// openTelemetry starts what the environment asks for. role and id describe this
// process to a collector.
func openTelemetry(role, id string, log *slog.Logger, p *parts) (*telemetry, error) {
	env, err := otlpFromEnv()
	if err != nil {
		return nil, err
	}
	about, err := describeProcess(role, id)
	if err != nil {
		return nil, err
	}
	t := &telemetry{registry: newRegistry(), sdk: prometheus.NewRegistry(), paths: &producer{since: time.Now()}}
	if env.disabled {
		return t, nil
	}
	t.measured, t.paths.families = newMeasured(role == roleRouter || role == roleServer, role == roleData || role == roleServer)
	scrape, err := otelprom.New(otelprom.WithRegisterer(t.sdk), otelprom.WithProducer(t.paths), otelprom.WithoutScopeInfo(),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	logSDKErrors(log)
	options := []sdkmetric.Option{
		sdkmetric.WithReader(scrape), sdkmetric.WithResource(about),
		sdkmetric.WithExemplarFilter(exemplar.TraceBasedFilter), sdkmetric.WithView(withoutTarget),
	}
	out, err := env.exporters(log)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	if out.metrics != nil {
		options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(out.metrics, sdkmetric.WithProducer(t.paths),
			sdkmetric.WithProducer(prombridge.NewMetricProducer(prombridge.WithGatherer(t.registry))))))
	}
	provider := sdkmetric.NewMeterProvider(options...)
	t.meters, t.meter = provider, provider.Meter(scopeName, metric.WithInstrumentationVersion(version()))
	stop := provider.Shutdown
	t.tracer, t.late = chooser{sdk: tracenoop.Tracer{}, sampling: sampling{parentBased: true}}, tracenoop.Tracer{}
	if out.spans != nil {
		spans := sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithBatcher(out.spans))
		tracer := spans.Tracer(scopeName, trace.WithInstrumentationVersion(version()))
		t.tracer, t.late = chooser{sdk: tracer, sampling: env.sampling}, newLateTracer(tracer)
		stop = func(ctx context.Context) error { return errors.Join(spans.Shutdown(ctx), provider.Shutdown(ctx)) }
	}
	p.add("telemetry", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, telemetryFlush)
		defer cancel()
		_ = stop(ctx) // a collector that is away has been told of
		return nil
	})
	return t, nil
}

// withoutTarget drops the address from gRPC's metrics: addresses come and go.
var withoutTarget = sdkmetric.NewView(sdkmetric.Instrument{Name: "grpc.*"},
	sdkmetric.Stream{AttributeFilter: attribute.NewDenyKeysFilter("grpc.target")})

// describeProcess is what a collector is told of this process. The environment
// has the last word.
func describeProcess(role, id string) (*resource.Resource, error) {
	if id == "" {
		id, _ = os.Hostname() // an empty one says as much
	}
	about, err := resource.New(context.Background(), resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "fastpaca"), attribute.String("service.version", version()),
		attribute.String("service.instance.id", id), attribute.String("fastpaca.role", role),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return about, nil
}

func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// handler serves /metrics, in the format that has exemplars to those who can
// read it.
func (t *telemetry) handler() http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{t.registry, t.sdk}, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: metricsScrapes,
	})
}

// dialOption measures a gRPC client. A command that only calls has no telemetry.
func (t *telemetry) dialOption() grpc.DialOption {
	if t == nil || t.meters == nil {
		return grpc.EmptyDialOption{}
	}
	return grpcotel.DialOption(grpcotel.Options{MetricsOptions: grpcotel.MetricsOptions{MeterProvider: t.meters}})
}

func (t *telemetry) serverOption() grpc.ServerOption {
	if t.meters == nil {
		return grpc.EmptyServerOption{}
	}
	return grpcotel.ServerOption(grpcotel.Options{MetricsOptions: grpcotel.MetricsOptions{MeterProvider: t.meters}})
}

// What each part is measured by: nil, not a nil pointer, when the SDK is
// disabled.

func (t *telemetry) ofAPI() api.Measure {
	if t.measured == nil {
		return nil
	}
	return routerMeasure{t.measured}
}

func (t *telemetry) ofForwarder() forward.Measure {
	if t.measured == nil {
		return nil
	}
	return forwardMeasure{t.measured}
}

func (t *telemetry) ofNode() group.Measure {
	if t.measured == nil {
		return nil
	}
	return nodeMeasure{t.measured}
}

// observe has the instruments read by callback until the part is stopped, which
// is before what the callback looks at.
func (t *telemetry) observe(name string, p *parts, callback metric.Callback, instruments ...metric.Observable) error {
	registration, err := t.meter.RegisterCallback(callback, instruments...)
	if err != nil {
		return fmt.Errorf("telemetry of %s: %w", name, err)
	}
	p.add("telemetry of "+name, func(context.Context) error { return registration.Unregister() })
	return nil
}

// The SDK has one place, common to the process, for what it cannot return to
// anybody. Exporters report by themselves.
func logSDKErrors(log *slog.Logger) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Debug("telemetry", "error", err) }))
}
