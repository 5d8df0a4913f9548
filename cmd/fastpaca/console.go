package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/fastpaca/fastpaca/controlplane/admin"
	"github.com/fastpaca/fastpaca/controlplane/latency"
	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
	"github.com/fastpaca/fastpaca/router/console"
)

// consoleConfig is what roles with a public side can be told about the console.
type consoleConfig struct {
	Enabled bool
}

func (c *consoleConfig) flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "console", EnvVars: []string{"FASTPACA_CONSOLE"}, Value: true,
			Usage: "serve the web console at /console, beside the public API", Destination: &c.Enabled},
	}
}

// consoleSource is where a console gets its cluster from.
type consoleSource struct {
	cluster  console.Cluster
	latency  console.Latency  // nil: this process knows it all
	operator console.Operator // nil: it can only look
}

// open starts a console, or returns nil when there is to be none. The public API
// serves it.
func (c *consoleConfig) open(source consoleSource, t *telemetry, log *slog.Logger, p *parts) (http.Handler, error) {
	if !c.Enabled {
		return nil, nil
	}
	page, err := console.New(console.Config{
		Cluster: source.cluster, Latency: source.latency, Operator: source.operator, Metrics: prometheus.Gatherers{t.sdk}, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	p.addCloser("console", page)
	return page, nil
}

// remoteConsole is the source of a router: the members of the control plane, over
// the internal network. It looks as a router, which may do no more, and passes
// orders on as the operator who gave it the token.
func remoteConsole(in *internal, conf *credentialConfig, addresses []string, p *parts) consoleSource {
	client := admin.NewClient(addresses, func(ctx context.Context, address string) (net.Conn, error) {
		return in.dialer.Dial(ctx, mesh.KindAdmin, 0, address)
	})
	p.add("console client", func(context.Context) error { client.Close(); return nil })
	members := &remoteLatency{in: in, addresses: addresses}
	p.add("console connections", members.close)
	source := consoleSource{cluster: remoteCluster{client}, latency: members}
	// Without a token everybody who comes would be an operator.
	if conf.Token != "" {
		source.operator = &remoteOperator{credentials: *conf, addresses: addresses}
	}
	return source
}

type remoteCluster struct{ client *admin.Client }

// Look implements console.Cluster.
func (c remoteCluster) Look(ctx context.Context, path string, out any) error {
	return c.client.Do(ctx, http.MethodGet, path, nil, out)
}

// remoteLatency asks all members, for each knows only what it was told. One
// goroutine uses it, and closes it after the console.
type remoteLatency struct {
	in        *internal
	addresses []string
	conns     []*grpc.ClientConn // of addresses; made when they are needed
}

func (l *remoteLatency) connect() error {
	for _, address := range l.addresses[len(l.conns):] {
		conn, err := mesh.NewGRPCClient(l.in.dialer, "", address)
		if err != nil {
			return err
		}
		l.conns = append(l.conns, conn)
	}
	return nil
}

// Recent implements console.Latency.
func (l *remoteLatency) Recent(ctx context.Context) (*console.Recent, error) {
	if err := l.connect(); err != nil {
		return nil, err
	}
	answers := make([]*latency.Recent, len(l.conns))
	var asked errgroup.Group
	for i, conn := range l.conns {
		asked.Go(func() (err error) {
			answers[i], err = latency.NewClient(conn).Recent(ctx)
			return err
		})
	}
	err := asked.Wait()
	var best *latency.Recent
	for _, answer := range answers {
		if answer != nil && (best == nil || answer.Processes > best.Processes) {
			best = answer
		}
	}
	if best == nil {
		return nil, err
	}
	return recentOf(best), nil
}

func (l *remoteLatency) close(context.Context) error {
	var errs []error
	for _, conn := range l.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// recentOf returns nil when no process has reported.
func recentOf(r *latency.Recent) *console.Recent {
	if r.Processes == 0 {
		return nil
	}
	out := &console.Recent{Seconds: r.Window.Seconds(), Processes: r.Processes, LeftOut: r.LeftOut, Stages: []console.Stage{}}
	for i := range r.Stages {
		s := &r.Stages[i]
		out.Stages = append(out.Stages, console.Stage{
			Name: s.Name, Count: s.Count(), Mean: s.Mean().Seconds(),
			P50: s.Quantile(0.5, r.Bounds).Seconds(), P99: s.Quantile(0.99, r.Bounds).Seconds(),
		})
	}
	return out
}

type remoteOperator struct {
	credentials credentialConfig
	addresses   []string
}

// Order implements console.Operator: the control plane decides whether the token
// is right, in the handshake of a connection that is made with it.
func (o *remoteOperator) Order(ctx context.Context, token, method, path string, body []byte) ([]byte, error) {
	if subtle.ConstantTimeCompare([]byte(token), []byte(o.credentials.Token)) != 1 {
		return nil, console.ErrToken // guesses do not reach the control plane
	}
	credentials := o.credentials
	credentials.Token = token
	dialer, err := mesh.NewDialer(credentials.mesh(mesh.RoleAdmin, "", slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	client := admin.NewClient(o.addresses, func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.Dial(ctx, mesh.KindAdmin, 0, address)
	})
	defer client.Close()
	var in any
	if body != nil {
		in = json.RawMessage(body)
	}
	var answer json.RawMessage
	err = client.Do(ctx, method, path, in, &answer)
	refused, isRefused := errors.AsType[*admin.Error](err)
	switch {
	case err == nil:
		return answer, nil
	case isRefused:
		return nil, &console.Refusal{Status: refused.GetStatus(), Code: refused.Code, Message: refused.Message}
	case errors.Is(err, mesh.ErrUnauthorized):
		return nil, console.ErrToken
	case errors.Is(err, mesh.ErrForbidden):
		return nil, console.ErrForbidden
	}
	return nil, err
}

// localConsole is the source of a server, which has the control plane in its own
// process. board is what others report to, or nil.
func localConsole(control *member.Server, board *latency.Board, token string, log *slog.Logger) consoleSource {
	// The Admin API wants a token of everybody who does not come over the internal
	// network. Who only looks through the console has one that nobody else knows.
	own := rand.Text()
	source := consoleSource{cluster: &localCluster{
		handler: admin.NewHandler(control, admin.Options{Token: mesh.Token(own), Logger: log}), token: own,
	}}
	if board != nil {
		source.latency = localLatency{board}
	}
	if token != "" {
		source.operator = &localOperator{handler: admin.NewHandler(control, admin.Options{Token: mesh.Token(token), Logger: log})}
	}
	return source
}

type localCluster struct {
	handler http.Handler
	token   string
}

// Look implements console.Cluster.
func (c *localCluster) Look(ctx context.Context, path string, out any) error {
	answer, err := callAdmin(ctx, c.handler, c.token, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

type localLatency struct{ board *latency.Board }

// Recent implements console.Latency.
func (l localLatency) Recent(context.Context) (*console.Recent, error) {
	recent := l.board.Recent()
	return recentOf(&recent), nil
}

type localOperator struct{ handler http.Handler }

// Order implements console.Operator.
func (o *localOperator) Order(ctx context.Context, token, method, path string, body []byte) ([]byte, error) {
	answer, err := callAdmin(ctx, o.handler, token, method, path, body)
	if refused, ok := errors.AsType[*console.Refusal](err); ok && refused.Status == http.StatusUnauthorized {
		return nil, console.ErrToken
	}
	return answer, err
}

// callAdmin makes a request of the Admin API of this process.
func callAdmin(ctx context.Context, handler http.Handler, token, method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+admin.Base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	w := &memoryWriter{header: make(http.Header), status: http.StatusOK}
	handler.ServeHTTP(w, request)
	if w.status/100 == 2 {
		return w.body.Bytes(), nil
	}
	refused := &admin.Error{}
	if err := json.Unmarshal(w.body.Bytes(), refused); err != nil {
		return nil, fmt.Errorf("%s %s: status %d: %w", method, path, w.status, err)
	}
	return nil, &console.Refusal{Status: w.status, Code: refused.Code, Message: refused.Message}
}

// memoryWriter keeps an answer.
type memoryWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *memoryWriter) Header() http.Header         { return w.header }
func (w *memoryWriter) WriteHeader(status int)      { w.status = status }
func (w *memoryWriter) Write(b []byte) (int, error) { return w.body.Write(b) }
