package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// roleConfig is common to all long-running roles.
type roleConfig struct {
	Log             logConfig
	Ops             opsConfig
	ShutdownTimeout time.Duration
}

func (c *roleConfig) flags() []cli.Flag {
	flags := append(c.Ops.flags(), c.Log.flags()...)
	return append(flags, &cli.DurationFlag{Name: "shutdown-timeout", EnvVars: []string{"FASTPACA_SHUTDOWN_TIMEOUT"}, Value: 10 * time.Second,
		Usage: "how long what is being served may take to finish at shutdown, as a `DURATION`", Destination: &c.ShutdownTimeout})
}

func (c *roleConfig) validate() error {
	errs := []error{c.Ops.validate()}
	if c.ShutdownTimeout <= 0 {
		errs = append(errs, fmt.Errorf("--shutdown-timeout %s: want more than 0", c.ShutdownTimeout))
	}
	if _, err := c.Log.logger(io.Discard); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// A role starts its parts and returns a channel that reports why it cannot go
// on; nil when nothing but a signal ends it.
type role func(log *slog.Logger, stdout io.Writer, p *parts) (failed <-chan error, err error)

// stopGrace is what stopping may take beyond the time that requests get. A write
// that waits for a full disk can hold it up for ever; killing the process loses
// nothing that was acknowledged.
const stopGrace = 5 * time.Second

// runRole starts a role, waits for a signal or its failure, and stops it. A role
// that failed is not stopped in order: what it would wait for may never come.
func runRole(ctx context.Context, conf roleConfig, c *cli.Context, start role) error {
	tuneRuntime()
	log, err := conf.Log.logger(c.App.ErrWriter)
	if err != nil {
		return err
	}
	p := &parts{}
	failed, startErr := start(log, c.App.Writer, p)
	if startErr == nil {
		select {
		case <-ctx.Done():
			log.Info("shutting down")
		case err := <-failed:
			return err
		}
	}
	stopCtx, cancel := context.WithTimeout(context.Background(), conf.ShutdownTimeout)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- p.stop(stopCtx) }()
	select {
	case err := <-stopped:
		return errors.Join(startErr, err)
	case <-time.After(conf.ShutdownTimeout + stopGrace):
		return errors.Join(startErr, errors.New("not everything stopped in time; nothing acknowledged is lost"))
	}
}

// addressList splits a comma-separated list of HOST:PORT.
func addressList(flag, list string) ([]string, error) {
	var addresses []string
	var errs []error
	for a := range strings.SplitSeq(list, ",") {
		a = strings.TrimSpace(a)
		if err := validAddress(flag, a); err != nil {
			errs = append(errs, err)
		}
		addresses = append(addresses, a)
	}
	return addresses, errors.Join(errs...)
}

// required is a flag value that must not be empty.
func required(flag, value string) error {
	if value == "" {
		return fmt.Errorf("--%s is required", flag)
	}
	return nil
}
