package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// record is the row of one conversation.
type record struct {
	num                   uint64 // stands for the key in all other rows
	version               uint64
	last, first, archived uint64
	// floor: ids and idempotency keys of messages up to here are forgotten.
	floor uint64
	// releases counts the conversation's rows in SpaceIDBySeq. While it is 0
	// nothing is remembered and lookups are skipped.
	releases uint64
	// stored and trimmed add up rowBytes over all messages ever appended, and
	// over those below first.
	stored, trimmed  uint64
	created, updated int64 // Unix microseconds
	head             [32]byte
	tombstoned       bool
	metadata         []byte // a JSON object, never modified in place

	// size is the length of the row as stored, 0 when it is not stored yet.
	// apart is the same for the metadata row.
	size, apart int
}

const (
	recordFormat = 1

	flagTombstoned byte = 1 << 0
	flagApart      byte = 1 << 1
)

var emptyMetadata = []byte("{}")

func (r *record) append(dst []byte) []byte {
	var flags byte
	if r.tombstoned {
		flags |= flagTombstoned
	}
	if len(r.metadata) > inlineMetadataBytes {
		flags |= flagApart
	}
	dst = append(dst, recordFormat, flags)
	for _, v := range r.fields() {
		dst = binary.AppendUvarint(dst, *v)
	}
	dst = binary.AppendUvarint(dst, uint64(r.created))
	dst = binary.AppendUvarint(dst, uint64(r.updated))
	dst = append(dst, r.head[:]...)
	if flags&flagApart == 0 {
		dst = append(dst, r.metadata...)
	}
	return dst
}

func (r *record) fields() [9]*uint64 {
	return [...]*uint64{
		&r.num, &r.version, &r.last, &r.first, &r.archived,
		&r.floor, &r.releases, &r.stored, &r.trimmed,
	}
}

// decodeRecord reads a row; apart reports that the metadata has its own row.
func decodeRecord(row []byte) (r record, apart bool, err error) {
	d := decoder{in: row}
	format, flags := d.byte(), d.byte()
	for _, v := range r.fields() {
		*v = d.uvarint()
	}
	r.created, r.updated = int64(d.uvarint()), int64(d.uvarint())
	r.head = *d.digest()
	if format != recordFormat || flags > flagTombstoned|flagApart || d.bad {
		return record{}, false, fmt.Errorf("conversation row: %w", rpc.ErrCorrupt)
	}
	r.tombstoned = flags&flagTombstoned != 0
	r.size = len(row)
	r.metadata = append([]byte(nil), d.in...)
	return r, flags&flagApart != 0, nil
}

// loadRow reads a conversation; apart reports that its metadata has its own row
// and was not read.
func loadRow(r pebble.Reader, ks keyspace, key string) (rec record, found, apart bool, err error) {
	row, closer, err := r.Get(ks.record(make([]byte, 0, 64), key))
	if errors.Is(err, pebble.ErrNotFound) {
		return record{}, false, false, nil
	}
	if err != nil {
		return record{}, false, false, storageError(err)
	}
	rec, apart, err = decodeRecord(row)
	if closeErr := closer.Close(); err == nil && closeErr != nil {
		err = storageError(closeErr)
	}
	return rec, err == nil, apart, err
}

// loadRecord reads a conversation with its metadata. Of r both must be read at
// the same moment: it is a snapshot, or nothing writes meanwhile.
func loadRecord(r pebble.Reader, ks keyspace, key string) (record, bool, error) {
	rec, found, apart, err := loadRow(r, ks, key)
	if err == nil && apart {
		err = loadMetadata(r, ks, &rec)
	}
	return rec, found && err == nil, err
}

func loadMetadata(r pebble.Reader, ks keyspace, rec *record) error {
	row, found, err := getRow(r, nil, ks.metadata(nil, rec.num))
	if err == nil && !found {
		err = fmt.Errorf("metadata row: %w", rpc.ErrCorrupt)
	}
	rec.metadata, rec.apart = row, len(row)
	return err
}

// conversation is the record as callers see it; they own the result.
func (r *record) conversation(key string) rpc.Conversation {
	return rpc.Conversation{
		Key:         rpc.Key(key),
		Version:     r.version,
		LastSeq:     r.last,
		FirstSeq:    r.first,
		ArchivedSeq: r.archived,
		Tombstoned:  r.tombstoned,
		Metadata:    append([]byte(nil), r.metadata...),
		Head:        r.head,
		CreatedAt:   time.UnixMicro(r.created).UTC(),
		UpdatedAt:   time.UnixMicro(r.updated).UTC(),
	}
}
