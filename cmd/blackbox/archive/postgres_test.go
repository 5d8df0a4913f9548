package archive

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// postgres is a PostgreSQL server in a directory of its own, that listens on a
// unix socket there.
type postgres struct {
	t       *testing.T
	dir     string
	program string
	psql    string
	owner   *syscall.Credential
	server  *process.Server
}

// newPostgres starts a server that is gone when the test ends. Without
// PostgreSQL on the machine the test is skipped, unless CI is set.
func newPostgres(t *testing.T) *postgres {
	t.Helper()
	p := &postgres{t: t, program: find(t, "postgres"), psql: find(t, "psql"), owner: owner(t)}
	initdb := find(t, "initdb")
	dir, err := os.MkdirTemp("", "fastpaca-archive-") // a short path: it holds a socket
	require.NoError(t, err)
	p.dir = dir
	t.Cleanup(func() {
		p.kill()
		_ = os.RemoveAll(dir)
	})
	if p.owner != nil {
		require.NoError(t, os.Chown(dir, int(p.owner.Uid), int(p.owner.Gid)))
	}
	made := p.launch(initdb, "--pgdata", p.data(), "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	code, err := made.Wait(t.Context())
	require.NoError(t, err)
	require.Zero(t, code, made.Output())
	p.start()
	return p
}

func find(t *testing.T, program string) string {
	t.Helper()
	path, err := process.FindPostgres(program)
	skipWithout(t, err)
	return path
}

func owner(t *testing.T) *syscall.Credential {
	t.Helper()
	credential, err := process.PostgresUser()
	skipWithout(t, err)
	return credential
}

// skipWithout skips the test where PostgreSQL cannot run, unless CI is set.
func skipWithout(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, process.ErrNoPostgres) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
}

func (p *postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *postgres) launch(command ...string) *process.Server {
	p.t.Helper()
	s, err := process.Start(process.Config{Command: command, Credential: p.owner})
	require.NoError(p.t, err)
	p.t.Cleanup(s.Kill)
	return s
}

// start starts the server and waits until it answers. One that gives up,
// because processes of the one before are still going, is started again.
func (p *postgres) start() {
	p.t.Helper()
	run := func() {
		p.server = p.launch(p.program, "-D", p.data(), "-k", p.dir, "-c", "listen_addresses=", "-c", "shared_buffers=64MB")
	}
	run()
	eventually(p.t, "PostgreSQL answers", func() bool {
		select {
		case <-p.server.Exited():
			run()
		default:
		}
		_, err := p.try("postgres", "SELECT 1")
		return err == nil
	})
}

// kill ends the server and its backends, each of which leads a process group of
// its own, as a crash would.
func (p *postgres) kill() {
	if p.server == nil {
		return
	}
	p.signal(syscall.SIGSTOP) // so that it starts no more
	for _, pid := range p.backends() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	p.server.Kill()
}

// pause stops the server and its backends where they are; resume lets them go
// on.
func (p *postgres) pause() { p.signal(syscall.SIGSTOP) }

func (p *postgres) resume() { p.signal(syscall.SIGCONT) }

func (p *postgres) signal(sig syscall.Signal) {
	for _, pid := range p.backends() {
		_ = syscall.Kill(pid, sig)
	}
	_ = p.server.Signal(sig)
}

func (p *postgres) backends() []int {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(p.server.PID())).Output()
	if err != nil {
		return nil // there are none
	}
	var pids []int
	for field := range strings.FieldsSeq(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// url returns the connection URL of a database for a role.
func (p *postgres) url(role, database string) string {
	return fmt.Sprintf("postgres:///%s?host=%s&user=%s", database, p.dir, role)
}

// database makes an empty database and returns its URL.
func (p *postgres) database(name string) string {
	p.t.Helper()
	p.sql("postgres", "CREATE DATABASE "+name)
	return p.url("postgres", name)
}

// sql runs statements as the superuser and returns the rows of the last one, one
// a line.
func (p *postgres) sql(database string, statements ...string) string {
	p.t.Helper()
	out := ""
	for _, statement := range statements {
		var err error
		out, err = p.try(database, statement)
		require.NoError(p.t, err, "%s: %s", statement, out)
	}
	return out
}

const sqlTimeout = "10s"

func (p *postgres) try(database, statement string) (string, error) {
	cmd := exec.Command("timeout", sqlTimeout, p.psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", p.url("postgres", database), "-c", statement)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// patience bounds waiting for what must come.
const patience = 60 * time.Second

// eventually polls until ok, and fails the test if that never comes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 10*time.Millisecond, what)
}
