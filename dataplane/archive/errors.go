package archive

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Each sentinel is something an operator has to do. All are wrapped together
// with rpc.ErrArchiveUnavailable: whoever only wants to read tries again later.
var (
	// ErrNoSchema: the database has none of our tables, and migrating on start
	// is not allowed.
	ErrNoSchema = errors.New("the archive has no schema yet: run fastpaca archive migrate, or start with --archive-migrate")
	// ErrOlderSchema: the schema was made by an older version of this program,
	// and migrating on start is not allowed.
	ErrOlderSchema = errors.New("the archive's schema is older than this program: run fastpaca archive migrate, or start with --archive-migrate")
	// ErrNewerSchema: the schema was made by a newer version of this program.
	ErrNewerSchema = errors.New("the archive's schema is newer than this program: upgrade it")
	// ErrForeignSchema: tables of our names are there, and we did not make them.
	ErrForeignSchema = errors.New("the database has tables of these names that fastpaca did not make: use another database, or another schema with ?search_path=NAME in the URL")
	// ErrForeignCluster: the archive belongs to another cluster.
	ErrForeignCluster = errors.New("the archive belongs to another cluster")
	// ErrRights: the role may not do what the archive needs.
	ErrRights = errors.New("the role lacks rights on the archive")
	// ErrDurability: the server may lose what it has committed.
	ErrDurability = errors.New("the Postgres server runs with fsync=off and may lose what it has committed")
	// ErrReadOnly: the server is a standby or read-only.
	ErrReadOnly = errors.New("the Postgres server is read-only")
	// ErrEncoding: the database cannot hold all of Unicode.
	ErrEncoding = errors.New("the archive needs a database with the encoding UTF8")
)

// ErrInvalidKey: Postgres cannot hold the conversation's key as text.
var ErrInvalidKey = errors.New("the conversation's key is not text that Postgres can hold")

// Divergence names messages of one conversation that the archive holds with
// other content than the hot log.
type Divergence struct {
	Key  rpc.Key
	Seqs []uint64 // ascending, at most maxReportedSeqs
}

// DivergenceError reports that the archive holds other messages at sequences
// that were to be written. Nothing was written and nothing is overwritten.
type DivergenceError struct{ Found []Divergence }

func (e *DivergenceError) Error() string {
	var b strings.Builder
	b.WriteString("the archive holds other content than the hot log")
	for i, d := range e.Found {
		if i == 8 {
			fmt.Fprintf(&b, " and %d more conversations", len(e.Found)-i)
			break
		}
		fmt.Fprintf(&b, "; conversation %q at %d", d.Key, d.Seqs)
	}
	return b.String()
}

// ChainError reports that the hash chain of a run, which continues what the
// archive holds, does not end in the conversation's head: one of the two does
// not hold what was appended. It matches rpc.ErrCorrupt.
type ChainError struct {
	Key rpc.Key
	Seq uint64 // where the run ends
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("conversation %q: the hash chain up to %d does not match the conversation's head", e.Key, e.Seq)
}

// Unwrap returns rpc.ErrCorrupt.
func (e *ChainError) Unwrap() error { return rpc.ErrCorrupt }

// RowError reports that a conversation cannot be archived because of what it
// holds.
type RowError struct {
	Key rpc.Key
	Seq uint64 // of the message, 0 for the conversation itself
	Err error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("conversation %q: message %d: %v", e.Key, e.Seq, e.Err)
}

// Unwrap returns the reason.
func (e *RowError) Unwrap() error { return e.Err }

// unavailable makes an error of Postgres one that readers and the archiver
// understand, with what an operator can do about it.
func unavailable(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, rpc.ErrArchiveUnavailable) {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "42501":
			err = fmt.Errorf("%w: %w", ErrRights, err)
		case "25006":
			err = fmt.Errorf("%w: %w", ErrReadOnly, err)
		case "42P01", "42703", "3F000":
			err = fmt.Errorf("%w: %w", ErrNoSchema, err)
		}
	}
	return fmt.Errorf("archive: %s: %w: %w", op, rpc.ErrArchiveUnavailable, err)
}

// rejectedData reports that Postgres refused a value, not the connection or the
// statement.
func rejectedData(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "54"))
}
