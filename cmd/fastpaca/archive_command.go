package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/archiver"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// archiveAnswerTimeout bounds one question to a node or to Postgres.
const archiveAnswerTimeout = 15 * time.Second

func archiveCommand() *cli.Command {
	onUsage := func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
	cmd := &cli.Command{
		Name:  "archive",
		Usage: "make, watch and check the archive in Postgres",
		Subcommands: []*cli.Command{
			archiveMigrateCommand(), archiveStatusCommand(), archiveVerifyCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError{fmt.Errorf("unknown command %q", "archive "+c.Args().First())}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
	for _, sub := range cmd.Subcommands {
		sub.OnUsageError = onUsage
	}
	return cmd
}

// openStore returns the archive that a command was told of.
func openStore(url archiveURL, errOut io.Writer) (*archive.Store, error) {
	if url.value() == "" {
		return nil, usageError{errors.New("--archive-url is required")}
	}
	store, err := archive.Open(archive.Config{
		URL: url.value(), Logger: slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return nil, usageError{fmt.Errorf("--archive-url: %w", err)}
	}
	return store, nil
}

func archiveMigrateCommand() *cli.Command {
	var url archiveURL
	return &cli.Command{
		Name:  "migrate",
		Usage: "make the archive's schema, or bring it to this version",
		Description: "Needs a role that may create tables; the nodes themselves then need none. Running it again,\n" +
			"or on several machines at once, does nothing more.\n\n" +
			"Example:\n   fastpaca archive migrate --archive-url postgres://owner@db/history",
		Flags: []cli.Flag{url.flag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return usageError{err}
			}
			store, err := openStore(url, c.App.ErrWriter)
			if err != nil {
				return err
			}
			defer store.Close()
			applied, err := store.Migrate(c.Context)
			if err != nil {
				return err
			}
			for _, name := range applied {
				fmt.Fprintf(c.App.Writer, "applied %s\n", name)
			}
			fmt.Fprintf(c.App.Writer, "%s has version %d of the schema\n", store.Target(), archive.SchemaVersion())
			return nil
		},
	}
}

func archiveStatusCommand() *cli.Command {
	var url archiveURL
	var ops string
	var all bool
	return &cli.Command{
		Name:  "status",
		Usage: "show what is archived, who archives what, and what holds it up",
		Description: "Asks the ops listeners of data nodes, the archive itself, or both. Exits 1 when one of them\n" +
			"reports a problem.\n\n" +
			"Example:\n   fastpaca archive status --ops 127.0.0.1:9101,127.0.0.1:9102 --archive-url postgres://db/history",
		Flags: []cli.Flag{
			url.flag(),
			&cli.StringFlag{Name: "ops", EnvVars: []string{"FASTPACA_OPS"},
				Usage: "ops listeners of data nodes (their --ops-listen), as `HOST:PORT,…`", Destination: &ops},
			&cli.BoolFlag{Name: "all", Usage: "show the groups that have nothing pending as well", Destination: &all},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return usageError{err}
			}
			if ops == "" && url.value() == "" {
				return usageError{errors.New("--ops or --archive-url is required")}
			}
			var nodes []string
			if ops != "" {
				var err error
				if nodes, err = addressList("ops", ops); err != nil {
					return usageError{err}
				}
			}
			return showArchive(c.Context, c.App.Writer, c.App.ErrWriter, url, nodes, all)
		},
	}
}

func showArchive(ctx context.Context, out, errOut io.Writer, url archiveURL, nodes []string, all bool) error {
	var errs []error
	if url.value() != "" {
		store, err := openStore(url, errOut)
		if err != nil {
			return err
		}
		defer store.Close()
		errs = append(errs, showStore(ctx, out, store))
	}
	var held [rpc.Groups]bool
	answered := 0
	for _, address := range nodes {
		s, err := fetchArchiveStatus(ctx, address)
		if err == nil {
			answered++
			for _, g := range s.Groups {
				held[g.Group] = true
			}
			err = showNode(out, address, s, all)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", address, err))
		}
	}
	if answered > 0 {
		without := 0
		for _, is := range held {
			if !is {
				without++
			}
		}
		fmt.Fprintf(out, "%d of %d groups are archived by the nodes that answered\n", len(held)-without, len(held))
	}
	return errors.Join(errs...)
}

func showStore(ctx context.Context, out io.Writer, store *archive.Store) error {
	found, err := store.Schema(ctx)
	if err != nil {
		return err
	}
	cluster := found.Cluster
	if cluster == "" {
		cluster = "none yet"
	}
	fmt.Fprintf(out, "archive %s\n  schema         %s, version %d (this program: %d)\n  cluster        %s\n",
		store.Target(), found.Name, found.Version, archive.SchemaVersion(), cluster)
	if err := found.Usable(); err != nil {
		return err
	}
	totals, err := store.Totals(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  conversations  %d\n  messages       about %d\n  on disk        %d MiB\n",
		totals.Conversations, totals.Messages, totals.Bytes>>20)
	return nil
}

var errArchiveProblem = errors.New("the archive has problems")

// showNode shows the groups that have something to tell, or all.
func showNode(out io.Writer, address string, s *archiver.Status, all bool) error {
	fmt.Fprintf(out, "node %s, archiving to %s\n  leases     %d groups\n  pending    %d messages\n  archived   %d messages since it started\n",
		address, s.Archive, len(s.Groups), s.Pending(), s.Totals.Messages)
	if !s.Ready {
		fmt.Fprintln(out, "  not ready yet")
	}
	if s.Error != "" {
		fmt.Fprintf(out, "  archive    %s\n", s.Error)
	}
	if s.Leases != "" {
		fmt.Fprintf(out, "  leases     %s\n", s.Leases)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	quiet, header := 0, true
	for _, g := range s.Groups {
		if g.Complete && g.Leading && g.Conversations == 0 && g.Error == "" && !all {
			quiet++
			continue
		}
		if header {
			fmt.Fprintln(table, "  GROUP\tEPOCH\tLEADS\tCONVERSATIONS\tPENDING\tBEHIND\tLAST ACK\tERROR")
			header = false
		}
		pending := fmt.Sprint(g.Pending)
		if !g.Complete {
			pending += "+"
		}
		fmt.Fprintf(table, "  %d\t%d\t%t\t%d\t%s\t%s\t%s\t%s\n", g.Group, g.Epoch, g.Leading, g.Conversations, pending, ago(g.Behind), ago(g.LastAck), g.Error)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if quiet > 0 {
		fmt.Fprintf(out, "  %d groups have nothing pending\n", quiet)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(out, "  problem: group %d: %s\n", p.Group, p.Error)
	}
	if len(s.Problems) > 0 || s.Error != "" || s.Leases != "" {
		return errArchiveProblem
	}
	return nil
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return time.Since(t).Round(100 * time.Millisecond).String()
}

// maxStatusBytes bounds what a node may answer.
const maxStatusBytes = 4 << 20

func fetchArchiveStatus(ctx context.Context, address string) (*archiver.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, archiveAnswerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+archiveStatusPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("not reached, --ops takes the --ops-listen addresses of data nodes: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatusBytes))
	if err != nil {
		return nil, err
	}
	var refusal struct{ Error, Message string }
	if resp.StatusCode != http.StatusOK && json.Unmarshal(body, &refusal) == nil && refusal.Error == noArchive {
		return nil, errors.New(refusal.Message)
	}
	var s archiver.Status
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &s) != nil {
		return nil, fmt.Errorf("answered %s without an archive status, --ops takes the --ops-listen addresses of data nodes", resp.Status)
	}
	return &s, nil
}

func archiveVerifyCommand() *cli.Command {
	var url archiveURL
	var server string
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare what a server answers with what Postgres holds",
		ArgsUsage: "[ID…]",
		Description: "Reads the whole history of the conversations (all of them without an ID) through the API and\n" +
			"compares each message with Postgres, and the hash chain with the conversation's head. Exits 1 and\n" +
			"names the sequences when anything differs.\n\n" +
			"Example:\n   fastpaca archive verify --server http://127.0.0.1:4000 --archive-url postgres://db/history chat-1",
		Flags: []cli.Flag{
			url.flag(),
			&cli.StringFlag{Name: "server", EnvVars: []string{"FASTPACA_SERVER"}, Value: "http://127.0.0.1:4000",
				Usage: "public API to compare with, a `URL`", Destination: &server},
		},
		Action: func(c *cli.Context) error {
			store, err := openStore(url, c.App.ErrWriter)
			if err != nil {
				return err
			}
			defer store.Close()
			v := &archiveVerifier{store: store, server: strings.TrimRight(server, "/"), out: c.App.Writer}
			return v.run(c.Context, c.Args().Slice())
		},
	}
}
