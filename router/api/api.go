package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/socket"
)

// Deps are what the API needs beside the data plane.
type Deps struct {
	// Log receives panics and answers of 5xx. Required.
	Log *slog.Logger
	// Checks are the parts of /health/ready, answered in this order.
	Checks []Check
	// Registerer receives the HTTP metrics. Nil registers none.
	Registerer prometheus.Registerer
	// Streams serves WebSockets, Server-Sent Events and Phoenix Channels. The
	// Server of the API shuts it down. Nil answers them 503.
	Streams *socket.Server
	// Measure, when not nil, is told what appends cost.
	Measure Measure
	// Tracer, when not nil, starts a trace for the requests that it chooses, and
	// continues those of clients that send a W3C traceparent.
	Tracer trace.Tracer
	// LateTracer, when not nil, records requests that were not chosen and then
	// failed or took long, after the fact.
	LateTracer trace.Tracer
	// MetricsHandler serves /metrics. Nil leaves the path unrouted.
	MetricsHandler http.Handler
	// Console serves /console and what is below. Nil leaves the paths unrouted.
	Console http.Handler
}

// API is the public HTTP surface. It is an http.Handler; all its methods may be
// called from any goroutine. It starts no goroutine.
type API struct {
	cfg     Config
	backend rpc.Node
	log     *slog.Logger
	checks  []Check
	streams *socket.Server
	origins *origins

	mux       *chi.Mux
	documents *documents
	metrics   *metrics
	measure   Measure      // nil: nobody is told
	tracer    trace.Tracer // nil: nothing is traced, and so for late
	late      trace.Tracer
	ids       *requestIDs
	exchanges sync.Pool // of *exchange
	repeats   repeats

	inFlight atomic.Int64 // requests under /v1 being served
	buffered atomic.Int64 // bytes they hold, see Config.MaxBufferedBytes
	draining atomic.Bool
}

// New returns the surface in front of the backend, which is usually a
// forward.Forwarder.
func New(cfg Config, backend rpc.Node, deps Deps) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("api configuration: %w", err)
	}
	if backend == nil || deps.Log == nil {
		return nil, errors.New("api: the data plane and the logger are required")
	}
	a := newAPI(cfg)
	a.backend, a.log, a.checks, a.streams = backend, deps.Log, deps.Checks, deps.Streams
	a.measure, a.tracer, a.late = deps.Measure, deps.Tracer, deps.LateTracer
	a.origins, _ = parseOrigins(cfg.AllowedOrigins) // was validated
	if err := a.metrics.register(deps.Registerer, a); err != nil {
		return nil, fmt.Errorf("api metrics: %w", err)
	}
	if deps.MetricsHandler != nil {
		a.mux.Method(http.MethodGet, "/metrics", deps.MetricsHandler)
	}
	if deps.Console != nil {
		a.routeConsole(deps.Console)
	}
	return a, nil
}

// newAPI builds the routes and the document, which depend on neither the data
// plane nor the environment.
func newAPI(cfg Config) *API {
	a := &API{cfg: cfg, ids: newRequestIDs(), mux: chi.NewMux()}
	a.exchanges.New = func() any { return new(exchange) }
	a.metrics = newMetrics()
	a.mux.NotFound(a.notFound)
	a.mux.MethodNotAllowed(a.notFound)
	a.mux.Use(middleware.GetHead)
	spec := huma.NewAPI(specification(), adapter{a.mux})
	for _, op := range a.operations() {
		a.mount(spec, op)
	}
	a.documents = newDocuments(spec.OpenAPI())
	a.routeDocuments("")
	a.routeDocuments(basePath)
	a.routeDocs()
	a.routeHealth()
	a.routePhoenix()
	return a
}

// basePath is in front of the paths of all operations. The server URL of the
// document ends in it.
const basePath = "/v1"

// adapter routes Huma's operations below basePath on the one mux there is. A
// router mounted there would route every request twice.
type adapter struct{ *chi.Mux }

// Handle routes an operation.
func (a adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	a.MethodFunc(op.Method, basePath+op.Path, func(w http.ResponseWriter, r *http.Request) {
		handler(humachi.NewContext(op, r, w))
	})
}

// operation is one endpoint: its part of the document, and what serves it.
type operation struct {
	huma.Operation
	// failures are the kinds that the endpoint can answer with, beside those
	// that all endpoints share.
	failures []*kind
	// writes tells whether the endpoint can change something.
	writes bool
	// streams tells that the answer outlives the request: the endpoint takes the
	// connection over and returns, and has bounds of its own.
	streams bool
	serve   func(ctx context.Context, x *exchange, r *http.Request) error

	metrics  routeMetrics
	spanName string
}

