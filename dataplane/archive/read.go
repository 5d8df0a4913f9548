package archive

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Want asks what the archive holds of one conversation.
type Want struct {
	Key rpc.Key
	Seq uint64 // whose hash is wanted
}

// Held is what the archive holds of one conversation.
type Held struct {
	Exists      bool // the conversation has a row; the rest is zero without
	ArchivedSeq uint64
	Tombstoned  bool
	UpdatedAt   time.Time
	// Hash of the wanted message; HasHash tells whether it is there. Sequence 0
	// has the zero hash.
	Hash    [32]byte
	HasHash bool
}

const heldStatement = `
SELECT c.archived_seq, c.tombstoned, c.updated_at,
       CASE WHEN c.archived_seq = w.seq THEN c.head
            ELSE (SELECT m.hash FROM messages m WHERE m.conversation_id = w.id AND m.seq = w.seq) END
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS w(id, seq, place)
LEFT JOIN conversations c ON c.id = w.id ORDER BY w.place`

// Held answers for each want, in order.
func (s *Store) Held(ctx context.Context, wants []Want) ([]Held, error) {
	ids, seqs := make([]string, len(wants)), make([]int64, len(wants))
	for i, w := range wants {
		if !ValidKey(w.Key) {
			return nil, fmt.Errorf("archive: conversation %q: %w", w.Key, ErrInvalidKey)
		}
		ids[i], seqs[i] = string(w.Key), int64(w.Seq)
	}
	held := make([]Held, 0, len(wants))
	err := s.read(ctx, "look up conversations", func(ctx context.Context, c *pgxpool.Conn) error {
		found, err := c.Query(ctx, heldStatement, ids, seqs)
		if err != nil {
			return err
		}
		var archived *int64
		var tombstoned *bool
		var updated *time.Time
		var hash []byte
		_, err = pgx.ForEachRow(found, []any{&archived, &tombstoned, &updated, &hash}, func() error {
			var h Held
			if archived != nil {
				h = Held{Exists: true, ArchivedSeq: uint64(*archived), Tombstoned: *tombstoned, UpdatedAt: updated.UTC()}
			}
			h.HasHash = seqs[len(held)] == 0 || copy(h.Hash[:], hash) == len(h.Hash)
			held = append(held, h)
			return nil
		})
		return err
	})
	return held, err
}

// Range is a stretch of one conversation.
type Range struct {
	Key       rpc.Key
	Low, High uint64
	MaxBytes  int // of JSON; at least one message is returned
	// Newest tells which end counts when bytes run out.
	Newest bool
}

const rangeStatement = `
SELECT seq, version, hash, body FROM (
    SELECT seq, version, hash, body,
           coalesce(sum(CASE WHEN seq >= $2 THEN octet_length(body) ELSE 0 END)
                    OVER (ORDER BY seq %s ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
    FROM messages WHERE conversation_id = $1 AND seq BETWEEN $2 - 1 AND $3
) r WHERE before < $4 ORDER BY seq`

var (
	forwardStatement  = fmt.Sprintf(rangeStatement, "ASC")
	backwardStatement = fmt.Sprintf(rangeStatement, "DESC")
)

// Messages reads a range in ascending order, after checking that it has no hole
// and that each message's hash continues that of the one before. What does not
// is rpc.ErrCorrupt. A range that begins below what the archive holds, because
// somebody deleted the oldest, is a *rpc.CursorExpiredError with the lowest
// sequence held, High+1 when none of the range is.
func (s *Store) Messages(ctx context.Context, r Range) ([]rpc.Message, error) {
	if !ValidKey(r.Key) {
		return nil, fmt.Errorf("archive: conversation %q: %w", r.Key, ErrInvalidKey)
	}
	statement := forwardStatement
	if r.Newest {
		statement = backwardStatement
	}
	var messages []rpc.Message
	err := s.read(ctx, "read messages", func(ctx context.Context, c *pgxpool.Conn) error {
		found, err := c.Query(ctx, statement, string(r.Key), int64(r.Low), int64(r.High), int64(r.MaxBytes))
		if err != nil {
			return err
		}
		chain := verifier{r: &r}
		var row stored
		if _, err = pgx.ForEachRow(found, []any{&row.seq, &row.version, &row.hash, &row.body}, func() error {
			return chain.add(&row)
		}); err != nil {
			return err
		}
		messages, err = chain.result()
		return err
	})
	return messages, err
}

type stored struct {
	seq, version int64
	hash, body   []byte
}

// verifier gathers rows in ascending order and checks that they form a chain.
type verifier struct {
	r        *Range
	messages []rpc.Message
	previous [32]byte
	anchored bool // previous is the hash before the next row
	last     uint64
	bytes    int
}

func (v *verifier) add(row *stored) error {
	seq := uint64(row.seq)
	if len(row.hash) != len(v.previous) {
		return v.corrupt(seq, "has no hash")
	}
	switch {
	case v.last != 0 && seq != v.last+1:
		return v.corrupt(v.last+1, "is missing")
	case seq == 1 && v.last == 0:
		v.anchored = true
	}
	if v.anchored && state.Chain(v.previous, seq, row.body) != [32]byte(row.hash) {
		return v.corrupt(seq, "does not have the content that was archived")
	}
	v.previous, v.anchored, v.last = [32]byte(row.hash), true, seq
	if seq >= v.r.Low {
		v.bytes += len(row.body)
		v.messages = append(v.messages, rpc.Message{Seq: seq, Version: uint64(row.version), JSON: slices.Clone(row.body)})
	}
	return nil
}

func (v *verifier) corrupt(seq uint64, what string) error {
	return fmt.Errorf("archive: conversation %q: message %d %s: %w", v.r.Key, seq, what, rpc.ErrCorrupt)
}

// result checks the ends of the range and trims it to its bytes.
func (v *verifier) result() ([]rpc.Message, error) {
	n := len(v.messages)
	switch {
	case n == 0 || !v.r.Newest && v.messages[0].Seq > v.r.Low:
		earliest := v.r.High + 1
		if n > 0 {
			earliest = v.messages[0].Seq
		}
		return nil, &rpc.CursorExpiredError{Earliest: earliest}
	case v.messages[n-1].Seq != v.r.High && (v.r.Newest || v.bytes < v.r.MaxBytes):
		return nil, v.corrupt(v.messages[n-1].Seq+1, "is missing")
	}
	return fit(v.messages, v.r.MaxBytes, v.r.Newest), nil
}

// fit leaves away what is beyond maxBytes, but not all.
func fit(messages []rpc.Message, maxBytes int, newest bool) []rpc.Message {
	bytes := 0
	if newest {
		for i := len(messages) - 1; i >= 0; i-- {
			if bytes += len(messages[i].JSON); bytes > maxBytes && i < len(messages)-1 {
				return messages[i+1:]
			}
		}
		return messages
	}
	for i := range messages {
		if bytes += len(messages[i].JSON); bytes > maxBytes && i > 0 {
			return messages[:i]
		}
	}
	return messages
}

const earliestStatement = `SELECT seq FROM messages WHERE conversation_id = $1 ORDER BY seq LIMIT 1`

// Earliest returns the lowest sequence held of a conversation, 0 when there is
// none.
func (s *Store) Earliest(ctx context.Context, key rpc.Key) (seq uint64, err error) {
	if !ValidKey(key) {
		return 0, fmt.Errorf("archive: conversation %q: %w", key, ErrInvalidKey)
	}
	err = s.read(ctx, "find the earliest message", func(ctx context.Context, c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, earliestStatement, string(key))
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if len(found) > 0 {
			seq = uint64(found[0])
		}
		return err
	})
	return seq, err
}
