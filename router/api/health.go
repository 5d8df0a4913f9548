package api

import (
	"context"
	"net/http"
)

// Check is one part of readiness.
type Check struct {
	// Name of the part, shown in the answer.
	Name string
	// Ready returns nil when the part can do its work, else an error whose text
	// is shown to whoever asks. It is called for every request to
	// /health/ready, from any goroutine, and must return soon after ctx ends.
	Ready func(ctx context.Context) error
}

// routeHealth routes the probes, which work whatever the load: they are not
// counted as requests in flight.
func (a *API) routeHealth() {
	a.mux.Get("/health/live", a.live)
	a.mux.Get("/health/ready", a.ready)
}

// live answers while the process can answer at all.
func (a *API) live(w http.ResponseWriter, _ *http.Request) {
	x := w.(*exchange)
	x.send(http.StatusOK, []byte(`{"status":"ok"}`))
}

// ready answers 200 when every check passes and the server is not stopping.
func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	x := w.(*exchange)
	ctx, cancel := context.WithTimeout(r.Context(), a.cfg.ReadyTimeout)
	defer cancel()
	var reason string
	checks := []byte{'{'}
	for i, check := range a.checks {
		state := "ok"
		if err := check.Ready(ctx); err != nil {
			state = err.Error()
			if reason == "" {
				reason = check.Name + ": " + state
			}
		}
		if i > 0 {
			checks = append(checks, ',')
		}
		checks = appendString(checks, check.Name)
		checks = append(checks, ':')
		checks = appendString(checks, state)
	}
	checks = append(checks, '}')

	state, status := "ok", http.StatusOK
	switch {
	case a.draining.Load():
		state, status, reason = "draining", http.StatusServiceUnavailable, "the server is stopping"
	case reason != "":
		state, status = "starting", http.StatusServiceUnavailable
	}
	x.out = append(x.out[:0], `{"status":"`...)
	x.out = append(x.out, state...)
	x.out = append(x.out, '"')
	if reason != "" {
		x.out = append(x.out, `,"reason":`...)
		x.out = appendString(x.out, reason)
	}
	x.out = append(x.out, `,"checks":`...)
	x.out = append(x.out, checks...)
	x.out = append(x.out, '}')
	if status != http.StatusOK {
		x.Header().Set("Retry-After", "1")
	}
	x.send(status, x.out)
}