// mount gives the operation its route and its place in the document.
func (a *API) mount(spec huma.API, op *operation) {
	op.document(spec.OpenAPI().Components.Schemas)
	spec.OpenAPI().AddOperation(&op.Operation)
	op.metrics = a.metrics.route(op.OperationID)
	op.spanName = op.Method + " " + basePath + op.Path
	named := strings.Contains(op.Path, "{id}")
	spec.Adapter().Handle(&op.Operation, func(h huma.Context) {
		r, w := humachi.Unwrap(h)
		x := w.(*exchange)
		x.op = op
		if named {
			key, err := rpc.KeyOf(h.Param("id"))
			if err != nil {
				x.fail(failureOf(err, false))
				return
			}
			x.key = key
		}
		a.run(op, x, r)
	})
}

// run serves a routed request within the bounds on requests in flight and on
// time.
func (a *API) run(op *operation, x *exchange, r *http.Request) {
	if op.streams {
		ctx, cancel := context.WithTimeout(r.Context(), a.cfg.RequestTimeout)
		defer cancel()
		if err := op.serve(ctx, x, r); err != nil {
			x.fail(failureOf(err, false))
		}
		return
	}
	if a.inFlight.Add(1) > int64(a.cfg.MaxInFlight) {
		a.inFlight.Add(-1)
		x.fail(fail(kindOverloaded, "The server is serving as many requests as it can. Nothing was written; it is safe to retry."))
		return
	}
	defer a.inFlight.Add(-1)
	defer a.release(x)
	ctx := a.startTrace(r, op, x)
	if err := op.serve(ctx, x, r); err != nil {
		x.fail(failureOf(err, op.writes))
	}
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	x := a.exchanges.Get().(*exchange)
	x.begin(w, a.ids.of(r))
	x.started = started
	defer a.end(x, r, started)
	if a.preflight(x, r) {
		return
	}
	x.shared = a.share(x, r)
	a.mux.ServeHTTP(x, r)
}

// end runs deferred: it turns a panic into an answer, counts, logs, and gives
// the exchange back.
func (a *API) end(x *exchange, r *http.Request, started time.Time) {
	if p := recover(); p != nil {
		a.panicked(x, r, p)
		a.count(x, started)
		a.endTrace(x)
		if x.failed.cause == errAborted {
			panic(http.ErrAbortHandler)
		}
		return // the exchange may be anywhere: it does not go back to the pool
	}
	a.count(x, started)
	a.endTrace(x)
	if f := x.failed; f != nil && f.status >= 500 {
		a.logFailure(x, r, f)
	} else if a.log.Enabled(r.Context(), slog.LevelDebug) {
		a.log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", x.status, "request_id", x.requestID, "duration", time.Since(started))
	}
	x.reset()
	a.exchanges.Put(x)
}

// errAborted marks an answer that was cut off and cannot be completed.
var errAborted = errors.New("handler aborted")

func (a *API) panicked(x *exchange, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		x.failed = &failure{kind: kindInternal, cause: errAborted}
		return
	}
	a.log.Error("request panicked", "panic", p, "method", r.Method, "path", r.URL.Path, "request_id", x.requestID, "stack", string(debug.Stack()))
	if x.status != 0 {
		// Part of another answer is out. Cutting the connection is the only way
		// left to tell the client.
		x.failed = &failure{kind: kindInternal, cause: errAborted}
		return
	}
	x.fail(&failure{kind: kindInternal})
}

// logFailure logs an answer of 5xx. Kinds that come in floods are logged once a
// second each.
func (a *API) logFailure(x *exchange, r *http.Request, f *failure) {
	level := slog.LevelWarn
	if f.status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	if suppressed, ok := a.repeats.allow(f.kind, time.Now()); ok {
		a.log.Log(r.Context(), level, "request failed", "code", f.code, "error", f, "method", r.Method, "path", r.URL.Path, "request_id", x.requestID, "suppressed", suppressed, x.traceID())
	}
}

// notFound answers requests without a route: 405 when another method has one.
func (a *API) notFound(w http.ResponseWriter, r *http.Request) {
	x := w.(*exchange)
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.Path
	}
	var allowed []string
	for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPost, http.MethodPut} {
		if a.mux.Match(chi.NewRouteContext(), method, path) {
			allowed = append(allowed, method)
			if method == http.MethodGet {
				allowed = append(allowed, http.MethodHead)
			}
		}
	}
	if len(allowed) == 0 || slices.Contains(allowed, r.Method) {
		x.fail(&failure{kind: kindNotFound})
		return
	}
	x.Header().Set("Allow", strings.Join(allowed, ", "))
	x.fail(&failure{kind: kindMethodNotAllowed})
}

// Drain makes /health/ready answer 503 from now on. Requests go on being
// served, and so do streams that are open.
func (a *API) Drain() {
	a.draining.Store(true)
	if a.streams != nil {
		a.streams.Drain()
	}
}

// InFlight is the number of requests under /v1 being served.
func (a *API) InFlight() int { return int(a.inFlight.Load()) }
