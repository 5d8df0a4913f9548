// Command load appends to a cluster at a constant rate while somebody upgrades
// it, and says whether clients that try once more noticed anything.
//
//	go run ./infra/load -urls http://127.0.0.1:4000,http://127.0.0.1:4001 -rate 200
//	go run ./infra/load -urls http://127.0.0.1:4000 -first
//
// It runs until it gets SIGTERM or SIGINT, then counts what is in the
// conversations. It exits with 1 when an append failed twice, or when a message
// is missing or there twice. With -first it appends once, as soon as it is
// answered, and prints the time of the answer in milliseconds since 1970.
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
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "load: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	urls := flags.String("urls", "", "routers, as `URL,…`; a second try goes to the next of them")
	rate := flags.Int("rate", 200, "`N` appends a second, whether earlier ones were answered or not")
	conversations := flags.Int("conversations", 50, "spread over `N` conversations")
	prefix := flags.String("prefix", "load", "`NAME` that the conversations' ids begin with")
	first := flags.Bool("first", false, "append once, as soon as it is answered")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *urls == "" || *rate < 1 || *rate > 10_000 || *conversations < 1 || flags.NArg() > 0 {
		return errors.New("usage: load -urls URL,… [-rate N] [-conversations N] [-prefix NAME] [-first]")
	}
	c := newClient(strings.Split(*urls, ","), *prefix)
	defer c.close()
	if *first {
		answered, err := c.first(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, answered.UnixMilli())
		return err
	}
	l := load{client: c, rate: *rate, conversations: *conversations}
	result, err := l.run(ctx)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(result); err != nil {
		return err
	}
	return result.verdict()
}
