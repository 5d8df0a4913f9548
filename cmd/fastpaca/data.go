package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/mesh"
	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/node"
	"github.com/fastpaca/fastpaca/router/api"
)

// dataConfig is everything `fastpaca data` can be told.
type dataConfig struct {
	ID          string
	DataDir     string
	Listen      string
	Advertise   string
	Control     string
	Zone        string
	Archive     archiveConfig
	Credentials credentialConfig
	Role        roleConfig
}

func (c *dataConfig) flags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "id", EnvVars: []string{"FASTPACA_ID"},
			Usage: "`NAME` of this node, fixed for the life of the data directory", Destination: &c.ID},
		&cli.StringFlag{Name: "data-dir", EnvVars: []string{"FASTPACA_DATA_DIR"}, Value: "./fastpaca-data",
			Usage: "keep everything under `DIR`, made when missing", Destination: &c.DataDir},
		&cli.StringFlag{Name: "listen", EnvVars: []string{"FASTPACA_LISTEN"}, Value: "127.0.0.1:7501",
			Usage: "internal `HOST:PORT`, for the other processes of the cluster", Destination: &c.Listen},
		&cli.StringFlag{Name: "advertise", EnvVars: []string{"FASTPACA_ADVERTISE"},
			Usage: "`HOST:PORT` at which the others reach this node; default: the address it listens on", Destination: &c.Advertise},
		&cli.StringFlag{Name: "control", EnvVars: []string{"FASTPACA_CONTROL"},
			Usage: "control members, as `HOST:PORT,…`", Destination: &c.Control},
		&cli.StringFlag{Name: "zone", EnvVars: []string{"FASTPACA_ZONE"},
			Usage: "failure domain that this node stands in, a `NAME`; replicas of a group are spread over zones", Destination: &c.Zone},
	}
	flags = append(flags, c.Archive.flags()...)
	return append(append(flags, c.Credentials.flags()...), c.Role.flags()...)
}

func (c *dataConfig) validate() error {
	errs := []error{
		required("id", c.ID), required("data-dir", c.DataDir), required("control", c.Control),
		validAddress("listen", c.Listen), c.Archive.validate(), c.Role.validate(), c.Credentials.validate(),
	}
	if c.Control != "" {
		_, err := addressList("control", c.Control)
		errs = append(errs, err)
	}
	if c.Advertise != "" {
		errs = append(errs, validAddress("advertise", c.Advertise))
	}
	return errors.Join(errs...)
}

func dataCommand() *cli.Command {
	var conf dataConfig
	return &cli.Command{
		Name:  "data",
		Usage: "run a data node",
		Description: "Stores messages: holds replicas of the groups that the control plane places on it.\n\n" +
			"Example:\n   fastpaca data --id d1 --data-dir ./d1 --listen 127.0.0.1:7501 --control 127.0.0.1:7401",
		Flags: conf.flags(),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), conf.validate()); err != nil {
				return usageError{err}
			}
			return runRole(c.Context, conf.Role, c, conf.start)
		},
	}
}

func (c *dataConfig) start(log *slog.Logger, stdout io.Writer, p *parts) (<-chan error, error) {
	t, err := openTelemetry(roleData, c.ID, log, p)
	if err != nil {
		return nil, err
	}
	in, err := openInternal(c.Credentials.mesh(mesh.RoleData, c.ID, log), c.Listen)
	if err != nil {
		return nil, err
	}
	in.telemetry = t
	p.addCloser("internal listener", in)
	addresses, err := addressList("control", c.Control)
	if err != nil {
		return nil, err
	}
	control, err := in.dialControl(addresses)
	if err != nil {
		return nil, err
	}
	p.addCloser("control client", control)
	conf := node.DefaultConfig()
	conf.ID, conf.Dir, conf.Zone, conf.Version, conf.Logger = c.ID, nodeDir(c.DataDir), c.Zone, version(), log
	if conf.Advertise = c.Advertise; conf.Advertise == "" {
		conf.Advertise = in.listener.Addr().String()
	}
	conf.Measure, conf.Tracer = t.ofNode(), t.tracer
	if conf.Archive, err = c.Archive.open(control, log, p); err != nil {
		return nil, err
	}
	t.measureArchive(conf.Archive, p)
	data, err := startNode(in, control, conf, p)
	if err != nil {
		return nil, err
	}
	if err := t.observeNode(data, p); err != nil {
		return nil, err
	}
	if err := in.reportLatency(addresses, p); err != nil {
		return nil, err
	}
	in.serveGRPC(nil, data, p)
	archiving, err := observeArchive(data, t.registry)
	if err != nil {
		return nil, err
	}
	if err := serveOps(c.Role.Ops, nodeChecks(data), t, log, p, archiving); err != nil {
		return nil, err
	}
	fmt.Fprintf(stdout, "fastpaca %s data node %s\n  Internal   %s\n  Data       %s\n  Control    %s\n",
		version(), c.ID, in.listener.Addr(), absolute(c.DataDir), c.Control)
	return storageFailure(data), nil
}

// startNode starts a data node that others can reach through in.
func startNode(in *internal, control controlrpc.ControlPlane, conf node.Config, p *parts) (*node.Node, error) {
	conf.Control, conf.Dial, conf.Joined = control, in.dialRaft, in.joined
	data, err := node.Open(conf)
	if err != nil {
		return nil, err
	}
	wait := in.serveRaft(data)
	p.add("data node", func(context.Context) error {
		err := data.Close() // ends the connections that serveRaft handed over
		_ = in.listener.Accept(mesh.KindRaft).Close()
		wait()
		return err
	})
	return data, nil
}

// storageFailure reports when the node's storage has failed for good.
func storageFailure(n *node.Node) <-chan error {
	failed := make(chan error, 1)
	go func() {
		select {
		case <-n.Failed():
			failed <- fmt.Errorf("storage failed, restart the process once the disk is well: %w", n.Err())
		case <-n.Done():
		}
	}()
	return failed
}

// nodeChecks are the parts of a data node's readiness.
func nodeChecks(n *node.Node) []api.Check {
	return []api.Check{
		{Name: "storage", Ready: func(context.Context) error { return n.Status().Storage }},
		{Name: "groups", Ready: func(context.Context) error { return groupsReady(n.Status()) }},
	}
}
