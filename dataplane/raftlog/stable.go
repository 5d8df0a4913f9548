package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// stable caches the few values that Raft keeps per group: its term and vote.
type stable struct {
	mu     sync.Mutex // guards values
	values map[string][]byte
}

// Set makes a value durable before it returns. A vote or term that Raft told
// another node must never be forgotten.
func (l *Log) Set(key, value []byte) error {
	l.stable.mu.Lock()
	defer l.stable.mu.Unlock()
	if err := l.db.Set(l.stableKey(key), value, pebble.Sync); err != nil {
		return fmt.Errorf("write raft state: %w", storage.Classify(err))
	}
	l.stable.values[string(key)] = append([]byte(nil), value...)
	return nil
}

// Get returns a value, or nil without an error when it was never set.
func (l *Log) Get(key []byte) ([]byte, error) {
	l.stable.mu.Lock()
	defer l.stable.mu.Unlock()
	if value, ok := l.stable.values[string(key)]; ok {
		return append([]byte(nil), value...), nil
	}
	value, closer, err := l.db.Get(l.stableKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read raft state: %w", storage.Classify(err))
	}
	kept := append([]byte(nil), value...)
	l.stable.values[string(key)] = kept
	return append([]byte(nil), kept...), closer.Close()
}

// SetUint64 is Set for a number.
func (l *Log) SetUint64(key []byte, value uint64) error {
	return l.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 returns a number, or 0 without an error when it was never set.
func (l *Log) GetUint64(key []byte) (uint64, error) {
	value, err := l.Get(key)
	if err != nil || len(value) == 0 {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("read raft state %q: %w", key, rpc.ErrCorrupt)
	}
	return binary.BigEndian.Uint64(value), nil
}

func (l *Log) stableKey(key []byte) []byte {
	return append(storage.AppendPrefix(nil, storage.SpaceStable, l.group), key...)
}
