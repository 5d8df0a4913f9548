package archive

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Schema is what a database says of the archive in it.
type Schema struct {
	Name     string // of the Postgres schema that holds the tables
	Version  int    // of the newest migration, 0 when there is none
	Cluster  string // id of the cluster that the archive belongs to, or ""
	foreign  bool
	fsync    string
	readOnly bool
	encoding string
	user     string
	rights   bool
}

// SchemaVersion is the version that this program needs.
func SchemaVersion() int { return len(migrations) }

const inspectStatement = `
SELECT coalesce(current_schema(), ''),
       to_regclass('fastpaca_migrations') IS NOT NULL AND has_table_privilege('fastpaca_migrations', 'SELECT'),
       to_regclass('fastpaca_migrations') IS NULL
           AND (to_regclass('messages') IS NOT NULL OR to_regclass('conversations') IS NOT NULL),
       current_setting('fsync'),
       pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean,
       current_setting('server_encoding'), current_user`

const versionStatement = `
SELECT coalesce((SELECT max(version) FROM fastpaca_migrations), 0),
       coalesce((SELECT cluster_id FROM fastpaca_archive), ''),
       coalesce(has_table_privilege(to_regclass('messages'), 'SELECT')
           AND has_table_privilege(to_regclass('conversations'), 'SELECT'), false)`

// inspectSchema reads what is there, and refuses a schema that this program
// cannot use.
func inspectSchema(ctx context.Context, c *pgx.Conn) (*Schema, error) {
	found, err := readSchema(ctx, c)
	if err != nil {
		return nil, err
	}
	return found, found.usable()
}

func readSchema(ctx context.Context, c *pgx.Conn) (*Schema, error) {
	var s Schema
	var ours bool
	err := c.QueryRow(ctx, inspectStatement).Scan(&s.Name, &ours, &s.foreign, &s.fsync, &s.readOnly, &s.encoding, &s.user)
	if err != nil {
		return nil, fmt.Errorf("inspect the schema: %w", err)
	}
	if !ours {
		return &s, nil
	}
	if err := c.QueryRow(ctx, versionStatement).Scan(&s.Version, &s.Cluster, &s.rights); err != nil {
		return nil, fmt.Errorf("read the schema's version: %w", err)
	}
	return &s, nil
}

// usable says why the schema cannot be used, or nil.
func (s *Schema) usable() error {
	switch want := SchemaVersion(); {
	case s.encoding != "UTF8":
		return fmt.Errorf("%w, this one has %s", ErrEncoding, s.encoding)
	case s.foreign:
		return fmt.Errorf("schema %q: %w", s.Name, ErrForeignSchema)
	case s.Version == 0:
		return fmt.Errorf("schema %q: %w", s.Name, ErrNoSchema)
	case s.Version < want:
		return fmt.Errorf("%w (version %d, want %d)", ErrOlderSchema, s.Version, want)
	case s.Version > want:
		return fmt.Errorf("%w (version %d, want %d)", ErrNewerSchema, s.Version, want)
	case !s.rights:
		return fmt.Errorf("%w: %s may not read conversations and messages", ErrRights, s.user)
	}
	return nil
}

// owned says why the archive is not the cluster's, or nil.
func (s *Schema) owned(cluster string) error {
	if cluster != "" && s.Cluster != cluster {
		return fmt.Errorf("%w: it is that of %q, and this is %q", ErrForeignCluster, s.Cluster, cluster)
	}
	return nil
}

// writable says why nothing should be written there, or nil.
func (s *Schema) writable() error {
	switch {
	case s.readOnly:
		return ErrReadOnly
	case s.fsync != "on":
		return ErrDurability
	}
	return nil
}

// Schema reads what the database holds, whatever its version. It needs no
// earlier Prepare.
func (s *Store) Schema(ctx context.Context) (*Schema, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var found *Schema
	err := s.direct(ctx, func(c *pgx.Conn) (err error) {
		found, err = readSchema(ctx, c)
		return err
	})
	return found, unavailable("schema", err)
}

// Usable says why this program cannot use the schema, or nil.
func (s *Schema) Usable() error { return s.usable() }
