package archive

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// maxReportedSeqs bounds the sequences that a Divergence names.
const maxReportedSeqs = 16

// Run is a stretch of one conversation on its way into the archive.
type Run struct {
	// Conversation as the group knew it when, or after, Messages were read.
	Conversation rpc.Conversation
	// Messages without holes. With none, only the conversation is written.
	Messages []rpc.Message
	// Previous is the hash of the message before the first, zero for none.
	Previous [32]byte
}

// Write stores runs of different conversations, in ascending order of their
// keys, in one transaction, and returns once they are durable. What is there
// already with the same content stays as it is; with other content Write
// returns a *DivergenceError and stores nothing. heads are the hashes at the end
// of each run, to be the Previous of the next.
func (s *Store) Write(ctx context.Context, runs []Run) (heads [][32]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	rows, heads, err := newRows(runs)
	if err != nil {
		return nil, err
	}
	err = s.write(ctx, rows)
	if rejectedData(err) {
		// A value that passed cleanJSON: find it, and archive its JSON only.
		if err = s.isolate(ctx, rows); err == nil {
			err = s.write(ctx, rows)
		}
	}
	var diverged *DivergenceError
	if err != nil && !errors.As(err, &diverged) {
		err = unavailable("write", err)
	}
	return heads, err
}

// rows are the parameters of one transaction, column by column.
type rows struct {
	ids        []string
	seqs       []int64
	versions   []int64
	messageIDs []*string
	roles      []string
	parts      [][]byte // JSON, nil for null
	metadata   [][]byte
	tokens     []int64
	inserted   []time.Time
	exact      []bool
	hashes     [][]byte
	bodies     [][]byte

	conversations conversationRows
}

type conversationRows struct {
	ids         []string
	metadata    [][]byte
	metadataRaw [][]byte
	tombstoned  []bool
	versions    []int64
	last        []int64
	archived    []int64
	heads       [][]byte
	created     []time.Time
	updated     []time.Time
}

func newRows(runs []Run) (*rows, [][32]byte, error) {
	n := 0
	for i := range runs {
		n += len(runs[i].Messages)
	}
	r := &rows{
		ids: make([]string, 0, n), seqs: make([]int64, 0, n), versions: make([]int64, 0, n),
		messageIDs: make([]*string, 0, n), roles: make([]string, 0, n), parts: make([][]byte, 0, n),
		metadata: make([][]byte, 0, n), tokens: make([]int64, 0, n), inserted: make([]time.Time, 0, n),
		exact: make([]bool, 0, n), hashes: make([][]byte, 0, n), bodies: make([][]byte, 0, n),
	}
	hashes := make([][32]byte, n)
	heads := make([][32]byte, len(runs))
	for i := range runs {
		run := &runs[i]
		if !ValidKey(run.Conversation.Key) {
			return nil, nil, &RowError{Key: run.Conversation.Key, Err: ErrInvalidKey}
		}
		hash := run.Previous
		archived := run.Conversation.ArchivedSeq
		for j := range run.Messages {
			m := &run.Messages[j]
			hash = state.Chain(hash, m.Seq, m.JSON)
			hashes[len(r.ids)] = hash
			if err := r.add(string(run.Conversation.Key), m, hashes[len(r.ids)][:]); err != nil {
				return nil, nil, &RowError{Key: run.Conversation.Key, Seq: m.Seq, Err: fmt.Errorf("%w: %w", rpc.ErrCorrupt, err)}
			}
			archived = m.Seq
		}
		heads[i] = hash
		if len(run.Messages) > 0 && archived == run.Conversation.LastSeq && run.Conversation.Head != ([32]byte{}) && hash != run.Conversation.Head {
			return nil, nil, &ChainError{Key: run.Conversation.Key, Seq: archived}
		}
		r.conversations.add(&run.Conversation, archived, heads[i][:])
	}
	return r, heads, nil
}

