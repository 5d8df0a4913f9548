package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/admin"
	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
)

// serveAdmin serves the API for operators on the internal listener.
func (in *internal) serveAdmin(control *member.Server, p *parts) {
	server := admin.NewHandler(control, admin.Options{Logger: in.log}).NewServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(in.listener.Accept(mesh.KindAdmin)) }()
	p.add("admin server", func(context.Context) error {
		err := server.Close()
		if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) && !errors.Is(serveErr, net.ErrClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	})
}

const clusterExitCodes = `Exit codes: 0 done, 1 failed, 2 wrong call, 3 no such node, group or move, 4 refused (nothing was
changed), 5 no control member reachable or no leader, 130 interrupted.`

// exitUnknown is of a node, group or move that is not there.
const exitUnknown = 3

// operator is one run of a verb of `fastpaca cluster`.
type operator struct {
	ctx    context.Context
	client *admin.Client
	conf   *clusterConfig
	out    io.Writer
	stderr io.Writer
	stdin  io.Reader
	args   []string // the positional ones
	yes    bool
}

// action makes the action of a verb that takes some positional arguments.
func (c *clusterConfig) action(names []string, yes *bool, do func(*operator) error) cli.ActionFunc {
	return func(ctx *cli.Context) error {
		args, help, err := interspersed(ctx)
		if help {
			return cli.ShowSubcommandHelp(ctx)
		}
		if err == nil && len(args) != len(names) {
			err = fmt.Errorf("cluster %s takes %d arguments %s, got %q", ctx.Command.Name, len(names), strings.Join(names, " "), args)
		}
		if err = errors.Join(err, c.validate()); err != nil {
			return usageError{err}
		}
		addresses, err := addressList("control", c.Control)
		if err != nil {
			return usageError{err}
		}
		in, err := openInternal(c.Credentials.mesh(mesh.RoleAdmin, "", slog.New(slog.DiscardHandler)), "")
		if err != nil {
			return err
		}
		o := &operator{ctx: ctx.Context, conf: c, out: ctx.App.Writer, stderr: ctx.App.ErrWriter, stdin: ctx.App.Reader, args: args}
		if o.stdin == nil {
			o.stdin = os.Stdin
		}
		o.yes = yes != nil && *yes
		o.client = admin.NewClient(addresses, func(ctx context.Context, address string) (net.Conn, error) {
			return in.dialer.Dial(ctx, mesh.KindAdmin, 0, address)
		})
		defer o.client.Close()
		return o.advise(do(o))
	}
}

// advise adds to an error its exit code.
func (o *operator) advise(err error) error {
	var refused *admin.Error
	var coded exitError
	switch {
	case err == nil, errors.As(err, &coded):
		return err
	case o.ctx.Err() != nil:
		return exitError{fmt.Errorf("interrupted; what was ordered goes on. `fastpaca cluster moves` shows it"), exitInterrupted}
	case errors.As(err, &refused):
		code := exitFailed
		switch refused.GetStatus() {
		case http.StatusNotFound:
			code = exitUnknown
		case http.StatusConflict, http.StatusForbidden:
			code = exitRefused
		case http.StatusServiceUnavailable:
			code = exitUnreachable
		case http.StatusUnprocessableEntity, http.StatusBadRequest:
			return usageError{errors.New(refused.Message)}
		}
		return exitError{errors.New(refused.Message), code}
	case errors.Is(err, mesh.ErrUnauthorized):
		return exitError{fmt.Errorf("%w\nGive the cluster's token with FASTPACA_TOKEN, and its TLS files if it uses TLS", err), exitFailed}
	case errors.Is(err, admin.ErrUnreachable):
		return exitError{fmt.Errorf("%w\nIs one of %s a control member of the cluster? Name others with --control or FASTPACA_CONTROL", err, o.conf.Control), exitUnreachable}
	}
	return err
}

// print shows an answer: as JSON, or as a table.
func (o *operator) print(value any, table func()) error {
	if o.conf.Output != outputJSON {
		table()
		return nil
	}
	e := json.NewEncoder(o.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

// confirm asks the person at the terminal. Without one, or a yes, it is a wrong
// call.
func (o *operator) confirm(question string) error {
	if o.yes {
		return nil
	}
	if file, ok := o.stdin.(*os.File); ok && !isTerminal(file) {
		return usageError{errors.New("this changes the cluster and there is no terminal to ask at: give --yes")}
	}
	fmt.Fprintf(o.stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(o.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer))) {
		return nil
	}
	return exitError{errors.New("not confirmed, nothing was done"), exitFailed}
}
