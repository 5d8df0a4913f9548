package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Server serves an API on listeners, with bounds on slow clients and an orderly
// stop.
//
// Goroutines: those of http.Server, which end with Shutdown or Close.
type Server struct {
	api      *API
	http     *http.Server
	stopping atomic.Bool
}

// NewServer returns a server for the API with the timeouts of its Config.
func NewServer(a *API) *Server {
	return &Server{
		api: a,
		http: &http.Server{
			Handler:           a,
			ReadHeaderTimeout: a.cfg.ReadHeaderTimeout,
			ReadTimeout:       a.cfg.ReadTimeout,
			WriteTimeout:      a.cfg.WriteTimeout,
			IdleTimeout:       a.cfg.IdleTimeout,
			MaxHeaderBytes:    a.cfg.MaxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		},
	}
}

// Serve accepts connections until Shutdown or Close, and then returns nil. It
// closes the listener.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(jsonErrorListener{l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
}

// Shutdown stops in order: /health/ready turns to 503; after DrainDelay the
// listeners close; requests being served finish, and streams are sent away in
// waves. When ctx ends first, what is left is cut off and the context's error
// returned. A second call is Close.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.stopping.Swap(true) {
		return s.Close()
	}
	s.api.Drain()
	if delay := s.api.cfg.DrainDelay; delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	streams := make(chan error, 1)
	go func() { streams <- s.shutdownStreams(ctx) }()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("drain http requests: %w", errors.Join(err, s.http.Close()))
	}
	return errors.Join(err, <-streams)
}

func (s *Server) shutdownStreams(ctx context.Context) error {
	if s.api.streams == nil {
		return nil
	}
	return s.api.streams.Shutdown(ctx)
}

// Close cuts all connections off.
func (s *Server) Close() error {
	s.api.Drain()
	err := s.http.Close()
	if s.api.streams != nil {
		s.api.streams.Close()
	}
	if err != nil {
		return fmt.Errorf("close http server: %w", err)
	}
	return nil
}
