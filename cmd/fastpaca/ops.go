package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/router/api"
)

// opsConfig is the listener for those who operate a process.
type opsConfig struct {
	Listen string
}

func (c *opsConfig) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "ops-listen", EnvVars: []string{"FASTPACA_OPS_LISTEN"},
			Usage: "serve /health/*, /metrics and /debug/pprof/ on `HOST:PORT`; not for the public", Destination: &c.Listen},
	}
}

func (c *opsConfig) validate() error {
	if c.Listen == "" {
		return nil
	}
	return validAddress("ops-listen", c.Listen)
}

func validAddress(flag, address string) error {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return fmt.Errorf("--%s %q: want HOST:PORT", flag, address)
	}
	return nil
}

// Bounds of the ops listener. A profile may take half a minute.
const (
	opsReadTimeout  = 5 * time.Second
	opsWriteTimeout = 2 * time.Minute
	opsIdleTimeout  = time.Minute
	opsCheckTimeout = 2 * time.Second
)

// opsRoute is something that only some roles serve there.
type opsRoute struct {
	pattern string
	handler http.HandlerFunc
}

// serveOps starts the ops listener, when there is to be one.
func serveOps(conf opsConfig, checks []api.Check, t *telemetry, log *slog.Logger, p *parts, more ...opsRoute) error {
	if conf.Listen == "" {
		return nil
	}
	listener, err := net.Listen("tcp", conf.Listen)
	if err != nil {
		return fmt.Errorf("--ops-listen %s: %w", conf.Listen, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health/live", func(w http.ResponseWriter, _ *http.Request) {
		answerHealth(w, http.StatusOK, map[string]any{"status": "ok"})
	})
	mux.HandleFunc("GET /health/ready", func(w http.ResponseWriter, r *http.Request) { answerReady(w, r, checks) })
	mux.Handle("GET /metrics", t.handler())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	for _, route := range more {
		mux.HandleFunc(route.pattern, route.handler)
	}
	server := &http.Server{
		Handler: mux, ReadTimeout: opsReadTimeout, WriteTimeout: opsWriteTimeout, IdleTimeout: opsIdleTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Info("ops listener", "address", listener.Addr())
	p.add("ops listener", func(context.Context) error {
		err := server.Close()
		if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	})
	return nil
}

// answerReady answers like the public listener's /health/ready.
func answerReady(w http.ResponseWriter, r *http.Request, checks []api.Check) {
	ctx, cancel := context.WithTimeout(r.Context(), opsCheckTimeout)
	defer cancel()
	answer := map[string]any{"status": "ok"}
	states := make(map[string]string, len(checks))
	status := http.StatusOK
	for _, check := range checks {
		states[check.Name] = "ok"
		if err := check.Ready(ctx); err != nil {
			states[check.Name] = err.Error()
			if status == http.StatusOK {
				answer["status"], answer["reason"] = "starting", check.Name+": "+err.Error()
			}
			status = http.StatusServiceUnavailable
		}
	}
	answer["checks"] = states
	answerHealth(w, status, answer)
}

func answerHealth(w http.ResponseWriter, status int, answer map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client is gone; there is nobody to tell
}
