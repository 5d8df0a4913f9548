// Package process runs a real Fastpaca server for the tests of the SDK.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// BinaryEnv names the environment variable with the path of a built server.
const BinaryEnv = "FASTPACA_BIN"

// ErrNoServer tells that there is neither a built server nor its source: only
// the module of the SDK is here.
var ErrNoServer = errors.New("no " + BinaryEnv + " is set, and the server's source is not here to build it")

var built = sync.OnceValues(build)

// build returns the path of the server's program, made if need be.
func build() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		return filepath.Abs(path)
	}
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), "..", "..")
	if _, err := os.Stat(filepath.Join(root, "cmd", "fastpaca")); errors.Is(err, fs.ErrNotExist) {
		return "", ErrNoServer
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place to build: %w", err)
	}
	path := filepath.Join(cache, "fastpaca-sdk-go", "fastpaca")
	// Another test process may run the old one: it can be replaced, not written to.
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-o", fresh, "./cmd/fastpaca")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return path, os.Rename(fresh, path)
}

// Server is a server on a loopback port, with a data directory of its own.
type Server struct {
	address string
	dir     string
	cmd     *exec.Cmd
	output  *bytes.Buffer // complete once exited is closed
	exited  chan struct{} // closed when the process has been waited for
}

// Start starts a server and waits until it is ready. The caller must Close it.
func Start() (*Server, error) {
	dir, err := os.MkdirTemp("", "fastpaca-sdk-go-")
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{address: listener.Addr().String(), dir: dir}
	if err := listener.Close(); err != nil {
		return nil, err
	}
	if err := s.Run(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// URL is the address to give to a client.
func (s *Server) URL() string { return "http://" + s.address }

// readyTimeout bounds the wait for a server on a busy machine.
const readyTimeout = time.Minute

// Run starts the server again, where it was, after a Kill.
func (s *Server) Run() error {
	program, err := built()
	if err != nil {
		return err
	}
	s.output, s.exited = &bytes.Buffer{}, make(chan struct{})
	s.cmd = exec.Command(program, "serve", "--listen", s.address, "--data-dir", s.dir)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FASTPACA_") {
			s.cmd.Env = append(s.cmd.Env, v)
		}
	}
	s.cmd.SysProcAttr = attributes()
	started := make(chan error)
	go func() {
		// On one thread to the end: see attributes.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(s.exited)
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // the state says how it ended
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	return s.ready()
}

func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/health/ready", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.exited:
			return fmt.Errorf("the server exited before it was ready:\n%s", s.output)
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// Kill ends the server at once, as a crash would, and waits for it.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may be gone already
	<-s.exited
}

// Stop ends the server as an operator would, and waits for it.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(os.Interrupt)
	<-s.exited
}

// Close kills the server and removes its data.
func (s *Server) Close() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}
