package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Bounds of a store.
const (
	// DefaultConns is how many connections a node opens at most: two that
	// write, the rest for reads.
	DefaultConns = 6
	// connectTimeout bounds one attempt to connect, unless the URL says.
	connectTimeout = 5 * time.Second
	// writeTimeout bounds one transaction that writes, readTimeout one that
	// reads, waiting for a connection included.
	writeTimeout = 30 * time.Second
	readTimeout  = 10 * time.Second
	// idleInTransaction lets the server end a transaction whose client has been
	// paused between two statements, so that it does not hold up the next
	// holder of the lease.
	idleInTransaction = 10 * time.Second
)

// Config is what a store is opened with.
type Config struct {
	// URL is a Postgres connection URL or a list of keywords and values, with
	// everything libpq's have. It may hold a password and is never logged.
	URL string
	// Conns bounds the connections; 0 is DefaultConns.
	Conns int
	// Migrate lets Prepare make or upgrade the schema.
	Migrate bool
	Logger  *slog.Logger
}

// Store is an archive in a Postgres database. It is safe for concurrent use.
// Opening it does not connect: a database that is down keeps nobody from
// starting. Every connection is checked against the schema and the cluster
// before it is used.
type Store struct {
	conf Config
	conn *pgx.ConnConfig
	pool *pgxpool.Pool
	log  *slog.Logger

	mu      sync.Mutex // guards cluster
	cluster string     // the cluster that every connection must belong to, "" before Prepare
}

// ErrURL reports a connection URL that can never work.
var ErrURL = errors.New("archive URL")

// Open parses the URL and returns the store. It wraps ErrURL.
func Open(conf Config) (*Store, error) {
	pool, err := pgxpool.ParseConfig(conf.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err) // pgx leaves passwords out
	}
	if conf.Conns <= 0 {
		conf.Conns = DefaultConns
	}
	pool.MaxConns = int32(conf.Conns)
	pool.MinConns = 0
	if pool.ConnConfig.ConnectTimeout == 0 {
		pool.ConnConfig.ConnectTimeout = connectTimeout
	}
	if pool.ConnConfig.RuntimeParams["application_name"] == "" {
		pool.ConnConfig.RuntimeParams["application_name"] = "fastpaca"
	}
	s := &Store{conf: conf, conn: pool.ConnConfig.Copy(), log: conf.Logger}
	pool.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := s.inspect(ctx, c)
		return err
	}
	if s.pool, err = pgxpool.NewWithConfig(context.Background(), pool); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return s, nil
}

// Close ends all connections and waits for those in use.
func (s *Store) Close() { s.pool.Close() }

// Target names the database without its password.
func (s *Store) Target() string {
	return fmt.Sprintf("%s:%d/%s", s.conn.Host, s.conn.Port, s.conn.Database)
}

// Prepare connects, makes or upgrades the schema if that is allowed, and makes
// the archive the cluster's: the first cluster to come owns it. It is called
// again until it succeeds; until then nothing is written. Reads need it only
// in that it may make the schema.
func (s *Store) Prepare(ctx context.Context, clusterID string) error {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	err := s.direct(ctx, func(c *pgx.Conn) error {
		if s.conf.Migrate {
			if _, err := migrate(ctx, c); err != nil {
				return err
			}
		}
		return claim(ctx, c, clusterID)
	})
	if err != nil {
		return unavailable("prepare", err)
	}
	s.mu.Lock()
	s.cluster = clusterID
	s.mu.Unlock()
	s.pool.Reset() // connections that were checked against less
	return nil
}

// direct runs f on a connection of its own that was not checked.
func (s *Store) direct(ctx context.Context, f func(*pgx.Conn) error) error {
	c, err := pgx.ConnectConfig(ctx, s.conn.Copy())
	if err != nil {
		return err
	}
	err = f(c)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(err, c.Close(closing))
}

// claim makes the archive that of the cluster, or says whose it is. Servers
// that may lose commits, or cannot be written, are refused.
func claim(ctx context.Context, c *pgx.Conn, clusterID string) error {
	found, err := inspectSchema(ctx, c)
	if err != nil {
		return err
	}
	if err := found.writable(); err != nil {
		return err
	}
	if clusterID == "" || found.Cluster == clusterID {
		return found.owned(clusterID)
	}
	if found.Cluster == "" {
		err := c.QueryRow(ctx, `INSERT INTO fastpaca_archive (cluster_id) VALUES ($1)
			ON CONFLICT (only_row) DO UPDATE SET only_row = true RETURNING cluster_id`, clusterID).Scan(&found.Cluster)
		if err != nil {
			return fmt.Errorf("claim the archive for cluster %s: %w", clusterID, err)
		}
	}
	return found.owned(clusterID)
}

// inspect refuses a connection to anything but this cluster's archive.
func (s *Store) inspect(ctx context.Context, c *pgx.Conn) (*Schema, error) {
	found, err := inspectSchema(ctx, c)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	cluster := s.cluster
	s.mu.Unlock()
	return found, found.owned(cluster)
}

// Ping checks that the archive answers and can be read.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return unavailable("ping", s.pool.Ping(ctx))
}

// read runs f on a checked connection within the bound of a read.
func (s *Store) read(ctx context.Context, op string, f func(context.Context, *pgxpool.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return unavailable(op, err)
	}
	defer c.Release()
	err = f(ctx, c)
	if err == nil || errors.Is(err, rpc.ErrCorrupt) {
		return err
	}
	var expired *rpc.CursorExpiredError
	if errors.As(err, &expired) {
		return err
	}
	return unavailable(op, err)
}
