package state

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// hashCheckRows is how many rows Hash reads between looks at its context.
const hashCheckRows = 1024

// Hash returns a SHA-256 over everything the state holds, and the applied index
// that it is of. Replicas of a group have equal hashes at equal indexes, however
// they got there. It reads all of the state, without blocking anything.
func (m *Machine) Hash(ctx context.Context) (sum [32]byte, index uint64, err error) {
	snapshot := m.db.NewSnapshot()
	sum, index, err = hashState(ctx, snapshot, m.group)
	if err = errors.Join(err, snapshot.Close()); err != nil {
		return [32]byte{}, 0, fmt.Errorf("hash state: %w", err)
	}
	return sum, index, nil
}

func hashState(ctx context.Context, r pebble.Reader, group uint16) (sum [32]byte, index uint64, err error) {
	current, _, err := loadMeta(r, group)
	if err != nil {
		return sum, 0, err
	}
	h := sha256.New()
	counters := current
	counters.generation, counters.applied, counters.term = 0, 0, 0
	h.Write(counters.append(nil))
	w := walk{reader: r, keys: keyspace{group: group, generation: current.generation}}
	defer func() { err = errors.Join(err, w.close()) }()
	var head []byte
	for n := 0; ; n++ {
		if n%hashCheckRows == 0 && ctx.Err() != nil {
			return sum, 0, ctx.Err()
		}
		space, rest, value, ok, err := w.next()
		if err != nil {
			return sum, 0, err
		}
		if !ok {
			h.Sum(sum[:0])
			return sum, current.applied, nil
		}
		head = appendRowHead(head[:0], space, rest, len(value))
		h.Write(head)
		h.Write(value)
	}
}
