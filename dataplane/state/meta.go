package state

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// meta is the one row that says how far a group has applied and what its data
// amounts to. Every batch of Apply rewrites it.
type meta struct {
	generation       uint32
	applied, term    uint64 // the newest applied entry
	nextConversation uint64 // number of the conversation created last
	epoch            uint64 // highest archiver lease epoch seen
	conversations    uint64
	messages         uint64 // in the hot log
	rows, bytes      uint64 // of the snapshot stream, see rowBytes
	// restoring: a restore has begun and not ended. It makes the row one of
	// another format, which a build that knows no restores refuses.
	restoring bool
}

const (
	metaFormat      = 1
	restoringFormat = 2 // the same, while restoring
	metaBytes       = 1 + 4 + 8*8
	// maxConfigurationBytes bounds what a snapshot stream may announce.
	maxConfigurationBytes = 1 << 20
)

func (m *meta) append(dst []byte) []byte {
	format := byte(metaFormat)
	if m.restoring {
		format = restoringFormat
	}
	dst = append(dst, format)
	dst = binary.BigEndian.AppendUint32(dst, m.generation)
	for _, v := range m.fields() {
		dst = binary.BigEndian.AppendUint64(dst, *v)
	}
	return dst
}

func (m *meta) fields() [8]*uint64 {
	return [...]*uint64{
		&m.applied, &m.term, &m.nextConversation, &m.epoch,
		&m.conversations, &m.messages, &m.rows, &m.bytes,
	}
}

func decodeMeta(b []byte) (meta, error) {
	var m meta
	if len(b) > 0 && b[0] != metaFormat && b[0] != restoringFormat {
		return m, fmt.Errorf("state format %d is not supported by this build", b[0])
	}
	if len(b) != metaBytes {
		return m, fmt.Errorf("meta row of %d bytes: %w", len(b), rpc.ErrCorrupt)
	}
	m.restoring = b[0] == restoringFormat
	m.generation = binary.BigEndian.Uint32(b[1:])
	for i, v := range m.fields() {
		*v = binary.BigEndian.Uint64(b[5+8*i:])
	}
	return m, nil
}

// configuration is the newest Raft configuration that was applied, opaque.
type configuration struct {
	index uint64
	data  []byte // never modified
}

func (c configuration) append(dst []byte) []byte {
	return append(binary.BigEndian.AppendUint64(dst, c.index), c.data...)
}

func decodeConfiguration(b []byte) (configuration, error) {
	if len(b) < 8 {
		return configuration{}, fmt.Errorf("configuration row of %d bytes: %w", len(b), rpc.ErrCorrupt)
	}
	return configuration{index: binary.BigEndian.Uint64(b), data: append([]byte(nil), b[8:]...)}, nil
}

// getRow appends the value of a key to dst. The second result is false when
// there is no such key.
func getRow(r pebble.Reader, dst, key []byte) ([]byte, bool, error) {
	value, closer, err := r.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return dst, false, nil
	case err != nil:
		return dst, false, storageError(err)
	}
	dst = append(dst, value...)
	if err := closer.Close(); err != nil {
		return dst, false, storageError(err)
	}
	return dst, true, nil
}

// storageError makes what the storage engine calls corrupt an rpc.ErrCorrupt.
func storageError(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", rpc.ErrCorrupt, err)
	}
	return err
}

// loadMeta reads the applied position of a group. A group without any state has
// generation 1 and nothing applied.
func loadMeta(r pebble.Reader, group uint16) (meta, configuration, error) {
	m, c := meta{generation: 1}, configuration{}
	row, found, err := getRow(r, nil, metaKey(group, kindMeta))
	if err == nil && found {
		m, err = decodeMeta(row)
	}
	if err != nil {
		return m, c, fmt.Errorf("read meta: %w", err)
	}
	row, found, err = getRow(r, nil, metaKey(group, kindConfiguration))
	if err == nil && found {
		c, err = decodeConfiguration(row)
	}
	if err != nil {
		return m, c, fmt.Errorf("read configuration: %w", err)
	}
	return m, c, nil
}
