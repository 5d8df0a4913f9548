package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/router/api"
	"github.com/fastpaca/fastpaca/router/forward"
	"github.com/fastpaca/fastpaca/router/socket"
	"github.com/fastpaca/fastpaca/router/stream"
)

// streamConfig is what roles with a public side can be told about streams and
// web pages.
type streamConfig struct {
	AllowedOrigins   string
	MaxConnections   int
	MaxSubscriptions int
	MaxJoinRate      int
	Compression      bool
}

func (c *streamConfig) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "allowed-origins", EnvVars: []string{"FASTPACA_ALLOWED_ORIGINS"},
			Usage:       "web pages of these `ORIGINS` may use the API too, separated by commas: https://app.example.com, https://*.example.com, http://host:*, or *; default: pages of the same host, and local pages when the server is addressed as local",
			Destination: &c.AllowedOrigins},
		&cli.IntFlag{Name: "max-streams", EnvVars: []string{"FASTPACA_MAX_STREAMS"}, Value: 10_000,
			Usage: "keep at most `N` streaming connections open, of all transports", Destination: &c.MaxConnections},
		&cli.IntFlag{Name: "max-subscriptions", EnvVars: []string{"FASTPACA_MAX_SUBSCRIPTIONS"}, Value: 256,
			Usage: "let one Phoenix connection join at most `N` topics", Destination: &c.MaxSubscriptions},
		&cli.IntFlag{Name: "max-join-rate", EnvVars: []string{"FASTPACA_MAX_JOIN_RATE"}, Value: 50,
			Usage: "let one Phoenix connection join at most `N` topics a second, beyond a burst of --max-subscriptions", Destination: &c.MaxJoinRate},
		&cli.BoolFlag{Name: "stream-compression", EnvVars: []string{"FASTPACA_STREAM_COMPRESSION"}, Value: true,
			Usage: "compress messages from 1 KiB on for WebSocket clients that can", Destination: &c.Compression},
	}
}

func (c *streamConfig) origins() []string {
	var list []string
	for origin := range strings.SplitSeq(c.AllowedOrigins, ",") {
		if origin = strings.TrimSpace(origin); origin != "" {
			list = append(list, origin)
		}
	}
	return list
}

func (c *streamConfig) validate() error {
	var errs []error
	for _, flag := range []struct {
		name  string
		value int
	}{{"max-streams", c.MaxConnections}, {"max-subscriptions", c.MaxSubscriptions}, {"max-join-rate", c.MaxJoinRate}} {
		if flag.value <= 0 {
			errs = append(errs, fmt.Errorf("--%s %d: want more than 0", flag.name, flag.value))
		}
	}
	conf := api.DefaultConfig()
	conf.AllowedOrigins = c.origins()
	if err := conf.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--allowed-origins: %w", err))
	}
	return errors.Join(errs...)
}

// serve starts what serves streams. The public API shuts it down.
func (c *streamConfig) serve(forwarder *forward.Forwarder, registry *prometheus.Registry, log *slog.Logger, p *parts) (*socket.Server, error) {
	hub, err := stream.NewHub(stream.Config{Node: forwarder, Feed: forwarder, Log: log, Registerer: registry})
	if err != nil {
		return nil, err
	}
	p.add("streams", func(context.Context) error { hub.Close(); return nil })
	sockets, err := socket.New(socket.Config{
		Hub: hub, Log: log, Registerer: registry,
		MaxConnections: c.MaxConnections, MaxSubscriptions: c.MaxSubscriptions, MaxJoinRate: c.MaxJoinRate, NoCompression: !c.Compression,
	})
	if err != nil {
		return nil, err
	}
	p.add("stream connections", func(context.Context) error { sockets.Close(); return nil })
	return sockets, nil
}
