package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

//go:embed page
var files embed.FS

// policy keeps the page to this server: nothing is fetched from or sent to
// anywhere else, no script but its own runs, and none is made from text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

const (
	// Path is where a Console is to be served, with everything below it.
	Path = "/console"
	// maxRequests bounds the requests being served; some wait for the cluster.
	maxRequests = 64
)

// Config says what a Console shows.
type Config struct {
	// Cluster tells of the cluster. Required.
	Cluster Cluster
	// Latency tells of the appends of the whole cluster. Nil if nobody does: those
	// of this process are shown.
	Latency Latency
	// Operator carries out orders. Nil makes a console that can only look.
	Operator Operator
	// Metrics has the histogram of appends of this process. Required.
	Metrics prometheus.Gatherer
	// Logger is told of orders, wrong tokens, and whether the cluster can be seen.
	// Required.
	Logger *slog.Logger
}

// Console is the http.Handler of everything at Path. All its methods may be
// called from any goroutine.
//
// Goroutines: one that reads the metrics now and then, and at most two more, while
// it looks at the cluster for a page that asked. Close ends them.
type Console struct {
	operator   Operator
	log        *slog.Logger
	mux        *http.ServeMux
	snapshot   *snapshot
	latency    *latency
	sameOrigin *http.CrossOriginProtection
	requests   chan struct{} // capacity maxRequests; one token for each being served, refused when full
	orders     chan struct{} // capacity maxOrders; the same for orders
	refusals   refusals
	failing    atomic.Bool // the metrics could not be read the last time
	stop       context.CancelFunc
	running    sync.WaitGroup
}

// New returns a console. It must be closed.
func New(conf Config) (*Console, error) {
	if conf.Cluster == nil || conf.Metrics == nil || conf.Logger == nil {
		return nil, errors.New("console: the cluster, the metrics and the logger are required")
	}
	c := &Console{
		operator: conf.Operator, log: conf.Logger, mux: http.NewServeMux(), sameOrigin: http.NewCrossOriginProtection(),
		snapshot: newSnapshot(conf.Cluster, conf.Latency, conf.Logger, time.Now),
		latency:  &latency{gatherer: conf.Metrics, now: time.Now},
		requests: make(chan struct{}, maxRequests), orders: make(chan struct{}, maxOrders),
	}
	if err := c.routeFiles(); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c.mux.HandleFunc("GET "+Path+"/api/cluster", c.serveCluster)
	c.mux.HandleFunc("GET "+Path+"/api/latency", c.serveLatency)
	c.mux.HandleFunc("POST "+Path+"/api/orders", c.serveOrder)
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.running.Go(func() { c.latency.run(ctx) })
	return c, nil
}

// Close ends the look under way. Requests are answered with what was seen last.
func (c *Console) Close() error {
	c.stop()
	c.snapshot.close()
	c.running.Wait()
	return nil
}

// routeFiles routes what is embedded: the page at Path, the rest below it.
func (c *Console) routeFiles() error {
	entries, err := fs.ReadDir(files, "page")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		content, err := files.ReadFile("page/" + entry.Name())
		if err != nil {
			return err
		}
		at := Path + "/" + entry.Name()
		if entry.Name() == "index.html" {
			at = Path
		}
		kind, known := contentTypes[path.Ext(entry.Name())]
		if !known {
			return fmt.Errorf("embedded %s is of no known type", entry.Name())
		}
		sum := sha256.Sum256(content)
		tag := `"` + hex.EncodeToString(sum[:12]) + `"`
		c.mux.HandleFunc("GET "+at, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", "no-cache")
			w.Header().Set("ETag", tag)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		})
	}
	c.mux.HandleFunc("GET "+Path+"/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", ".."+Path)
		w.WriteHeader(http.StatusMovedPermanently)
	})
	return nil
}

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

// ServeHTTP answers one request.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	select {
	case c.requests <- struct{}{}:
		defer func() { <-c.requests }()
	default:
		h.Set("Retry-After", "1")
		answerError(w, http.StatusServiceUnavailable, "overloaded", "Too many requests of consoles are being served.")
		return
	}
	if _, pattern := c.mux.Handler(r); pattern != "" {
		c.mux.ServeHTTP(w, r)
	} else if allowed := c.allowed(r); allowed != "" {
		h.Set("Allow", allowed)
		answerError(w, http.StatusMethodNotAllowed, "method_not_allowed", "The method is not allowed at this path.")
	} else {
		answerError(w, http.StatusNotFound, "not_found", "There is nothing at this path.")
	}
}

// allowed lists the methods that the path of a request takes.
func (c *Console) allowed(r *http.Request) string {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := c.mux.Handler(probe); pattern != "" {
			methods = append(methods, method)
		}
	}
	return strings.Join(methods, ", ")
}

func (c *Console) serveCluster(w http.ResponseWriter, r *http.Request) {
	seen := c.snapshot.get(r.Context())
	if seen == nil {
		answerError(w, http.StatusServiceUnavailable, "unavailable", "The cluster has not been looked at yet.")
		return
	}
	h := w.Header()
	// What changes without the cluster is not in the body, which is made once for
	// all pages.
	h.Set("X-Console-Now", strconv.FormatInt(time.Now().UnixMilli(), 10))
	h.Set("X-Console-Orders", strconv.FormatBool(c.operator != nil))
	h.Set("Vary", "Accept-Encoding")
	body := seen.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = seen.packed
	}
	answerJSON(w, http.StatusOK, body)
}

func (c *Console) serveLatency(w http.ResponseWriter, _ *http.Request) {
	seen, err := c.latency.get()
	var body []byte
	if err == nil {
		body, err = json.Marshal(struct {
			Now int64 `json:"now"` // milliseconds since 1970
			*history
		}{time.Now().UnixMilli(), seen})
	}
	// Pages ask every two seconds: the log has the first failure.
	if failed := err != nil; c.failing.Swap(failed) != failed && failed {
		c.log.Error("the console cannot read the metrics", "error", err)
	}
	if err != nil {
		answerError(w, http.StatusInternalServerError, "internal", "The metrics cannot be read.")
		return
	}
	answerJSON(w, http.StatusOK, body)
}

// answerJSON writes an answer. Nobody is left to hear that the client has gone.
func answerJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func answerError(w http.ResponseWriter, status int, code, message string) {
	body, err := json.Marshal(map[string]string{"error": code, "message": message})
	if err != nil {
		body = []byte(`{"error":"internal","message":"The failure cannot be shown."}`)
	}
	answerJSON(w, status, body)
}

// refusals keeps guesses of the token from flooding the log.
type refusals struct {
	mu         sync.Mutex // guards the below
	logged     time.Time
	suppressed int
}

func (f *refusals) log(to *slog.Logger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.logged) < refusalEvery {
		f.suppressed++
		return
	}
	to.Warn("an order came with a wrong token", "suppressed", f.suppressed)
	f.logged, f.suppressed = now, 0
}
