package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fastpaca/fastpaca/controlplane/member"
	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/node"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/api"
	"github.com/fastpaca/fastpaca/router/forward"
	"github.com/fastpaca/fastpaca/router/table"
)

// stack is what one process of `fastpaca serve` runs, in the order in which it
// is started; it is stopped in reverse.
type stack struct {
	control   *member.Server
	node      *node.Node
	table     *table.Table
	forwarder *forward.Forwarder
	server    *api.Server
}

// noAddress is what a node without an internal listener registers with.
const noAddress = "localhost:0"

// startStack starts every part. Each reaches the next through the interface
// that is a network hop in a cluster.
func startStack(conf serveConfig, log *slog.Logger) (*stack, error) {
	s := &stack{}
	err := s.start(conf, log)
	if err != nil {
		return nil, errors.Join(err, s.stop(context.Background()))
	}
	return s, nil
}

func (s *stack) start(conf serveConfig, log *slog.Logger) (err error) {
	if s.control, err = member.Open(member.Config{ID: conf.NodeID, DataDir: conf.controlDir(), Logger: log}); err != nil {
		return err
	}
	data := node.DefaultConfig()
	data.Advertise = noAddress
	data.ID, data.Dir, data.Version, data.Control, data.Logger = conf.NodeID, conf.nodeDir(), version(), s.control, log
	if s.node, err = node.Open(data); err != nil {
		return err
	}
	if s.table, err = table.Open(table.Config{Control: s.control, Log: log}); err != nil {
		return err
	}
	s.forwarder, err = forward.New(forward.Config{Table: s.table, Connect: s.connect(conf.NodeID)})
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	surface, err := api.New(api.DefaultConfig(), s.forwarder, api.Deps{
		Log:            log,
		Checks:         s.checks(),
		Registerer:     registry,
		MetricsHandler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	})
	if err != nil {
		return err
	}
	s.server = api.NewServer(surface)
	return nil
}

// connect returns the one node there is, under the interface through which a
// router reaches any.
func (s *stack) connect(self string) func(controlrpc.NodeID, string) (rpc.Node, error) {
	return func(id controlrpc.NodeID, _ string) (rpc.Node, error) {
		if string(id) != self {
			return nil, fmt.Errorf("node %s: %w", id, rpc.ErrUnavailable)
		}
		return inProcess{s.node}, nil
	}
}

// inProcess hides Close: the forwarder closes connections, not nodes.
type inProcess struct{ rpc.Node }

func (s *stack) checks() []api.Check {
	return []api.Check{
		{Name: "control", Ready: func(context.Context) error { return s.control.Ready() }},
		{Name: "placement", Ready: s.table.Check},
		{Name: "storage", Ready: func(context.Context) error { return s.node.Status().Storage }},
		{Name: "groups", Ready: func(context.Context) error { return groupsReady(s.node.Status()) }},
	}
}

// maxNamed bounds the groups that a readiness answer lists.
const maxNamed = 8

// groupsReady says which groups cannot be written.
func groupsReady(st node.Status) error {
	switch {
	case st.Open == 0:
		return errors.New("no group is placed here yet")
	case len(st.Failed) > 0:
		return fmt.Errorf("%d groups have stopped because of their storage: %s", len(st.Failed), named(st.Failed))
	case len(st.Leaderless) > 0:
		return fmt.Errorf("%d groups have no leader: %s", len(st.Leaderless), named(st.Leaderless))
	}
	return nil
}

func named(groups []rpc.Group) string {
	var b strings.Builder
	for i, g := range groups {
		if i == maxNamed {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, g)
	}
	return b.String()
}

// stop ends the parts that were started, the last first: requests finish while
// everything they need still runs.
func (s *stack) stop(ctx context.Context) error {
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.Shutdown(ctx))
	}
	if s.forwarder != nil {
		errs = append(errs, s.forwarder.Close())
	}
	if s.table != nil {
		s.table.Close()
	}
	if s.node != nil {
		errs = append(errs, s.node.Close())
	}
	if s.control != nil {
		errs = append(errs, s.control.Close())
	}
	return errors.Join(errs...)
}
