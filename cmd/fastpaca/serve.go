package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/latency"
	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/node"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/api"
)

// serveConfig is everything `fastpaca serve` can be told.
type serveConfig struct {
	Listen         string
	DataDir        string
	ID             string
	InternalListen string
	Advertise      string
	Zone           string
	Streams        streamConfig
	Console        consoleConfig
	Archive        archiveConfig
	Credentials    credentialConfig
	Role           roleConfig
}

func (c *serveConfig) flags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "listen", EnvVars: []string{"FASTPACA_LISTEN"}, Value: "127.0.0.1:4000",
			Usage: "serve the public API on `HOST:PORT`", Destination: &c.Listen},
		&cli.StringFlag{Name: "data-dir", EnvVars: []string{"FASTPACA_DATA_DIR"}, Value: "./fastpaca-data",
			Usage: "keep everything under `DIR`, made when missing", Destination: &c.DataDir},
		&cli.StringFlag{Name: "id", EnvVars: []string{"FASTPACA_ID"}, Value: "n1",
			Usage: "`NAME` of this node, fixed for the life of the data directory", Destination: &c.ID},
		&cli.StringFlag{Name: "internal-listen", EnvVars: []string{"FASTPACA_INTERNAL_LISTEN"},
			Usage: "let data nodes and routers join at `HOST:PORT`; default: nobody can", Destination: &c.InternalListen},
		&cli.StringFlag{Name: "advertise", EnvVars: []string{"FASTPACA_ADVERTISE"},
			Usage: "`HOST:PORT` at which they reach this process; default: the internal address", Destination: &c.Advertise},
		&cli.StringFlag{Name: "zone", EnvVars: []string{"FASTPACA_ZONE"},
			Usage: "failure domain that this node stands in, a `NAME`", Destination: &c.Zone},
	}
	flags = append(append(flags, c.Streams.flags()...), c.Console.flags()...)
	flags = append(flags, c.Archive.flags()...)
	return append(append(flags, c.Credentials.flags()...), c.Role.flags()...)
}

// validate reports every problem at once.
func (c *serveConfig) validate() error {
	errs := []error{validAddress("listen", c.Listen), required("data-dir", c.DataDir), required("id", c.ID), c.Streams.validate(), c.Archive.validate(), c.Role.validate(), c.Credentials.validate()}
	if c.InternalListen != "" {
		errs = append(errs, validAddress("internal-listen", c.InternalListen))
	}
	if c.Advertise != "" {
		errs = append(errs, validAddress("advertise", c.Advertise))
	}
	return errors.Join(errs...)
}

func serveCommand() *cli.Command {
	var conf serveConfig
	return &cli.Command{
		Name:  "serve",
		Usage: "run everything in one process: router, data node and control plane",
		Description: "Needs nothing but a directory to write to. The first Ctrl-C finishes the requests being\n" +
			"served and exits 0, a second one exits at once.\n\n" +
			"Example:\n   fastpaca serve --listen 127.0.0.1:4000 --data-dir ./fastpaca-data",
		Flags: conf.flags(),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), conf.validate()); err != nil {
				return usageError{err}
			}
			return runRole(c.Context, conf.Role, c, conf.start)
		},
	}
}

// noAddress is what a node without an internal listener registers with.
const noAddress = "localhost:0"

// start starts every plane. Each reaches the next through the interface that is
// a network hop in a cluster.
func (c *serveConfig) start(log *slog.Logger, stdout io.Writer, p *parts) (<-chan error, error) {
	t, err := openTelemetry(roleServer, c.ID, log, p)
	if err != nil {
		return nil, err
	}
	in, err := openInternal(c.Credentials.mesh(mesh.RoleServer, c.ID, log), c.InternalListen)
	if err != nil {
		return nil, err
	}
	in.telemetry = t
	p.addCloser("internal listener", in)
	advertise := c.Advertise
	switch {
	case advertise != "":
	case in.listener != nil:
		advertise = in.listener.Addr().String()
	default:
		advertise = noAddress
	}
	control, err := member.Open(member.Config{ID: c.ID, DataDir: controlDir(c.DataDir), Logger: log})
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", absolute(c.DataDir), err)
	}
	p.addCloser("control plane", control)
	if err := t.observeControl(control, p); err != nil {
		return nil, err
	}
	data, err := c.startNode(in, control, advertise, log, p)
	if err != nil {
		return nil, err
	}
	if err := t.observeNode(data, p); err != nil {
		return nil, err
	}
	if in.listener != nil {
		in.report([]latency.Target{in.keepLatency()}, p)
		in.serveGRPC(control, data, p)
		in.serveAdmin(control, p)
	}
	checks := append([]api.Check{{Name: "control", Ready: func(context.Context) error { return control.Ready() }}}, nodeChecks(data)...)
	page, err := c.Console.open(localConsole(control, in.latency, c.Credentials.Token, log), t, log, p)
	if err != nil {
		return nil, err
	}
	front, err := startFront(c.Listen, c.Streams, control, c.connect(in, data), checks, page, t, log, p)
	if err != nil {
		return nil, err
	}
	archiving, err := observeArchive(data, t.registry)
	if err != nil {
		return nil, err
	}
	if err := serveOps(c.Role.Ops, front.checks, t, log, p, archiving); err != nil {
		return nil, err
	}
	c.banner(stdout, front.address, in)
	return either(storageFailure(data), front.failed), nil
}

