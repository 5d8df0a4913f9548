package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
)

// serveConfig is everything `fastpaca serve` can be told.
type serveConfig struct {
	Listen          string
	DataDir         string
	NodeID          string
	ShutdownTimeout time.Duration
	Log             logConfig
}

func (c *serveConfig) flags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "listen", EnvVars: []string{"FASTPACA_LISTEN"}, Value: "127.0.0.1:4000",
			Usage: "serve the public API on `HOST:PORT`", Destination: &c.Listen},
		&cli.StringFlag{Name: "data-dir", EnvVars: []string{"FASTPACA_DATA_DIR"}, Value: "./fastpaca-data",
			Usage: "keep everything under `DIR`, made when missing", Destination: &c.DataDir},
		&cli.StringFlag{Name: "id", EnvVars: []string{"FASTPACA_ID"}, Value: "n1",
			Usage: "`NAME` of this node, fixed for the life of the data directory", Destination: &c.NodeID},
		&cli.DurationFlag{Name: "shutdown-timeout", EnvVars: []string{"FASTPACA_SHUTDOWN_TIMEOUT"}, Value: 10 * time.Second,
			Usage: "how long requests being served may take to finish at shutdown, as a `DURATION`", Destination: &c.ShutdownTimeout},
	}, c.Log.flags()...)
}

// validate reports every problem at once.
func (c *serveConfig) validate() error {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen %q: want HOST:PORT", c.Listen))
	}
	if c.DataDir == "" {
		errs = append(errs, errors.New("--data-dir is empty"))
	}
	if c.NodeID == "" {
		errs = append(errs, errors.New("--id is empty"))
	}
	if c.ShutdownTimeout <= 0 {
		errs = append(errs, fmt.Errorf("--shutdown-timeout %s: want more than 0", c.ShutdownTimeout))
	}
	if _, err := c.Log.logger(io.Discard); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *serveConfig) controlDir() string { return filepath.Join(c.DataDir, "control") }
func (c *serveConfig) nodeDir() string    { return filepath.Join(c.DataDir, "data") }

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
			if err := noArguments(c); err != nil {
				return err
			}
			if err := conf.validate(); err != nil {
				return usageError{err}
			}
			return serve(c.Context, conf, c.App.Writer, c.App.ErrWriter)
		},
	}
}

// banner tells a person at a terminal what runs where and what to do next.
func banner(w io.Writer, conf serveConfig, listen net.Addr) {
	dir, err := filepath.Abs(conf.DataDir)
	if err != nil {
		dir = conf.DataDir
	}
	base := "http://" + dialable(listen)
	fmt.Fprintf(w, `fastpaca %s
  API        %s/v1
  Docs       %s/docs
  Health     %s/health/ready
  Data       %s

Try:
  curl -X PUT %s/v1/conversations/hello -H 'Content-Type: application/json' -d '{"metadata":{"from":"curl"}}'

Ctrl-C stops.
`, version(), base, base, base, dir, base)
}

// dialable turns a wildcard listen address into one that can be called.
func dialable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("localhost", fmt.Sprint(tcp.Port))
}

// serve runs until ctx ends or storage fails.
func serve(ctx context.Context, conf serveConfig, stdout, stderr io.Writer) error {
	tuneRuntime()
	log, err := conf.Log.logger(stderr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", conf.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (is another server running there? --listen chooses another address)", conf.Listen, err)
	}
	s, err := startStack(conf, log)
	if err != nil {
		_ = listener.Close()
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(listener) }()
	banner(stdout, conf, listener.Addr())

	var failure error
	select {
	case <-ctx.Done():
		log.Info("shutting down")
	case <-s.node.Failed():
		failure = fmt.Errorf("storage failed, restart the process once the disk is well: %w", s.node.Err())
	case failure = <-served:
	}
	stopCtx, cancel := context.WithTimeout(context.Background(), conf.ShutdownTimeout)
	defer cancel()
	return errors.Join(failure, s.stop(stopCtx))
}
