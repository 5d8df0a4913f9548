package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
	"github.com/fastpaca/fastpaca/router/api"
)

// controlConfig is everything `fastpaca control` can be told.
type controlConfig struct {
	ID                string
	DataDir           string
	Listen            string
	Peers             string
	BootstrapExpect   int
	ReplicationFactor int
	ReplaceAfter      time.Duration
	Credentials       credentialConfig
	Role              roleConfig
}

func (c *controlConfig) flags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "id", EnvVars: []string{"FASTPACA_ID"},
			Usage: "`NAME` of this member, fixed for the life of the data directory", Destination: &c.ID},
		&cli.StringFlag{Name: "data-dir", EnvVars: []string{"FASTPACA_DATA_DIR"}, Value: "./fastpaca-data",
			Usage: "keep everything under `DIR`, made when missing", Destination: &c.DataDir},
		&cli.StringFlag{Name: "listen", EnvVars: []string{"FASTPACA_LISTEN"}, Value: "127.0.0.1:7401",
			Usage: "internal `HOST:PORT`, for the other processes of the cluster", Destination: &c.Listen},
		&cli.StringFlag{Name: "peers", EnvVars: []string{"FASTPACA_PEERS"},
			Usage: "all members, this one included, as `ID=HOST:PORT,…`: 1, 3 or 5 of them; default: this one alone", Destination: &c.Peers},
		&cli.IntFlag{Name: "bootstrap-expect", EnvVars: []string{"FASTPACA_BOOTSTRAP_EXPECT"}, Value: member.DefaultBootstrapExpect,
			Usage: "place groups once `N` data nodes are there", Destination: &c.BootstrapExpect},
		&cli.IntFlag{Name: "replication-factor", EnvVars: []string{"FASTPACA_REPLICATION_FACTOR"}, Value: member.DefaultReplicationFactor,
			Usage: "replicas per group, `N` = 1, 3 or 5; fixed when the cluster is created", Destination: &c.ReplicationFactor},
		&cli.DurationFlag{Name: "replace-after", EnvVars: []string{"FASTPACA_REPLACE_AFTER"}, Value: reconcile.DefaultReplaceAfter,
			Usage: "replace the replicas of a node that has been silent for a `DURATION`", Destination: &c.ReplaceAfter},
	}
	return append(append(flags, c.Credentials.flags()...), c.Role.flags()...)
}

func (c *controlConfig) validate() error {
	errs := []error{required("id", c.ID), required("data-dir", c.DataDir), validAddress("listen", c.Listen), c.Role.validate(), c.Credentials.validate()}
	if c.BootstrapExpect < 1 {
		errs = append(errs, fmt.Errorf("--bootstrap-expect %d: want at least 1", c.BootstrapExpect))
	}
	if c.ReplaceAfter < member.DefaultSessionTTL {
		errs = append(errs, fmt.Errorf("--replace-after %s: want at least %s, a node that restarts is silent for a moment", c.ReplaceAfter, member.DefaultSessionTTL))
	}
	switch c.ReplicationFactor {
	case 1, 3, 5:
	default:
		errs = append(errs, fmt.Errorf("--replication-factor %d: want 1, 3 or 5", c.ReplicationFactor))
	}
	_, err := c.peers()
	return errors.Join(append(errs, err)...)
}

// peers parses --peers.
func (c *controlConfig) peers() (map[string]string, error) {
	if c.Peers == "" {
		return nil, nil
	}
	peers := make(map[string]string)
	var errs []error
	for pair := range strings.SplitSeq(c.Peers, ",") {
		id, address, found := strings.Cut(strings.TrimSpace(pair), "=")
		switch {
		case !found || id == "":
			errs = append(errs, fmt.Errorf("--peers %q: want ID=HOST:PORT", pair))
			continue
		case peers[id] != "":
			errs = append(errs, fmt.Errorf("--peers: %s is named twice", id))
		}
		errs = append(errs, validAddress("peers", address))
		peers[id] = address
	}
	switch len(peers) {
	case 0, 1, 3, 5:
	default:
		errs = append(errs, fmt.Errorf("--peers names %d members: want 1, 3 or 5, an even number survives no more failures than one less", len(peers)))
	}
	if _, ok := peers[c.ID]; !ok && errors.Join(errs...) == nil {
		errs = append(errs, fmt.Errorf("--peers does not name this member %q", c.ID))
	}
	return peers, errors.Join(errs...)
}

func controlCommand() *cli.Command {
	var conf controlConfig
	return &cli.Command{
		Name:  "control",
		Usage: "run a member of the control plane",
		Description: "Run one or, to survive the loss of a machine, three. The members hold the placement of\n" +
			"groups on data nodes; messages never pass through them.\n\n" +
			"Example:\n   fastpaca control --id c1 --data-dir ./c1 --listen 127.0.0.1:7401",
		Flags: conf.flags(),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), conf.validate()); err != nil {
				return usageError{err}
			}
			return runRole(c.Context, conf.Role, c, conf.start)
		},
	}
}

func (c *controlConfig) start(log *slog.Logger, stdout io.Writer, p *parts) (<-chan error, error) {
	t, err := openTelemetry(roleControl, c.ID, log, p)
	if err != nil {
		return nil, err
	}
	in, err := openInternal(c.Credentials.mesh(mesh.RoleControl, c.ID, log), c.Listen)
	if err != nil {
		return nil, err
	}
	in.telemetry = t
	p.addCloser("internal listener", in)
	peers, err := c.peers()
	if err != nil {
		return nil, err
	}
	conf := member.Config{
		ID: c.ID, DataDir: controlDir(c.DataDir), Peers: peers,
		BootstrapExpect: c.BootstrapExpect, ReplicationFactor: c.ReplicationFactor,
		ReplaceAfter: c.ReplaceAfter, Logger: log,
	}
	if len(peers) > 1 {
		conf.Stream = in.controlStream(peers)
	}
	control, err := member.Open(conf)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", absolute(c.DataDir), err)
	}
	p.addCloser("control plane", control)
	if err := t.observeControl(control, p); err != nil {
		return nil, err
	}
	in.follow(control, p)
	in.keepLatency()
	in.serveGRPC(control, nil, p)
	in.serveAdmin(control, p)
	checks := []api.Check{{Name: "control", Ready: func(context.Context) error { return control.Ready() }}}
	if err := serveOps(c.Role.Ops, checks, t, log, p); err != nil {
		return nil, err
	}
	fmt.Fprintf(stdout, "fastpaca %s control member %s\n  Internal   %s\n  Data       %s\n", version(), c.ID, in.listener.Addr(), absolute(c.DataDir))
	return nil, nil
}

// controlDir and nodeDir are where the planes keep their data, so that one
// directory can serve both, and be split later.
func controlDir(dir string) string { return filepath.Join(dir, "control") }
func nodeDir(dir string) string    { return filepath.Join(dir, "data") }

func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