func (c *serveConfig) startNode(in *internal, control *member.Server, advertise string, log *slog.Logger, p *parts) (*node.Node, error) {
	conf := node.DefaultConfig()
	conf.ID, conf.Dir, conf.Zone, conf.Version, conf.Logger = c.ID, nodeDir(c.DataDir), c.Zone, version(), log
	conf.Advertise, conf.Control = advertise, control
	conf.Measure, conf.Tracer = in.telemetry.ofNode(), in.telemetry.tracer
	var err error
	if conf.Archive, err = c.Archive.open(control, log, p); err != nil {
		return nil, err
	}
	in.telemetry.measureArchive(conf.Archive, p)
	if in.listener != nil {
		return startNode(in, control, conf, p)
	}
	data, err := node.Open(conf)
	if err != nil {
		return nil, err
	}
	p.addCloser("data node", data)
	return data, nil
}

// connect returns this process's own node directly, and others over the
// network.
func (c *serveConfig) connect(in *internal, own *node.Node) func(controlrpc.NodeID, string) (rpc.Node, error) {
	return func(id controlrpc.NodeID, address string) (rpc.Node, error) {
		if string(id) == c.ID {
			return inProcess{own, own}, nil
		}
		return in.connect(id, address)
	}
}

// inProcess hides Close: the forwarder closes connections, not nodes.
type inProcess struct {
	rpc.Node
	rpc.Feed
}

// either reports the first of two failures.
func either(a, b <-chan error) <-chan error {
	failed := make(chan error, 1)
	go func() {
		select {
		case err, ok := <-a:
			if !ok {
				return
			}
			failed <- err
		case err := <-b:
			failed <- err
		}
	}()
	return failed
}

// banner tells a person at a terminal what runs where and what to do next.
func (c *serveConfig) banner(w io.Writer, listen net.Addr, in *internal) {
	base := "http://" + dialable(listen)
	fmt.Fprintf(w, "fastpaca %s\n  API        %s/v1\n  Docs       %s/docs\n  Health     %s/health/ready\n  Data       %s\n",
		version(), base, base, base, absolute(c.DataDir))
	if c.Console.Enabled {
		fmt.Fprintf(w, "  Console    %s/console\n", base)
	}
	if in.listener != nil {
		fmt.Fprintf(w, "  Internal   %s\n", in.listener.Addr())
	}
	fmt.Fprintf(w, `
Try:
  curl -X PUT %s/v1/conversations/hello -H 'Content-Type: application/json' -d '{"metadata":{"from":"curl"}}'

Ctrl-C stops.
`, base)
}

// dialable turns a wildcard listen address into one that can be called.
func dialable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("localhost", fmt.Sprint(tcp.Port))
}

// maxNamed bounds the groups that a readiness answer lists.
const maxNamed = 8

// groupsReady says which groups cannot be written. A node that has joined and
// was given none, because it is new or drained, has nothing to wait for.
func groupsReady(st node.Status) error {
	switch {
	case !st.Joined:
		return errors.New("the control plane has not said yet what to host")
	case st.Open < st.Assigned:
		return fmt.Errorf("%d of %d groups are open", st.Open, st.Assigned)
	case len(st.Failed) > 0:
		return fmt.Errorf("%d groups have stopped because of their storage: %s", len(st.Failed), named(st.Failed))
	case len(st.Leaderless) > 0:
		return fmt.Errorf("%d groups have no leader: %s", len(st.Leaderless), named(st.Leaderless))
	}
	return nil
}

func named(groups []rpc.Group) string {
	var b strings.Builder
	for i, g := range groups {
		if i == maxNamed {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, g)
	}
	return b.String()
}
