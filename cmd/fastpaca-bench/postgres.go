package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// postgresOptions are what anyone would set on a server of this size.
// Durability stays at its defaults, and is checked: every commit is on disk
// before it is answered.
var postgresOptions = []string{
	"-c", "listen_addresses=",
	"-c", "max_connections=100",
	"-c", "shared_buffers=512MB",
	"-c", "max_wal_size=4GB",
}

// schema is the same data: a row per conversation, a row per message. The
// conversation's row is updated by every append, so it gets room to be updated
// in place.
const schema = `
create table conversations (
	id text primary key, version bigint not null default 0, last_seq bigint not null default 0,
	updated_at timestamptz not null default now()
) with (fillfactor = 50);
create table messages (
	conversation_id text not null, seq bigint not null, role text not null, parts json not null,
	metadata json not null default '{}', token_count bigint not null, inserted_at timestamptz not null default now(),
	primary key (conversation_id, seq)
);`

// appendStatement is one round trip and one commit.
const appendStatement = `
with c as (
	update conversations set last_seq = last_seq + 1, version = version + 1, updated_at = now()
	where id = $1 returning last_seq
)
insert into messages (conversation_id, seq, role, parts, token_count)
select $1, last_seq, 'user', $2::json, $3 from c returning seq`

// postgres is a PostgreSQL server in a directory of its own.
type postgres struct {
	server  *process.Server
	connURL string
}

// freshPostgres makes a cluster in a new directory and starts it.
func (b *bench) freshPostgres(ctx context.Context) (*postgres, error) {
	initdb, err := process.FindPostgres("initdb")
	if err != nil {
		return nil, err
	}
	program, err := process.FindPostgres("postgres")
	if err != nil {
		return nil, err
	}
	credential, err := process.PostgresUser()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "postgres-")
	if err != nil {
		return nil, err
	}
	if credential != nil {
		if err := os.Chown(dir, int(credential.Uid), int(credential.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(ctx, initdb, "--pgdata", data, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	server, err := process.Start(process.Config{
		Command:    append([]string{program, "-D", data, "-k", dir}, postgresOptions...),
		Credential: credential,
	})
	if err != nil {
		return nil, err
	}
	p := &postgres{server: server, connURL: fmt.Sprintf("host=%s user=postgres dbname=postgres", dir)}
	if err := p.await(ctx); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// await returns once the server answers, with the schema made and durability
// as promised.
func (p *postgres) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, p.connURL)
		if err == nil {
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			return p.setUp(ctx, conn)
		}
		select {
		case <-p.server.Exited():
			return fmt.Errorf("PostgreSQL exited:\n%s", p.server.Output())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, p.server.Output())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *postgres) setUp(ctx context.Context, conn *pgx.Conn) error {
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		var value string
		if err := conn.QueryRow(ctx, "show "+setting).Scan(&value); err != nil {
			return err
		}
		if value != "on" {
			return fmt.Errorf("PostgreSQL runs with %s=%s", setting, value)
		}
	}
	_, err := conn.Exec(ctx, schema)
	return err
}

func (p *postgres) name() string { return "PostgreSQL" }
func (p *postgres) roots() []int { return []int{p.server.PID()} }

// stop asks for the fast shutdown, which takes the backends along.
func (p *postgres) stop() {
	_ = p.server.Signal(syscall.SIGINT)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := p.server.Wait(ctx); err != nil {
		_ = p.server.Signal(syscall.SIGQUIT)
	}
	p.server.Kill()
}

func (p *postgres) prepare(ctx context.Context, conversations []string) error {
	conn, err := pgx.Connect(ctx, p.connURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "insert into conversations (id) select unnest($1::text[])", conversations)
	return err
}

func (p *postgres) connect(ctx context.Context) (writer, error) {
	conn, err := pgx.Connect(ctx, p.connURL)
	if err != nil {
		return nil, err
	}
	return &sqlWriter{conn: conn}, nil
}

type sqlWriter struct {
	conn  *pgx.Conn
	parts []byte
}

func (s *sqlWriter) close() { _ = s.conn.Close(context.Background()) }

func (s *sqlWriter) write(ctx context.Context, conversation string, text []byte) error {
	s.parts = appendParts(s.parts[:0], text)
	var seq int64
	return s.conn.QueryRow(ctx, appendStatement, conversation, string(s.parts), len(text)/4).Scan(&seq)
}