func (r *rows) add(id string, m *rpc.Message, hash []byte) error {
	c, err := parseColumns(m.JSON)
	if err != nil {
		return err
	}
	var messageID *string
	if c.id != "" {
		id := c.id // so that the rest of c stays on the stack
		messageID = &id
	}
	r.ids = append(r.ids, id)
	r.seqs = append(r.seqs, int64(m.Seq))
	r.versions = append(r.versions, int64(min(m.Version, math.MaxInt64)))
	r.messageIDs = append(r.messageIDs, messageID)
	r.roles = append(r.roles, c.role)
	r.parts = append(r.parts, c.parts)
	r.metadata = append(r.metadata, c.metadata)
	r.tokens = append(r.tokens, c.tokens)
	r.inserted = append(r.inserted, c.inserted)
	r.exact = append(r.exact, c.exact)
	r.hashes = append(r.hashes, hash)
	r.bodies = append(r.bodies, m.JSON)
	return nil
}

func (r *conversationRows) add(c *rpc.Conversation, archived uint64, head []byte) {
	clean, _ := cleanJSON(c.Metadata)
	r.ids = append(r.ids, string(c.Key))
	r.metadata = append(r.metadata, clean)
	r.metadataRaw = append(r.metadataRaw, append([]byte{}, c.Metadata...))
	r.tombstoned = append(r.tombstoned, c.Tombstoned)
	r.versions = append(r.versions, int64(c.Version))
	r.last = append(r.last, int64(c.LastSeq))
	r.archived = append(r.archived, int64(archived))
	r.heads = append(r.heads, head)
	r.created = append(r.created, c.CreatedAt)
	r.updated = append(r.updated, c.UpdatedAt)
}

const (
	// settings makes the commit durable on servers whose default it is not, and
	// bounds how long a paused client can hold locks.
	settings = `SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
		ELSE current_setting('synchronous_commit') END, true), set_config('idle_in_transaction_session_timeout', $1, true)`

	insertMessages = `
INSERT INTO messages (conversation_id, seq, version, message_id, role, parts, metadata, token_count, inserted_at, exact, hash, body)
SELECT id, seq, version, message_id, role, parts::jsonb, metadata::jsonb, token_count, inserted_at, exact, hash, body
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
            $9::timestamptz[], $10::boolean[], $11::bytea[], $12::bytea[])
     AS r(id, seq, version, message_id, role, parts, metadata, token_count, inserted_at, exact, hash, body)
ON CONFLICT (conversation_id, seq) DO NOTHING`

	// findDivergences compares what is there with what was to be written.
	findDivergences = `
SELECT r.id, r.seq FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[]) AS r(id, seq, hash, body)
LEFT JOIN messages m ON m.conversation_id = r.id AND m.seq = r.seq
WHERE m.hash IS DISTINCT FROM r.hash OR m.body IS DISTINCT FROM r.body ORDER BY r.id, r.seq`

	// upsertConversations never goes back: a holder that was paused may come
	// after its successor.
	upsertConversations = `
INSERT INTO conversations AS c (id, metadata, metadata_raw, tombstoned, version, last_seq, archived_seq, head, created_at, updated_at)
SELECT id, metadata::jsonb, metadata_raw, tombstoned, version, last_seq, archived_seq, head, created_at, updated_at
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::boolean[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[],
            $9::timestamptz[], $10::timestamptz[])
     AS r(id, metadata, metadata_raw, tombstoned, version, last_seq, archived_seq, head, created_at, updated_at)
ON CONFLICT (id) DO UPDATE SET
    metadata     = CASE WHEN excluded.updated_at >= c.updated_at THEN excluded.metadata ELSE c.metadata END,
    metadata_raw = CASE WHEN excluded.updated_at >= c.updated_at THEN excluded.metadata_raw ELSE c.metadata_raw END,
    tombstoned   = c.tombstoned OR excluded.tombstoned,
    version      = greatest(c.version, excluded.version),
    last_seq     = greatest(c.last_seq, excluded.last_seq),
    archived_seq = greatest(c.archived_seq, excluded.archived_seq),
    head         = CASE WHEN excluded.archived_seq > c.archived_seq THEN excluded.head ELSE c.head END,
    updated_at   = greatest(c.updated_at, excluded.updated_at)`
)

