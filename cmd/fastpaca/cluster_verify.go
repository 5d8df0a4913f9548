package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// clusterVerifyConfig is everything `fastpaca cluster verify` can be told.
type clusterVerifyConfig struct {
	Cluster clusterConfig
	Timeout time.Duration
}

const (
	// verifyFanOut is how many groups are compared at a time. Hashing reads all
	// of a replica, so nodes take few at once.
	verifyFanOut = 2
	// verifyPause is the wait before a group whose replicas were at different
	// indexes is looked at again.
	verifyPause = 200 * time.Millisecond
)

func clusterVerifyCommand() *cli.Command {
	var conf clusterVerifyConfig
	return &cli.Command{
		Name:  "verify",
		Usage: "compare the replicas of every group",
		Description: "Hashes the whole state of every replica and compares the hashes of a group at the same\n" +
			"applied index. Exits 0 when all replicas are equal, and 1 when one differs, is missing,\n" +
			"or could not be met at a common index in time. It changes nothing.\n\n" +
			"Example:\n   fastpaca cluster verify --control 127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403",
		Flags: append(conf.Cluster.flags(), &cli.DurationFlag{Name: "timeout", Value: time.Minute,
			Usage: "how long a group may take, as a `DURATION`", Destination: &conf.Timeout}),
		Action: func(c *cli.Context) error {
			err := errors.Join(noArguments(c), conf.Cluster.validate())
			if conf.Timeout <= 0 {
				err = errors.Join(err, errors.New("--timeout: want more than 0"))
			}
			if err != nil {
				return usageError{err}
			}
			return conf.run(c.Context, c.App.Writer)
		},
	}
}

// replicaState is what one replica answered.
type replicaState struct {
	Node    string `json:"node"`
	Applied uint64 `json:"applied"`
	Hash    string `json:"hash,omitempty"`
	Error   string `json:"error,omitempty"`
}

// groupState is the verdict on one group.
type groupState struct {
	Group    rpc.Group      `json:"group"`
	Equal    bool           `json:"equal"`
	Problem  string         `json:"problem,omitempty"`
	Replicas []replicaState `json:"replicas"`
}

// verifyReport is what `cluster verify -o json` prints.
type verifyReport struct {
	Groups   int          `json:"groups"`
	Equal    int          `json:"equal"`
	Replicas int          `json:"replicas"`
	Problems []groupState `json:"problems"`
}

func (c *clusterVerifyConfig) run(ctx context.Context, out io.Writer) error {
	in, addresses, err := c.Cluster.dial()
	if err != nil {
		return err
	}
	control, err := in.dialControl(addresses)
	if err != nil {
		return err
	}
	defer control.Close()
	table, err := currentTable(ctx, control)
	if err != nil {
		return fmt.Errorf("placement table from %s: %w", c.Cluster.Control, err)
	}
	nodes := &inspectors{in: in, table: table, open: map[controlrpc.NodeID]rpc.Node{}}
	defer nodes.close()

	states := make([]groupState, len(table.Groups))
	var work errgroup.Group
	work.SetLimit(verifyFanOut)
	for g := range table.Groups {
		work.Go(func() error {
			states[g] = c.group(ctx, nodes, rpc.Group(g), table.Groups[g].Replicas)
			return nil
		})
	}
	_ = work.Wait() // verdicts, not errors
	report := verifyReport{Groups: len(states), Problems: []groupState{}}
	for _, s := range states {
		report.Replicas += len(s.Replicas)
		if s.Equal {
			report.Equal++
		} else {
			report.Problems = append(report.Problems, s)
		}
	}
	return c.print(out, &report)
}

// tableWait bounds the wait for the control plane.
const tableWait = 10 * time.Second

func currentTable(ctx context.Context, control controlrpc.ControlPlane) (*controlrpc.Table, error) {
	ctx, cancel := context.WithTimeout(ctx, tableWait)
	defer cancel()
	table, err := control.Table(ctx, 0)
	switch {
	case err != nil:
		return nil, err
	case table == nil || len(table.Groups) == 0:
		return nil, errors.New("no group is placed yet")
	}
	return table, nil
}

// group compares the replicas of one group until they were met at one index.
func (c *clusterVerifyConfig) group(ctx context.Context, nodes *inspectors, g rpc.Group, replicas []controlrpc.Replica) groupState {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	for {
		state := groupState{Group: g, Replicas: make([]replicaState, len(replicas))}
		var asked sync.WaitGroup
		for i, r := range replicas {
			asked.Go(func() { state.Replicas[i] = nodes.hash(ctx, r.Node, g) })
		}
		asked.Wait()
		again := state.judge()
		if !again || !pause(ctx, verifyPause) {
			return state
		}
	}
}

// judge decides what the answers mean, and whether asking again may tell more.
func (s *groupState) judge() (again bool) {
	if len(s.Replicas) == 0 {
		s.Problem = "is not placed"
		return false
	}
	first := s.Replicas[0]
	for _, r := range s.Replicas {
		switch {
		case r.Error != "":
			s.Problem = "a replica did not answer"
			return true
		case r.Applied != first.Applied:
			s.Problem = "replicas were never met at the same index"
			again = true
		}
	}
	if again {
		return true
	}
	for _, r := range s.Replicas {
		if r.Hash != first.Hash {
			s.Problem = "replicas differ"
			return false
		}
	}
	s.Equal = true
	return false
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *clusterVerifyConfig) print(out io.Writer, report *verifyReport) error {
	if c.Cluster.Output == outputJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(report); err != nil {
			return err
		}
	} else {
		for _, p := range report.Problems {
			fmt.Fprintf(out, "group %d: %s\n", p.Group, p.Problem)
			for _, r := range p.Replicas {
				fmt.Fprintf(out, "  %-12s applied %-8d %s%s\n", r.Node, r.Applied, r.Hash, r.Error)
			}
		}
		fmt.Fprintf(out, "%d of %d groups equal on all replicas (%d replicas)\n", report.Equal, report.Groups, report.Replicas)
	}
	if n := len(report.Problems); n > 0 {
		return fmt.Errorf("%d of %d groups are not known to be equal on all replicas", n, report.Groups)
	}
	return nil
}

// inspectors are connections to data nodes, made when first used.
type inspectors struct {
	in    *internal
	table *controlrpc.Table

	mu   sync.Mutex // guards open
	open map[controlrpc.NodeID]rpc.Node
}

func (n *inspectors) get(id controlrpc.NodeID) (rpc.Inspector, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.open[id]
	if node == nil {
		info, ok := n.table.Nodes[id]
		if !ok {
			return nil, fmt.Errorf("node %s is not registered", id)
		}
		var err error
		if node, err = n.in.connect(id, info.Address); err != nil {
			return nil, err
		}
		n.open[id] = node
	}
	inspector, ok := node.(rpc.Inspector)
	if !ok {
		return nil, fmt.Errorf("node %s cannot be inspected", id)
	}
	return inspector, nil
}

func (n *inspectors) hash(ctx context.Context, id controlrpc.NodeID, g rpc.Group) replicaState {
	state := replicaState{Node: string(id)}
	inspector, err := n.get(id)
	if err == nil {
		var h *rpc.StateHash
		if h, err = inspector.StateHash(ctx, g); err == nil {
			state.Applied, state.Hash = h.Applied, hex.EncodeToString(h.Hash[:])
		}
	}
	if err != nil {
		state.Error = err.Error()
	}
	return state
}

func (n *inspectors) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, node := range n.open {
		if closer, ok := node.(io.Closer); ok {
			_ = closer.Close() // only reads went over it
		}
	}
}
