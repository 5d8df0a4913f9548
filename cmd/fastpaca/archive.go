package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/archiver"
	"github.com/fastpaca/fastpaca/dataplane/node"
)

// archiveURL is where the archive is, for every command that needs to know.
type archiveURL struct{ given string }

func (c *archiveURL) flag() cli.Flag {
	return &cli.StringFlag{Name: "archive-url", EnvVars: []string{"FASTPACA_ARCHIVE_URL"},
		Usage: "archive to the Postgres at `URL`, postgres://…; default: DATABASE_URL of the environment, else no archive", Destination: &c.given}
}

// value is "" when there is no archive.
func (c *archiveURL) value() string {
	if c.given != "" {
		return c.given
	}
	return os.Getenv("DATABASE_URL")
}

// archiveConfig is how a role archives.
type archiveConfig struct {
	URL      archiveURL
	Interval time.Duration
	Batch    int
	TailKeep uint64
	Migrate  bool
}

func (c *archiveConfig) flags() []cli.Flag {
	return []cli.Flag{
		c.URL.flag(),
		&cli.DurationFlag{Name: "archive-interval", EnvVars: []string{"FASTPACA_ARCHIVE_INTERVAL"}, Value: archiver.DefaultInterval,
			Usage: "how long messages gather before they are archived, as a `DURATION`; eight full batches do not wait", Destination: &c.Interval},
		&cli.IntFlag{Name: "archive-batch", EnvVars: []string{"FASTPACA_ARCHIVE_BATCH"}, Value: archiver.DefaultBatchRows,
			Usage: "archive at most `N` messages in one transaction", Destination: &c.Batch},
		&cli.Uint64Flag{Name: "tail-keep", EnvVars: []string{"FASTPACA_TAIL_KEEP"}, Value: archiver.DefaultTailKeep,
			Usage: "keep the newest `N` archived messages of each conversation in the hot log", Destination: &c.TailKeep},
		&cli.BoolFlag{Name: "archive-migrate", EnvVars: []string{"FASTPACA_ARCHIVE_MIGRATE"}, Value: true,
			Usage: "make and upgrade the archive's schema on start; --archive-migrate=false leaves it to fastpaca archive migrate", Destination: &c.Migrate},
	}
}

func (c *archiveConfig) validate() error {
	var errs []error
	if c.Interval < 10*time.Millisecond || c.Interval > time.Hour {
		errs = append(errs, fmt.Errorf("--archive-interval %s: want 10ms to 1h", c.Interval))
	}
	if c.Batch < 1 || c.Batch > 100_000 {
		errs = append(errs, fmt.Errorf("--archive-batch %d: want 1 to 100000", c.Batch))
	}
	if url := c.URL.value(); url != "" {
		if store, err := archive.Open(archive.Config{URL: url, Logger: slog.New(slog.DiscardHandler)}); err != nil {
			errs = append(errs, fmt.Errorf("--archive-url: %w", err))
		} else {
			store.Close()
		}
	}
	return errors.Join(errs...)
}

// open returns what a node archives with, nil without an archive.
func (c *archiveConfig) open(leases controlrpc.Leases, log *slog.Logger, p *parts) (*node.ArchiveConfig, error) {
	url := c.URL.value()
	if url == "" {
		return nil, nil
	}
	store, err := archive.Open(archive.Config{URL: url, Migrate: c.Migrate, Logger: log})
	if err != nil {
		return nil, err
	}
	p.add("archive", func(context.Context) error { store.Close(); return nil })
	return &node.ArchiveConfig{
		Store: store, Leases: leases, Interval: c.Interval, BatchRows: c.Batch, TailKeep: c.TailKeep,
	}, nil
}

// archiveStatusPath is where a data node's ops listener tells how far it has
// archived.
const archiveStatusPath = "/archive/status"

// noArchive is what a node without an archive answers there.
const noArchive = "no_archive"

// observeArchive adds what a node's archiver knows of itself to the metrics and
// to the ops listener.
func observeArchive(n *node.Node, registry prometheus.Registerer) (opsRoute, error) {
	a := n.Archiver()
	route := opsRoute{"GET " + archiveStatusPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if a == nil {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error":"` + noArchive + `","message":"This node was started without --archive-url."}`))
			return
		}
		_ = json.NewEncoder(w).Encode(a.Status()) // the client is gone; there is nobody to tell
	}}
	if a == nil {
		return route, nil
	}
	return route, errors.Join(registry.Register(a), registry.Register(seedBacklog{a}))
}
