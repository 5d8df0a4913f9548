package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "fastpaca-bench: %v\n", err)
		os.Exit(1)
	}
}

// settings are what flags decide.
type settings struct {
	Binary        string        // the fastpaca to measure
	Dir           string        // where directories of servers are made
	Runs          int           // of each side of append, alternating
	Duration      time.Duration // of one measured run
	Warmup        time.Duration // before it, not measured
	Clients       int
	Conversations int
	TextBytes     int
	Messages      int // of memory and of the restarts of start

	ClusterClients string // numbers of clients of cluster
	Etcd           string // the etcd to compare with; built if empty
	ProfileDir     string // where profiles are left; none if empty

	Subscriptions int // open ones of subscriptions
	FanoutClients int
	Replayed      int // messages of replay
	Archived      int // messages of trim
}

// bench is one invocation.
type bench struct {
	settings
	log    io.Writer
	dir    string // removed at the end
	loaded string // a data directory with settings.Messages, once one was made
	report report
}

// benchmarks in the order in which they run: memory leaves the directory that
// start restarts on.
var benchmarks = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"append", (*bench).append},
	{"tail", (*bench).tail},
	{"idle", (*bench).idle},
	{"memory", (*bench).memory},
	{"start", (*bench).start},
	{"archive", (*bench).archive},
	{"trim", (*bench).trim},
	{"cluster", (*bench).clusterAppend},
	{"openloop", (*bench).openLoop},
	{"failover", (*bench).failover},
	{"moves", (*bench).moves},
	{"telemetry", (*bench).telemetry},
	{"clusteridle", (*bench).clusterIdle},
	{"routerstart", (*bench).routerStart},
	{"delivery", (*bench).delivery},
	{"subscriptions", (*bench).subscriptions},
	{"fanout", (*bench).fanout},
	{"replay", (*bench).replay},
}

func benchmarkNames() []string {
	names := make([]string, len(benchmarks))
	for i, b := range benchmarks {
		names[i] = b.name
	}
	return names
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var (
		s      settings
		flags  = flag.NewFlagSet("fastpaca-bench", flag.ContinueOnError)
		names  = flags.String("run", strings.Join(benchmarkNames(), ","), "benchmarks to run")
		asJSON = flags.Bool("json", false, "print the results as JSON")
		check  = flags.Bool("check", false, "fail when a target is missed")
	)
	flags.SetOutput(stderr)
	flags.StringVar(&s.Binary, "fastpaca", "bin/fastpaca", "the built `program` to measure")
	flags.StringVar(&s.Dir, "dir", os.TempDir(), "`directory` for the data of all servers: the disk that is measured")
	flags.IntVar(&s.Runs, "runs", 3, "runs of each side, alternating; the median counts")
	flags.DurationVar(&s.Duration, "duration", 10*time.Second, "length of a measured run")
	flags.DurationVar(&s.Warmup, "warmup", 2*time.Second, "load before a measured run")
	flags.IntVar(&s.Clients, "clients", 64, "closed-loop clients")
	flags.IntVar(&s.Conversations, "conversations", 1000, "conversations that append spreads over")
	flags.IntVar(&s.TextBytes, "bytes", 300, "length of a message's text")
	flags.IntVar(&s.Messages, "messages", 1_000_000, "messages that memory and start load")
	flags.StringVar(&s.ClusterClients, "cluster-clients", "64,256,1024", "closed-loop clients of cluster, one number after the other")
	flags.StringVar(&s.Etcd, "etcd", "", "the built etcd `program` to compare with; default: one built from the pinned source")
	flags.StringVar(&s.ProfileDir, "profile", "", "`directory` for profiles of the servers in cluster, delivery, subscriptions, fanout and replay")
	flags.IntVar(&s.Subscriptions, "subscriptions", 5000, "open subscriptions of subscriptions, two open files each")
	flags.IntVar(&s.FanoutClients, "fanout-clients", 1000, "clients that follow the conversation of fanout")
	flags.IntVar(&s.Replayed, "replay-messages", 100_000, "length of the conversation that replay reads")
	flags.IntVar(&s.Archived, "archive-messages", 200_000, "messages that trim archives")
	if err := flags.Parse(args); err != nil {
		return err
	}
	selected, err := selection(*names)
	if err != nil {
		return err
	}
	if s.Binary, err = filepath.Abs(s.Binary); err != nil {
		return err
	}
	if _, err := os.Stat(s.Binary); err != nil {
		return fmt.Errorf("no program to measure (make build): %w", err)
	}
	b := &bench{settings: s, log: stderr}
	if err := b.runAll(ctx, selected); err != nil {
		return err
	}
	if *asJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(b.report); err != nil {
			return err
		}
	} else if err := b.report.print(stdout); err != nil {
		return err
	}
	if *check && b.report.missed() {
		return errors.New("a target was missed")
	}
	return nil
}

// selection parses the list of benchmarks.
func selection(list string) ([]string, error) {
	var selected []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); !slices.Contains(benchmarkNames(), name) {
			return nil, fmt.Errorf("there is no benchmark %q; there are %s", name, strings.Join(benchmarkNames(), ", "))
		}
		selected = append(selected, name)
	}
	return selected, nil
}

// runAll runs the selected benchmarks in a directory that is removed after.
func (b *bench) runAll(ctx context.Context, selected []string) (err error) {
	if b.dir, err = os.MkdirTemp(b.settings.Dir, "fastpaca-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	// PostgreSQL refuses to run as root, so as root it runs as somebody else,
	// who must be able to reach its directory.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	b.report.Machine = machine()
	for _, candidate := range benchmarks {
		if !slices.Contains(selected, candidate.name) {
			continue
		}
		if err := candidate.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", candidate.name, err)
		}
	}
	return nil
}

// progress tells whoever waits what is going on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.log, "-- "+format+"\n", args...)
}
