// Package archivetest runs real PostgreSQL servers for tests: each in a
// directory of its own, on a unix socket, and easily killed, paused and
// restarted.
package archivetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// startTimeout bounds how long a server may take to answer.
const startTimeout = 60 * time.Second

// Server is a PostgreSQL server. Its methods fail the test they are given.
type Server struct {
	dir        string
	program    string
	settings   []string
	credential *syscall.Credential

	mu     sync.Mutex // guards proc and exited
	proc   *exec.Cmd  // nil when it was killed
	exited chan struct{}
}

// Start makes a database cluster and starts a server over it, with settings
// like "max_connections=5" beside the defaults. The test's end removes both.
// Without PostgreSQL on the machine the test is skipped, unless CI is set.
func Start(tb testing.TB, settings ...string) *Server {
	tb.Helper()
	s, err := start(settings)
	if err != nil && os.Getenv("CI") == "" && strings.Contains(err.Error(), notInstalled) {
		tb.Skip(err)
	}
	require.NoError(tb, err)
	tb.Cleanup(s.remove)
	s.await(tb)
	return s
}

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared returns a server that all tests of a package share; take a NewDatabase
// of it. The package's TestMain calls StopShared.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	shared.once.Do(func() { shared.server, shared.err = start(nil) })
	if shared.err != nil && os.Getenv("CI") == "" && strings.Contains(shared.err.Error(), notInstalled) {
		tb.Skip(shared.err)
	}
	require.NoError(tb, shared.err)
	shared.server.await(tb)
	return shared.server
}

// StopShared ends the shared server, if there is one.
func StopShared() {
	if shared.server != nil {
		shared.server.remove()
	}
}

const notInstalled = "is not installed"

// find returns the path of one of PostgreSQL's programs, the newest version if
// there are several.
func find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("%s of PostgreSQL %s", program, notInstalled)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// unprivileged returns whom to run as when the test is root, which PostgreSQL
// refuses.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
		if uidErr == nil && gidErr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, fmt.Errorf("running as root without a user postgres or nobody: PostgreSQL %s", notInstalled)
}

func start(settings []string) (*Server, error) {
	initdb, err := find("initdb")
	if err != nil {
		return nil, err
	}
	program, err := find("postgres")
	if err != nil {
		return nil, err
	}
	credential, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fastpaca-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, program: program, credential: credential, settings: settings}
	if credential != nil {
		if err := os.Chown(dir, int(credential.Uid), int(credential.Gid)); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(initdb, "--pgdata", s.data(), "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = dir, s.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		s.remove()
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := s.launch(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) launch() error {
	args := []string{"-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "shared_buffers=64MB"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the server has its own
	cmd := exec.Command(s.program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.dir, log, log, s.attributes()
	exited, started := make(chan struct{}), make(chan error)
	go func() {
		// On Linux the kernel kills the child when the thread that started it
		// ends, so it stays one.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.mu.Lock()
	s.proc, s.exited = cmd, exited
	s.mu.Unlock()
	return nil
}

// revive starts a server that gave up, because processes of the killed one were
// not gone yet.
func (s *Server) revive() {
	s.mu.Lock()
	exited := s.exited
	s.mu.Unlock()
	select {
	case <-exited:
		_ = s.launch()
	default:
	}
}

func (s *Server) await(tb testing.TB) {
	tb.Helper()
	require.Eventually(tb, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		if err != nil {
			s.revive()
			return strings.Contains(err.Error(), "too many")
		}
		return c.Close(ctx) == nil
	}, startTimeout, 5*time.Millisecond, "PostgreSQL does not answer")
}

// URL returns the connection URL of a database, as the superuser.
func (s *Server) URL(database string) string { return s.URLFor("postgres", database) }

// URLFor returns the connection URL of a database for a role.
func (s *Server) URLFor(role, database string) string {
	return fmt.Sprintf("postgres:///%s?host=%s&user=%s", database, s.dir, role)
}

var databases atomic.Int64

// NewDatabase makes an empty database and returns its URL.
func (s *Server) NewDatabase(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("archive_%d", databases.Add(1))
	s.Exec(tb, s.URL("postgres"), "CREATE DATABASE "+name)
	return s.URL(name)
}

// Exec runs statements.
func (s *Server) Exec(tb testing.TB, url string, statements ...string) {
	tb.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, url)
	require.NoError(tb, err)
	defer func() { _ = c.Close(ctx) }()
	for _, statement := range statements {
		_, err := c.Exec(ctx, statement)
		require.NoError(tb, err, statement)
	}
}

// Query returns the one value of the one row that a query yields.
func Query[T any](tb testing.TB, url, query string, args ...any) T {
	tb.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, url)
	require.NoError(tb, err)
	defer func() { _ = c.Close(ctx) }()
	var value T
	require.NoError(tb, c.QueryRow(ctx, query, args...).Scan(&value), query)
	return value
}

// Exhaust takes all connections that a server gives out. release gives them
// back.
func Exhaust(tb testing.TB, url string) (release func()) {
	tb.Helper()
	ctx := context.Background()
	var held []*pgx.Conn
	for {
		c, err := pgx.Connect(ctx, url)
		if err != nil {
			break
		}
		held = append(held, c)
	}
	require.NotEmpty(tb, held)
	return func() {
		for _, c := range held {
			_ = c.Close(ctx)
		}
	}
}

// Kill ends the server and everything it started at once, as a crash would.
func (s *Server) Kill() {
	s.mu.Lock()
	proc, exited := s.proc, s.exited
	s.proc = nil
	s.mu.Unlock()
	if proc == nil {
		return
	}
	_ = proc.Process.Signal(syscall.SIGSTOP) // so that it starts no more
	s.signal(proc, syscall.SIGKILL)
	<-exited
}

// Restart starts a killed server again and waits until it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, s.launch())
	s.await(tb)
}

// Pause stops the server and everything it started where it is.
func (s *Server) Pause() { s.signalAll(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signalAll(syscall.SIGCONT) }

func (s *Server) signalAll(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		s.signal(s.proc, sig)
	}
}

// signal reaches the server and its backends, each of which leads a process
// group of its own.
func (s *Server) signal(proc *exec.Cmd, sig syscall.Signal) {
	for _, pid := range childrenOf(proc.Process.Pid) {
		_ = syscall.Kill(pid, sig)
	}
	_ = proc.Process.Signal(sig)
}

// childrenOf lists the processes that a process started, empty where the
// operating system does not tell.
func childrenOf(pid int) []int {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil
	}
	var children []int
	for field := range strings.FieldsSeq(string(out)) {
		if child, err := strconv.Atoi(field); err == nil {
			children = append(children, child)
		}
	}
	return children
}

func (s *Server) remove() {
	s.signalAll(syscall.SIGCONT)
	s.Kill()
	_ = os.RemoveAll(s.dir)
}
