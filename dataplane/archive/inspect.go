package archive

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Row is a message as the archive holds it, unchecked.
type Row struct {
	Seq     uint64
	Version uint64
	Hash    [32]byte
	JSON    []byte
}

const rowsStatement = `SELECT seq, version, hash, body FROM messages
WHERE conversation_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq`

// Rows reads what is there between two sequences, holes and all: it is for those
// who check the archive, not for those who believe it.
func (s *Store) Rows(ctx context.Context, key rpc.Key, low, high uint64) ([]Row, error) {
	var out []Row
	err := s.read(ctx, "read rows", func(ctx context.Context, c *pgxpool.Conn) error {
		found, err := c.Query(ctx, rowsStatement, string(key), int64(low), int64(high))
		if err != nil {
			return err
		}
		var row stored
		_, err = pgx.ForEachRow(found, []any{&row.seq, &row.version, &row.hash, &row.body}, func() error {
			r := Row{Seq: uint64(row.seq), Version: uint64(row.version), JSON: append([]byte(nil), row.body...)}
			copy(r.Hash[:], row.hash)
			out = append(out, r)
			return nil
		})
		return err
	})
	return out, err
}

// Totals are what the archive holds altogether.
type Totals struct {
	Conversations int64
	Messages      int64 // as Postgres estimates it
	Bytes         int64 // on disk, indexes included
}

const totalsStatement = `
SELECT (SELECT count(*) FROM conversations),
       coalesce(sum(greatest(c.reltuples, 0))::bigint, 0), coalesce(sum(pg_total_relation_size(c.oid))::bigint, 0)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'messages'::regclass`

// Totals returns what the archive holds.
func (s *Store) Totals(ctx context.Context) (t Totals, err error) {
	err = s.read(ctx, "read totals", func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, totalsStatement).Scan(&t.Conversations, &t.Messages, &t.Bytes)
	})
	return t, err
}
