package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// ErrNoPostgres: this machine cannot run a PostgreSQL server.
var ErrNoPostgres = errors.New("PostgreSQL is not installed (.ci/install-tools)")

// FindPostgres returns the path of one of the PostgreSQL server's programs, the newest version if
// there are several. It wraps ErrNoPostgres.
func FindPostgres(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("%s: %w", program, ErrNoPostgres)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// PostgresUser returns the user that a server runs as when we are root, which
// PostgreSQL refuses; nil when we are somebody else. It wraps ErrNoPostgres
// where there is no such user.
func PostgresUser() (*syscall.Credential, error) {
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
	return nil, fmt.Errorf("running as root without a user postgres or nobody: %w", ErrNoPostgres)
}
