package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	devControls = 3
	devNodes    = 3
	// devStopTimeout is how long one process may take to stop before it is
	// killed.
	devStopTimeout = 15 * time.Second
)

// devClusterConfig is everything `fastpaca dev-cluster` can be told.
type devClusterConfig struct {
	DataDir string
	Listen  string
}

func (c *devClusterConfig) validate() error {
	return errors.Join(required("data-dir", c.DataDir), validAddress("listen", c.Listen))
}

func devClusterCommand() *cli.Command {
	var conf devClusterConfig
	return &cli.Command{
		Name:  "dev-cluster",
		Usage: "run a whole cluster on this machine, for trying things out",
		Description: "Starts 3 control members, 3 data nodes and a router as processes of their own, on loopback.\n" +
			"Kill any of them to see what happens. Ctrl-C stops them all; their data stays.\n\n" +
			"Example:\n   fastpaca dev-cluster --data-dir ./fastpaca-dev --listen 127.0.0.1:4000",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "data-dir", EnvVars: []string{"FASTPACA_DATA_DIR"}, Value: "./fastpaca-dev",
				Usage: "keep data and logs of all processes under `DIR`", Destination: &conf.DataDir},
			&cli.StringFlag{Name: "listen", EnvVars: []string{"FASTPACA_LISTEN"}, Value: "127.0.0.1:4000",
				Usage: "serve the public API on `HOST:PORT`", Destination: &conf.Listen},
		},
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), conf.validate()); err != nil {
				return usageError{err}
			}
			return runDevCluster(c.Context, conf, c.App.Writer)
		},
	}
}

// devPlan is what must be the same at every start: addresses and the token.
type devPlan struct {
	Token    string   `json:"token"`
	Controls []string `json:"controls"`
	Nodes    []string `json:"nodes"`
	Ops      []string `json:"ops"` // of controls, nodes and the router, in this order
}

// loadDevPlan reads the directory's plan, or makes one with free ports.
func loadDevPlan(dir string) (*devPlan, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "dev-cluster.json")
	data, err := os.ReadFile(path)
	if err == nil {
		var plan devPlan
		if err := json.Unmarshal(data, &plan); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(plan.Controls) != devControls || len(plan.Nodes) != devNodes || len(plan.Ops) != devControls+devNodes+1 {
			return nil, fmt.Errorf("%s: not a plan of this version", path)
		}
		return &plan, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ports, err := freeAddresses(2*(devControls+devNodes) + 1)
	if err != nil {
		return nil, err
	}
	plan := &devPlan{
		Token:    rand.Text(),
		Controls: ports[:devControls],
		Nodes:    ports[devControls : devControls+devNodes],
		Ops:      ports[devControls+devNodes:],
	}
	if data, err = json.MarshalIndent(plan, "", "  "); err != nil {
		return nil, err
	}
	return plan, os.WriteFile(path, data, 0o600)
}

// writeOperator writes what `fastpaca cluster` needs, for a shell to source, and
// returns where.
func (p *devPlan) writeOperator(dir string) (string, error) {
	path := filepath.Join(dir, "operator.env")
	text := fmt.Sprintf("export FASTPACA_CONTROL=%s\nexport FASTPACA_TOKEN=%s\n", strings.Join(p.Controls, ","), p.Token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// freeAddresses returns loopback addresses that were free a moment ago.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // held until all are chosen, so that they differ
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// devProcess is one child.
type devProcess struct {
	name string
	args []string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when the process has ended
	err  error         // how; valid after done
}

// processes are the cluster's children in the order in which they start.
func (p *devPlan) processes(conf devClusterConfig) []*devProcess {
	var peers []string
	for i, a := range p.Controls {
		peers = append(peers, fmt.Sprintf("c%d=%s", i+1, a))
	}
	control := strings.Join(p.Controls, ",")
	var all []*devProcess
	add := func(name string, args ...string) {
		args = append(args, "--ops-listen", p.Ops[len(all)])
		all = append(all, &devProcess{name: name, args: args, done: make(chan struct{})})
	}
	for i, a := range p.Controls {
		id := fmt.Sprintf("c%d", i+1)
		add(id, "control", "--id", id, "--data-dir", filepath.Join(conf.DataDir, id), "--listen", a,
			"--peers", strings.Join(peers, ","), "--bootstrap-expect", fmt.Sprint(devNodes))
	}
	for i, a := range p.Nodes {
		id := fmt.Sprintf("d%d", i+1)
		add(id, "data", "--id", id, "--data-dir", filepath.Join(conf.DataDir, id), "--listen", a, "--control", control)
	}
	add("router", "router", "--listen", conf.Listen, "--control", control)
	return all
}

func runDevCluster(ctx context.Context, conf devClusterConfig, stdout io.Writer) error {
	plan, err := loadDevPlan(conf.DataDir)
	if err != nil {
		return fmt.Errorf("dev-cluster: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("dev-cluster: %w", err)
	}
	// Children are tied to the thread that starts them; see childAttributes.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	processes := plan.processes(conf)
	operator, err := plan.writeOperator(conf.DataDir)
	if err != nil {
		return fmt.Errorf("dev-cluster: %w", err)
	}
	fmt.Fprintf(stdout, "fastpaca %s cluster\n  API     http://%s/v1\n  Console http://%[2]s/console\n\n", version(), conf.Listen)
	defer stopDevCluster(processes, stdout)
	var reports sync.WaitGroup
	defer reports.Wait()
	for i, p := range processes {
		if err := p.start(self, plan.Token, conf.DataDir); err != nil {
			return fmt.Errorf("dev-cluster: start %s: %w", p.name, err)
		}
		fmt.Fprintf(stdout, "  %-7s pid %-8d ops http://%s  log %s\n", p.name, p.cmd.Process.Pid, plan.Ops[i], p.log.Name())
		reports.Go(func() {
			select {
			case <-p.done:
				fmt.Fprintf(stdout, "%s ended (%v), the others go on; see %s\n", p.name, p.err, p.log.Name())
			case <-ctx.Done():
			}
		})
	}
	fmt.Fprintf(stdout, "\nLook after it from another terminal:\n  . %s\n  %s cluster status\n\nCtrl-C stops them all.\n", operator, os.Args[0])
	<-ctx.Done()
	return nil
}

func (p *devProcess) start(self, token, dir string) error {
	log, err := os.OpenFile(filepath.Join(dir, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	p.log = log
	p.cmd = exec.Command(self, p.args...)
	p.cmd.Env = append(withoutFastpaca(os.Environ()), "FASTPACA_TOKEN="+token)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = childAttributes()
	if err := p.cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
		_ = log.Close()
	}()
	return nil
}

// withoutFastpaca drops settings that were meant for this process.
func withoutFastpaca(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "FASTPACA_") })
}

// stopDevCluster stops the children, the last started first, and kills those
// that do not end in time.
func stopDevCluster(processes []*devProcess, stdout io.Writer) {
	for _, p := range slices.Backward(processes) {
		if p.cmd == nil || p.cmd.Process == nil {
			continue
		}
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-p.done:
		case <-time.After(devStopTimeout):
			fmt.Fprintf(stdout, "%s does not stop, killing it\n", p.name)
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	fmt.Fprintln(stdout, "stopped")
}
