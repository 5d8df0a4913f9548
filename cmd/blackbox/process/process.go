// Package process runs fastpaca as a child process for suites and benchmarks:
// it starts it, waits until it is ready, signals or kills it with everything
// it started, and keeps what it printed.
package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// ReadyTimeout bounds how long MustStart waits for a server. It is a bound
// against hanging for ever, generous enough for a busy machine; how fast a
// server starts is for the benchmarks to say.
const ReadyTimeout = 60 * time.Second

// Config says how to run a server. The zero value of every field but DataDir
// has a meaning.
type Config struct {
	Binary  string   // the program; Binary() if empty
	DataDir string   // passed as --data-dir
	Listen  string   // passed as --listen; a free loopback port if empty
	Args    []string // after the verb and the flags above
	Env     []string // added to an environment that tells the program nothing
	// Credential runs the server as another user, where the caller may.
	Credential *syscall.Credential
	// Command replaces the program and all of its arguments: for other servers
	// that a benchmark compares with.
	Command []string
}

// Server is a running child process.
// Goroutines: run (owner of the process until it has been waited for).
type Server struct {
	listen string
	cmd    *exec.Cmd
	output *tailBuffer
	exited chan struct{} // closed by run after the process has been waited for
}

// Start starts a server and returns without waiting for it to be ready. The
// caller must Kill it, also when it has exited by itself.
func Start(cfg Config) (*Server, error) {
	listen := cfg.Listen
	if listen == "" {
		free, err := FreeAddress()
		if err != nil {
			return nil, err
		}
		listen = free
	}
	command := cfg.Command
	if len(command) == 0 {
		binary := cfg.Binary
		if binary == "" {
			path, err := Binary()
			if err != nil {
				return nil, err
			}
			binary = path
		}
		command = append([]string{binary, "serve", "--listen", listen, "--data-dir", cfg.DataDir}, cfg.Args...)
	}
	s := &Server{
		listen: listen,
		cmd:    exec.Command(command[0], command[1:]...),
		output: &tailBuffer{limit: maxOutputBytes},
		exited: make(chan struct{}),
	}
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.Env = append(environment(), cfg.Env...)
	s.cmd.SysProcAttr = attributes(cfg.Credential)

	started := make(chan error, 1)
	go s.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	return s, nil
}

// run stays on one thread from start to wait: on Linux the kernel kills the
// child when the thread that started it ends, and that should mean the death
// of this process only.
func (s *Server) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := s.cmd.Start(); err != nil {
		close(s.exited)
		started <- err
		return
	}
	started <- nil
	// The exit status is read from ProcessState by those who wait for exited.
	_ = s.cmd.Wait()
	close(s.exited)
}

// URL returns the base of the server's public API, without a trailing slash.
func (s *Server) URL() string { return "http://" + s.listen }

// Address returns the host and port of the public listener.
func (s *Server) Address() string { return s.listen }

// PID returns the process id, which is also the id of its process group.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Output returns the newest part of what the server printed on both streams.
func (s *Server) Output() string { return s.output.String() }

// Exited is closed once the process has ended and been waited for.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Signal sends a signal to the server alone, as Ctrl-C would.
func (s *Server) Signal(sig syscall.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal the server: %w", err)
	}
	return nil
}

// Kill ends the server and all of its process group with SIGKILL and waits for
// it. It may be called in any state, any number of times.
func (s *Server) Kill() {
	// An error means that the group is gone already.
	_ = syscall.Kill(-s.PID(), syscall.SIGKILL)
	<-s.exited
}

// Wait returns the exit code once the process has ended, -1 when a signal
// ended it, or the context's error.
func (s *Server) Wait(ctx context.Context) (int, error) {
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for the server to exit: %w", ctx.Err())
	}
}

// ErrExited reports that the server ended before it became ready.
var ErrExited = errors.New("server exited")

// WaitReady returns once /health/ready answers 200. It returns ErrExited,
// wrapped with the exit code and the output, if the process ends before.
func (s *Server) WaitReady(ctx context.Context) error {
	client := &http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		last := ready(ctx, client, s.URL())
		if last == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("%w with code %d before it was ready:\n%s", ErrExited, s.cmd.ProcessState.ExitCode(), s.Output())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be ready: %w (last: %w):\n%s", s.URL(), ctx.Err(), last, s.Output())
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, client *http.Client, base string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/health/ready", nil)
	if err != nil {
		return err
	}
	reply, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("/health/ready answered %d", reply.StatusCode)
	}
	return nil
}

// FreeAddress returns a loopback address with a port that was free just now.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// environment is this process's without what would configure the server
// behind the suite's back: its own variables, and those of PostgreSQL's clients
// that name a database, which an archive's URL may leave out.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FASTPACA_") && !strings.HasPrefix(v, "DATABASE_URL=") && !strings.HasPrefix(v, "PG") {
			env = append(env, v)
		}
	}
	return env
}
