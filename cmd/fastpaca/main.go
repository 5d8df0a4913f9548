// Command fastpaca is the message backend for AI agents: every role of a
// cluster and the tools around it, one verb each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

// Exit codes. A script can tell a wrong call from a failed one.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitInterrupted is what a second signal exits with, at once.
	exitInterrupted = 130
)

func main() {
	ctx, stop := interruptible(context.Background())
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// interruptible returns a context that the first SIGINT or SIGTERM cancels. A
// second one exits the process at once.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		cancel()
		if _, ok := <-signals; ok {
			fmt.Fprintln(os.Stderr, "fastpaca: second signal, exiting at once")
			os.Exit(exitInterrupted)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}

// usageError is a call that cannot work however often it is repeated.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	err := app.RunContext(ctx, args)
	var usage usageError
	var coded exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		fmt.Fprintf(stderr, "fastpaca: %v\n", err)
		return coded.code
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "fastpaca: %v\nTry: %s --help\n", err, app.Name)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "fastpaca: %v\n", err)
		return exitFailed
	}
}

func newApp(stdout, stderr io.Writer) *cli.App {
	onUsage := func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
	app := &cli.App{
		Name:                 "fastpaca",
		Usage:                "message backend for AI agents: an append-only, ordered, replayable log per conversation",
		Version:              version(),
		HideVersion:          true,
		HideHelpCommand:      true,
		EnableBashCompletion: true,
		Writer:               stdout,
		ErrWriter:            stderr,
		ExitErrHandler:       func(*cli.Context, error) {}, // run decides
		OnUsageError:         onUsage,
		Commands: []*cli.Command{
			serveCommand(),
			controlCommand(),
			dataCommand(),
			routerCommand(),
			devClusterCommand(),
			archiveCommand(),
			clusterCommand(),
			healthCommand(),
			conversationCommand(),
			openapiCommand(),
			completionCommand(),
			versionCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError{fmt.Errorf("unknown command %q", c.Args().First())}
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, cmd := range app.Commands {
		cmd.OnUsageError = onUsage
	}
	return app
}

// noArguments refuses stray arguments, which are usually a misspelt flag.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", c.Command.Name, c.Args().Slice())}
	}
	return nil
}
