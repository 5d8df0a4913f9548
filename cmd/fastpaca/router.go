package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/mesh"
	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/api"
	"github.com/fastpaca/fastpaca/router/forward"
	"github.com/fastpaca/fastpaca/router/table"
)

// routerConfig is everything `fastpaca router` can be told.
type routerConfig struct {
	Listen      string
	Control     string
	Streams     streamConfig
	Console     consoleConfig
	Credentials credentialConfig
	Role        roleConfig
}

func (c *routerConfig) flags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "listen", EnvVars: []string{"FASTPACA_LISTEN"}, Value: "127.0.0.1:4000",
			Usage: "serve the public API on `HOST:PORT`", Destination: &c.Listen},
		&cli.StringFlag{Name: "control", EnvVars: []string{"FASTPACA_CONTROL"},
			Usage: "control members, as `HOST:PORT,…`", Destination: &c.Control},
	}
	flags = append(append(flags, c.Streams.flags()...), c.Console.flags()...)
	return append(append(flags, c.Credentials.flags()...), c.Role.flags()...)
}

func (c *routerConfig) validate() error {
	errs := []error{required("control", c.Control), validAddress("listen", c.Listen), c.Streams.validate(), c.Role.validate(), c.Credentials.validate()}
	if c.Control != "" {
		_, err := addressList("control", c.Control)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func routerCommand() *cli.Command {
	var conf routerConfig
	return &cli.Command{
		Name:  "router",
		Usage: "run a router",
		Description: "Serves the public API and forwards to the data nodes. It keeps nothing: run as many as\n" +
			"you like, start and stop them at will.\n\n" +
			"Example:\n   fastpaca router --listen 127.0.0.1:4000 --control 127.0.0.1:7401",
		Flags: conf.flags(),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), conf.validate()); err != nil {
				return usageError{err}
			}
			return runRole(c.Context, conf.Role, c, conf.start)
		},
	}
}

func (c *routerConfig) start(log *slog.Logger, stdout io.Writer, p *parts) (<-chan error, error) {
	tuneRouter()
	t, err := openTelemetry(roleRouter, "", log, p)
	if err != nil {
		return nil, err
	}
	in, err := openInternal(c.Credentials.mesh(mesh.RoleRouter, "", log), "")
	if err != nil {
		return nil, err
	}
	in.telemetry = t
	addresses, err := addressList("control", c.Control)
	if err != nil {
		return nil, err
	}
	control, err := in.dialControl(addresses)
	if err != nil {
		return nil, err
	}
	p.addCloser("control client", control)
	if err := in.reportLatency(addresses, p); err != nil {
		return nil, err
	}
	page, err := c.Console.open(remoteConsole(in, &c.Credentials, addresses, p), t, log, p)
	if err != nil {
		return nil, err
	}
	front, err := startFront(c.Listen, c.Streams, control, in.connect, nil, page, t, log, p)
	if err != nil {
		return nil, err
	}
	if err := serveOps(c.Role.Ops, front.checks, t, log, p); err != nil {
		return nil, err
	}
	fmt.Fprintf(stdout, "fastpaca %s router\n  API        http://%s/v1\n  Control    %s\n", version(), dialable(front.address), c.Control)
	return front.failed, nil
}

// front is a router's public side.
type front struct {
	address net.Addr
	checks  []api.Check
	failed  <-chan error
}

// startFront starts a router: it follows the placement table and serves the
// public API. checks are what readiness depends on beside the table; page is the
// console, or nil.
func startFront(listen string, streams streamConfig, control controlrpc.ControlPlane, connect func(controlrpc.NodeID, string) (rpc.Node, error),
	checks []api.Check, page http.Handler, t *telemetry, log *slog.Logger, p *parts) (*front, error) {
	log = log.With("component", "router")
	// Bound first: an address in use is the commonest mistake.
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w (is another server running there? --listen chooses another address)", listen, err)
	}
	placement, err := table.Open(table.Config{Control: control, Log: log})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	p.add("placement table", func(context.Context) error { placement.Close(); return nil })
	forwarder, err := forward.New(forward.Config{Table: placement, Connect: connect, Measure: t.ofForwarder(), Tracer: t.tracer})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	p.addCloser("forwarder", forwarder)
	f := &front{
		address: listener.Addr(),
		checks:  append([]api.Check{{Name: "placement", Ready: placement.Check}}, checks...),
	}
	sockets, err := streams.serve(forwarder, t.registry, log, p)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	conf := api.DefaultConfig()
	conf.AllowedOrigins = streams.origins()
	surface, err := api.New(conf, forwarder, api.Deps{
		Log: log, Checks: f.checks, Streams: sockets, Registerer: t.registry, MetricsHandler: t.handler(), Console: page,
		Measure: t.ofAPI(), Tracer: t.tracer, LateTracer: t.late,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	server := api.NewServer(surface)
	served, failed := make(chan error, 1), make(chan error, 1)
	go func() {
		err := server.Serve(listener)
		if err != nil {
			failed <- err
		}
		served <- err
	}()
	p.add("public API", func(ctx context.Context) error {
		err := server.Shutdown(ctx)
		<-served
		return err
	})
	f.failed = failed
	return f, nil
}
