package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// Node is one process of a cluster, through all of its lives. Its methods may
// be called from one goroutine at a time, except those that only tell.
type Node struct {
	// Name is also the id: c1, d1, r1 and so on.
	Name string
	// Dir is the data directory; routers have none.
	Dir string

	binary string
	env    []string
	args   []string
	listen string // where others reach it, or its proxy
	ops    string

	mu     sync.Mutex // guards server and before
	server *process.Server
	before string // the end of what the previous life printed
}

// keptOutput bounds what is kept of the output of a life that is over.
const keptOutput = 16 << 10

// Start starts the process, which must not be running.
func (n *Node) Start() error {
	// Held meanwhile, so that a proxy that asks whose a connection is waits until
	// this process can tell.
	n.mu.Lock()
	defer n.mu.Unlock()
	server, err := process.Start(process.Config{
		Listen:  n.ops,
		Command: append([]string{n.binary}, n.args...),
		Env:     n.env,
	})
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	if n.server != nil {
		out := n.server.Output()
		n.before = out[max(0, len(out)-keptOutput):]
	}
	n.server = server
	return nil
}

// AddEnv adds to the environment of the process's next lives.
func (n *Node) AddEnv(variables ...string) {
	n.env = append(slices.Clone(n.env), variables...)
}

// Server returns the process of the current life, or of the last one; nil
// before the first.
func (n *Node) Server() *process.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server
}

// Kill ends the process with SIGKILL and waits for it; it may be paused or dead
// already.
func (n *Node) Kill() {
	if s := n.Server(); s != nil {
		s.Kill()
	}
}

// Pause stops the process with SIGSTOP; Continue lets it go on.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Continue lets a paused process go on.
func (n *Node) Continue() error { return n.signal(syscall.SIGCONT) }

// Terminate asks the process to stop, as an operator does.
func (n *Node) Terminate() error { return n.signal(syscall.SIGTERM) }

func (n *Node) signal(sig syscall.Signal) error {
	if err := n.Server().Signal(sig); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

// Restart kills the process and starts it again.
func (n *Node) Restart() error {
	n.Kill()
	return n.Start()
}

// Wipe removes the data directory of a process that is not running.
func (n *Node) Wipe() error {
	if err := os.RemoveAll(n.Dir); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

// Running tells whether the process is there, paused or not.
func (n *Node) Running() bool {
	s := n.Server()
	if s == nil {
		return false
	}
	select {
	case <-s.Exited():
		return false
	default:
		return true
	}
}

// WaitReady waits until the process says on its ops listener that it is ready.
func (n *Node) WaitReady(ctx context.Context) error {
	if err := n.Server().WaitReady(ctx); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nil
}

// PID returns the id of the running process, or 0.
func (n *Node) PID() int {
	if !n.Running() {
		return 0
	}
	return n.Server().PID()
}

// Address is where the process listens itself: the public API of a router, the
// internal listener of others.
func (n *Node) Address() string { return n.listen }

// Ops is the address of the listener for health, metrics and profiles.
func (n *Node) Ops() string { return n.ops }

// URL is the base of a router's public API, without a trailing slash.
func (n *Node) URL() string { return "http://" + n.listen }

// Output returns the newest part of what the process printed in this life,
// after the end of the one before.
func (n *Node) Output() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var b strings.Builder
	if n.before != "" {
		b.WriteString(n.before + "\n[restarted]\n")
	}
	if n.server != nil {
		b.WriteString(n.server.Output())
	}
	return b.String()
}

func (n *Node) flag(name, value string) {
	if value != "" {
		n.args = append(n.args, "--"+name, value)
	}
}

func (n *Node) dataDir(base string) {
	n.Dir = filepath.Join(base, n.Name)
	n.flag("data-dir", n.Dir)
}