// write stores the rows in one transaction of two round trips.
func (s *Store) write(ctx context.Context, r *rows) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // does nothing after a commit
	batch := &pgx.Batch{}
	batch.Queue(settings, fmt.Sprintf("%dms", idleInTransaction.Milliseconds()))
	if len(r.ids) > 0 {
		batch.Queue(insertMessages, r.ids, r.seqs, r.versions, r.messageIDs, r.roles, r.parts, r.metadata,
			r.tokens, r.inserted, r.exact, r.hashes, r.bodies)
	}
	results := tx.SendBatch(ctx, batch)
	_, err = results.Exec()
	inserted := int64(0)
	if err == nil && len(r.ids) > 0 {
		tag, insertErr := results.Exec()
		inserted, err = tag.RowsAffected(), insertErr
	}
	if err = errors.Join(err, results.Close()); err != nil {
		return err
	}
	if inserted < int64(len(r.ids)) {
		if err := r.compare(ctx, tx); err != nil {
			return err
		}
	}
	c := &r.conversations
	if _, err := tx.Exec(ctx, upsertConversations, c.ids, c.metadata, c.metadataRaw, c.tombstoned, c.versions, c.last,
		c.archived, c.heads, c.created, c.updated); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// compare returns a DivergenceError unless the transaction sees every row as it
// was to be written.
func (r *rows) compare(ctx context.Context, tx pgx.Tx) error {
	found, err := tx.Query(ctx, findDivergences, r.ids, r.seqs, r.hashes, r.bodies)
	if err != nil {
		return err
	}
	var diverged DivergenceError
	var id string
	var seq int64
	_, err = pgx.ForEachRow(found, []any{&id, &seq}, func() error {
		n := len(diverged.Found)
		if n == 0 || string(diverged.Found[n-1].Key) != id {
			diverged.Found = append(diverged.Found, Divergence{Key: rpc.Key(id)})
			n++
		}
		if d := &diverged.Found[n-1]; len(d.Seqs) < maxReportedSeqs {
			d.Seqs = append(d.Seqs, uint64(seq))
		}
		return nil
	})
	if err == nil && len(diverged.Found) > 0 {
		return &diverged
	}
	return err
}

// isolate finds the values that Postgres does not take as jsonb and leaves them
// out of their columns; the messages' JSON is not touched.
func (s *Store) isolate(ctx context.Context, r *rows) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	empty := func(column [][]byte) ([]int, error) {
		bad, err := refused(ctx, conn.Conn(), column, 0)
		for _, i := range bad {
			column[i] = nil
		}
		return bad, err
	}
	for _, column := range [][][]byte{r.parts, r.metadata} {
		bad, err := empty(column)
		if err != nil {
			return err
		}
		for _, i := range bad {
			r.exact[i] = false
		}
	}
	_, err = empty(r.conversations.metadata)
	return err
}

// refused returns which of the values cannot become jsonb, by halving.
func refused(ctx context.Context, c *pgx.Conn, values [][]byte, offset int) ([]int, error) {
	_, err := c.Exec(ctx, "SELECT count(v::jsonb) FROM unnest($1::text[]) v", values)
	switch {
	case err == nil:
		return nil, nil
	case !rejectedData(err):
		return nil, err
	case len(values) == 1:
		return []int{offset}, nil
	}
	half := len(values) / 2
	low, err := refused(ctx, c, values[:half], offset)
	if err != nil {
		return nil, err
	}
	high, err := refused(ctx, c, values[half:], offset+half)
	return append(low, high...), err
}
