package archive

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// migrateTimeout bounds making or upgrading the schema, waiting for another
// node that does so included.
const migrateTimeout = 10 * time.Minute

// migrationLock is the advisory lock that lets one node migrate at a time. The
// number is arbitrary and never changes.
const migrationLock = 0x66617374_70616361

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations are the statements that lead to version 1, 2, … in order. A
// released one never changes.
var migrations = loadMigrations()

type migration struct{ name, sql string }

func loadMigrations() []migration {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	var all []migration
	for _, name := range names { // sorted by fs.Glob
		sql, err := migrationFiles.ReadFile(name)
		if err != nil {
			panic(err) // it was listed, and is part of the program
		}
		all = append(all, migration{strings.TrimSuffix(strings.TrimPrefix(name, "migrations/"), ".sql"), string(sql)})
	}
	return all
}

const bookkeeping = `
CREATE TABLE fastpaca_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE fastpaca_archive (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster_id text        NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now()
);`

// Migrate makes the schema or brings it to this program's version, and returns
// the names of the migrations that it applied. Nodes that call it at the same
// time wait for each other. All of it happens, or nothing.
func (s *Store) Migrate(ctx context.Context) (applied []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	err = s.direct(ctx, func(c *pgx.Conn) error {
		applied, err = migrate(ctx, c)
		return err
	})
	return applied, unavailable("migrate", err)
}

func migrate(ctx context.Context, c *pgx.Conn) (applied []string, err error) {
	found, err := readSchema(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := found.usable(); !errors.Is(err, ErrNoSchema) && !errors.Is(err, ErrOlderSchema) {
		return nil, err
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // does nothing after a commit
	// Another schema of the same database may be migrated meanwhile.
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1 # hashtext(current_schema())::bigint)", int64(migrationLock)); err != nil {
		return nil, err
	}
	if found, err = readSchema(ctx, c); err != nil { // another node may have been faster
		return nil, err
	}
	if err := found.usable(); !errors.Is(err, ErrNoSchema) && !errors.Is(err, ErrOlderSchema) {
		return nil, err
	}
	if found.Name == "" {
		return nil, fmt.Errorf("%w: no schema of the search_path exists, or may be used", ErrRights)
	}
	if found.Version == 0 {
		if _, err := tx.Exec(ctx, bookkeeping); err != nil {
			return nil, fmt.Errorf("make the schema: %w", err)
		}
	}
	for i, m := range migrations {
		if i < found.Version {
			continue
		}
		if _, err := tx.Exec(ctx, m.sql); err != nil {
			return nil, fmt.Errorf("migration %s: %w", m.name, err)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO fastpaca_migrations (version, name) VALUES ($1, $2)", i+1, m.name); err != nil {
			return nil, fmt.Errorf("migration %s: %w", m.name, err)
		}
		applied = append(applied, m.name)
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("commit the migration: %w", err)
	}
	return applied, nil
}
