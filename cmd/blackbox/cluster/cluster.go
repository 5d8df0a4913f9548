package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// Config says what a cluster consists of.
type Config struct {
	Binary  string // the program; process.Binary() if empty
	Dir     string // holds the data directories
	Control int    // members of the control plane; 1 if 0
	Data    int    // data nodes; 3 if 0
	Routers int    // 1 if 0
	// BootstrapExpect is how many data nodes are waited for before groups are
	// placed; all if 0.
	BootstrapExpect int
	Token           string // shared by all processes; none if empty
	// Env is added to the environment of every process.
	Env []string
	// Proxied puts a proxy in front of every process that others dial, so that
	// Network has a say.
	Proxied bool
}

func (c *Config) withDefaults() {
	for _, n := range []*int{&c.Control, &c.Routers} {
		if *n == 0 {
			*n = 1
		}
	}
	if c.Data == 0 {
		c.Data = 3
	}
	if c.BootstrapExpect == 0 {
		c.BootstrapExpect = c.Data
	}
}

// Cluster is a number of running processes. Its slices may grow with Add and
// are not to be modified.
type Cluster struct {
	Config
	Control []*Node
	Data    []*Node
	Routers []*Node
	// Network rules what proxied processes can say to each other.
	Network *Network

	mu      sync.Mutex // guards the below
	nodes   []*Node
	proxies []*proxy
}

// New makes a cluster and starts nothing yet.
func New(cfg Config) (*Cluster, error) {
	cfg.withDefaults()
	if cfg.Binary == "" {
		path, err := process.Binary()
		if err != nil {
			return nil, err
		}
		cfg.Binary = path
	}
	c := &Cluster{Config: cfg, Network: newNetwork()}
	err := c.addControl()
	for range cfg.Data {
		if err == nil {
			_, err = c.AddData()
		}
	}
	for range cfg.Routers {
		if err == nil {
			_, err = c.AddRouter()
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// addControl makes the members of the control plane, which name each other.
func (c *Cluster) addControl() error {
	reached := make([]string, c.Config.Control)
	for i := range c.Config.Control {
		n, address, err := c.node("c", i+1, true)
		if err != nil {
			return err
		}
		reached[i] = n.Name + "=" + address
		c.Control = append(c.Control, n)
	}
	for _, n := range c.Control {
		n.args = []string{"control", "--id", n.Name, "--listen", n.listen, "--ops-listen", n.ops}
		n.dataDir(c.Dir)
		n.flag("bootstrap-expect", strconv.Itoa(c.BootstrapExpect))
		if len(c.Control) > 1 {
			n.flag("peers", strings.Join(reached, ","))
		}
	}
	return nil
}

// AddData makes another data node, which must be started.
func (c *Cluster) AddData() (*Node, error) {
	n, address, err := c.node("d", len(c.Data)+1, true)
	if err != nil {
		return nil, err
	}
	n.args = []string{"data", "--id", n.Name, "--listen", n.listen, "--ops-listen", n.ops, "--control", c.ControlAddresses()}
	n.dataDir(c.Dir)
	if address != n.listen {
		n.flag("advertise", address)
	}
	c.Data = append(c.Data, n)
	return n, nil
}

// AddRouter makes another router, which must be started.
func (c *Cluster) AddRouter() (*Node, error) {
	n, _, err := c.node("r", len(c.Routers)+1, false)
	if err != nil {
		return nil, err
	}
	n.args = []string{"router", "--listen", n.listen, "--ops-listen", n.ops, "--control", c.ControlAddresses()}
	c.Routers = append(c.Routers, n)
	return n, nil
}

// node makes a process and returns the address at which others reach it.
func (c *Cluster) node(kind string, number int, dialed bool) (n *Node, address string, err error) {
	free, err := freeAddresses(3)
	if err != nil {
		return nil, "", err
	}
	n = &Node{Name: kind + strconv.Itoa(number), binary: c.Binary, listen: free[0], ops: free[1]}
	n.env = c.environment()
	c.mu.Lock()
	defer c.mu.Unlock()
	address = n.listen
	if dialed && c.Proxied {
		p, err := startProxy(n.Name, free[2], n.listen, c.Network, c.owner)
		if err != nil {
			return nil, "", err
		}
		c.proxies = append(c.proxies, p)
		address = p.address()
	}
	c.nodes = append(c.nodes, n)
	return n, address, nil
}

// ControlAddresses lists the control plane for --control.
func (c *Cluster) ControlAddresses() string {
	var out []string
	for _, n := range c.Control {
		out = append(out, c.reached(n))
	}
	return strings.Join(out, ",")
}

// reached is the address at which others reach a process.
func (c *Cluster) reached(n *Node) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.proxies {
		if p.target == n.Name {
			return p.address()
		}
	}
	return n.listen
}

const (
	// ownerTries is how often the owner of a socket is looked for. The kernel
	// prints its table of sockets in pieces, and one that is there can be
	// missing while others come and go.
	ownerTries = 10
	ownerPause = 5 * time.Millisecond
)

// owner names the process that has the socket which is connected from local to
// remote, or "" if it is none of the cluster's, or ctx ends.
func (c *Cluster) owner(ctx context.Context, local, remote net.Addr) string {
	for range ownerTries {
		if name := c.ownerNow(local, remote); name != "" {
			return name
		}
		if pause(ctx, ownerPause) != nil {
			break
		}
	}
	return ""
}

func (c *Cluster) ownerNow(local, remote net.Addr) string {
	c.mu.Lock()
	nodes := slices.Clone(c.nodes)
	c.mu.Unlock()
	names := map[int]string{}
	var pids []int
	for _, n := range nodes {
		if pid := n.PID(); pid != 0 {
			names[pid] = n.Name
			pids = append(pids, pid)
		}
	}
	return names[ownerOf(local, remote, pids)]
}

// Run runs a command line of the program, as an operator of this cluster, to
// its end, and returns its exit code and what it printed.
func (c *Cluster) Run(ctx context.Context, args ...string) (code int, output string, err error) {
	s, err := process.Start(process.Config{Command: append([]string{c.Binary}, args...), Env: c.environment()})
	if err != nil {
		return 0, "", err
	}
	defer s.Kill()
	code, err = s.Wait(ctx)
	return code, s.Output(), err
}

// environment is what all processes of the cluster are given.
func (c *Cluster) environment() []string {
	env := slices.Clone(c.Env)
	if c.Token != "" {
		env = append(env, "FASTPACA_TOKEN="+c.Token)
	}
	return env
}

// Nodes returns all processes: control plane, data nodes, routers.
func (c *Cluster) Nodes() []*Node {
	return slices.Concat(c.Control, c.Data, c.Routers)
}

// Start starts all processes and waits until they are ready.
func (c *Cluster) Start(ctx context.Context) error {
	for _, n := range c.Nodes() {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// WaitReady waits until every process says that it is ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for _, n := range c.Nodes() {
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close kills everything. It may be called in any state.
func (c *Cluster) Close() {
	for _, n := range c.Nodes() {
		n.Kill()
	}
	c.mu.Lock()
	proxies := c.proxies
	c.proxies = nil
	c.mu.Unlock()
	for _, p := range proxies {
		p.close()
	}
}

// errGone is a process that ended by itself.
var errGone = errors.New("process ended by itself")

// CheckRunning returns an error that names the processes which are not there.
func (c *Cluster) CheckRunning() error {
	var errs []error
	for _, n := range c.Nodes() {
		if !n.Running() {
			errs = append(errs, fmt.Errorf("node %s: %w", n.Name, errGone))
		}
	}
	return errors.Join(errs...)
}
