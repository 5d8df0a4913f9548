package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/sdk/go"
)

// Exit codes of `fastpaca conversation` beside those of every command, so that a
// script can tell what to do next.
const (
	exitNoConversation = 3 // there is no such conversation
	exitRefused        = 4 // its state forbids it: a version that does not match, a tombstone
	exitUnreachable    = 5 // no answer, or only that the server cannot now; try again
)

// exitError is a failure with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

const conversationExamples = `Exit codes: 0 done, 1 failed, 2 wrong call, 3 no such conversation, 4 refused (version
conflict, tombstone), 5 server unreachable or unavailable, 130 interrupted.

Example:
   fastpaca conversation create chat-123 --metadata '{"user_id":"u_123"}'
   fastpaca conversation append chat-123 'Hello!'
   fastpaca conversation follow chat-123`

func conversationCommand() *cli.Command {
	cmd := &cli.Command{
		Name:        "conversation",
		Aliases:     []string{"conv"},
		Usage:       "write, read and follow conversations of a running server",
		Description: conversationExamples, HideHelpCommand: true,
		Subcommands: []*cli.Command{
			conversationCreateCommand(),
			conversationGetCommand(),
			conversationAppendCommand(),
			conversationTailCommand(),
			conversationReplayCommand(),
			conversationFollowCommand(),
			conversationTombstoneCommand(),
			conversationListCommand(),
			conversationExportCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError{fmt.Errorf("unknown command conversation %q", c.Args().First())}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
	for _, sub := range cmd.Subcommands {
		sub.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
		sub.HideHelpCommand = true
	}
	return cmd
}

// conversationConfig is what every verb of `fastpaca conversation` can be told.
type conversationConfig struct {
	Server string
	Output string
}

func (c *conversationConfig) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "server", EnvVars: []string{"FASTPACA_SERVER"}, Value: "http://127.0.0.1:4000",
			Usage: "`URL` of the server", Destination: &c.Server},
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, EnvVars: []string{"FASTPACA_OUTPUT"}, Value: outputTable,
			Usage: "`FORMAT` of what is printed: table for people, json for programs (one object per line)", Destination: &c.Output},
	}
}

// session is one run of a verb.
type session struct {
	ctx     context.Context
	client  *fastpaca.Client
	printer printer
	stdin   io.Reader
	stderr  io.Writer
	args    []string // the positional ones
}

// conversation is the one that the first argument names.
func (s *session) conversation() *fastpaca.Conversation { return s.client.Conversation(s.args[0]) }

// arity is how many positional arguments a verb takes.
type arity struct {
	least, most int
	names       string
}

var (
	oneID   = arity{1, 1, "ID"}
	maybeID = arity{0, 1, "[PREFIX]"}
)

// conversationRetry gives up on a server that is not there in about a second: a
// person waits.
var conversationRetry = fastpaca.Retry{Attempts: 4, MinWait: 150 * time.Millisecond, MaxWait: 5 * time.Second}

// action makes the action of a verb: arguments in, advice out.
func (c *conversationConfig) action(takes arity, do func(*session) error) cli.ActionFunc {
	return func(ctx *cli.Context) error {
		args, help, err := interspersed(ctx)
		if help {
			return cli.ShowSubcommandHelp(ctx)
		}
		if err == nil && (len(args) < takes.least || len(args) > takes.most) {
			err = fmt.Errorf("conversation %s takes %s, got %q", ctx.Command.Name, takes.names, args)
		}
		if c.Output != outputTable && c.Output != outputJSON {
			err = errors.Join(err, fmt.Errorf("--output %q: want table or json", c.Output))
		}
		client, urlErr := fastpaca.New(c.Server, fastpaca.WithRetry(conversationRetry), fastpaca.WithHeader("User-Agent", "fastpaca-cli/"+version()))
		var odd *fastpaca.Error
		if errors.As(urlErr, &odd) {
			err = errors.Join(err, errors.New("--server: "+odd.Message))
		}
		if err != nil {
			return usageError{err}
		}
		stdin := ctx.App.Reader
		if stdin == nil {
			stdin = os.Stdin
		}
		s := &session{
			ctx: ctx.Context, client: client, stdin: stdin, stderr: ctx.App.ErrWriter, args: args,
			printer: newPrinter(ctx.App.Writer, c.Output == outputJSON),
		}
		return c.advise(args, do(s))
	}
}

// advise adds to an error what to do about it, and its exit code.
func (c *conversationConfig) advise(args []string, err error) error {
	var failed *fastpaca.Error
	if err == nil || !errors.As(err, &failed) {
		return err
	}
	told := failed.Message
	if failed.Op != "" {
		told = failed.Op + ": " + told
	}
	if failed.Status >= 500 && failed.RequestID != "" {
		told += " (request " + failed.RequestID + ")"
	}
	switch failed.Code {
	case fastpaca.CodeCanceled:
		return exitError{errors.New("interrupted"), exitInterrupted}
	case fastpaca.CodeInvalid:
		return usageError{errors.New(told)}
	case fastpaca.CodeNotFound:
		id := strings.Join(args[:min(len(args), 1)], "")
		return exitError{fmt.Errorf("there is no conversation %q at %s; create it with\n  fastpaca conversation create %s", id, c.Server, shellWord(id)), exitNoConversation}
	case fastpaca.CodeConflict:
		return exitError{fmt.Errorf("%s\nSomebody else has appended. Read what is new, then use --if-version %d", told, failed.CurrentVersion), exitRefused}
	case fastpaca.CodeTombstoned, fastpaca.CodeIdempotencyConflict:
		return exitError{errors.New(told), exitRefused}
	case fastpaca.CodeNetwork, fastpaca.CodeTimeout:
		return exitError{fmt.Errorf("%s\nIs a server running at %s? Start one with `fastpaca serve`, or name another with --server or FASTPACA_SERVER", told, c.Server), exitUnreachable}
	case fastpaca.CodeCursorExpired:
		return fmt.Errorf("%s\nThe oldest that can be read: --from %d", told, failed.EarliestSeq)
	}
	if failed.Retryable {
		return exitError{fmt.Errorf("%s\nIt may pass: try again", told), exitUnreachable}
	}
	return errors.New(told)
}

// shellWord quotes an argument where a shell would change it.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r)
	}
	if s != "" && !strings.HasPrefix(s, "-") && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// interspersed returns the positional arguments, and sets the flags that come
// after the first of them, where the parser of flags has stopped. What follows
// -- is positional.
func interspersed(c *cli.Context) (args []string, help bool, err error) {
	rest := c.Args().Slice()
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			return append(args, rest...), false, nil
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			args = append(args, arg)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if name == "help" || name == "h" {
			return nil, true, nil
		}
		found := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if found < 0 {
			return nil, false, fmt.Errorf("flag provided but not defined: %s (text that begins with a dash goes after --)", arg)
		}
		_, boolean := c.Command.Flags[found].(*cli.BoolFlag)
		switch {
		case given:
		case boolean:
			value = "true"
		case len(rest) == 0:
			return nil, false, fmt.Errorf("flag needs an argument: %s", arg)
		default:
			value, rest = rest[0], rest[1:]
		}
		if err := c.Set(name, value); err != nil {
			return nil, false, fmt.Errorf("invalid value %q for flag %s: %w", value, arg, err)
		}
	}
	return args, false, nil
}
