package backup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// postgres is a PostgreSQL server in a directory of its own, that listens on a
// unix socket there.
type postgres struct {
	t        *testing.T
	dir      string
	programs map[string]string
}

// newPostgres starts a server that is gone when the test ends. Without
// PostgreSQL on the machine it is nil, unless CI is set.
func newPostgres(t *testing.T) *postgres {
	t.Helper()
	p := &postgres{t: t, programs: map[string]string{}}
	for _, name := range []string{"initdb", "postgres", "psql"} {
		path, err := process.FindPostgres(name)
		if err != nil {
			require.Empty(t, os.Getenv("CI"), "%v", err)
			return nil
		}
		p.programs[name] = path
	}
	dir, err := os.MkdirTemp("", "fastpaca-backup-") // a short path: it holds a socket
	require.NoError(t, err)
	p.dir = dir
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	owner, err := process.PostgresUser()
	require.NoError(t, err)
	if owner != nil {
		require.NoError(t, os.Chown(dir, int(owner.Uid), int(owner.Gid)))
	}
	launch := func(command ...string) *process.Server {
		s, err := process.Start(process.Config{Command: command, Credential: owner})
		require.NoError(t, err)
		t.Cleanup(s.Kill)
		return s
	}
	data := filepath.Join(dir, "data")
	made := launch(p.programs["initdb"], "--pgdata", data, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	code, err := made.Wait(t.Context())
	require.NoError(t, err)
	require.Zero(t, code, made.Output())
	server := launch(p.programs["postgres"], "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "shared_buffers=64MB", "-c", "max_connections=200")
	// Its backends lead process groups of their own: it has to end them itself.
	t.Cleanup(func() {
		_ = server.Signal(syscall.SIGQUIT)
		<-server.Exited()
	})
	within(t, func() error {
		_, err := p.try("SELECT 1")
		return err
	})
	return p
}

// url is the archive for --archive-url; nothing without a server.
func (p *postgres) url() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("postgres:///postgres?host=%s&user=postgres", p.dir)
}

func (p *postgres) try(statement string) (string, error) {
	out, err := exec.Command(p.programs["psql"], "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", p.url(), "-c", statement).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return string(out), err
}

// release lets the next cluster have the archive.
func (p *postgres) release() {
	p.t.Helper()
	if p != nil {
		_, err := p.try("DELETE FROM fastpaca_archive")
		require.NoError(p.t, err)
	}
}
