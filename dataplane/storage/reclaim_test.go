package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func TestWhenToReclaim(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, c := range map[string]struct {
		looks []shape
		left  uint64
		wait  bool // a pass was a moment ago
		want  reclaimAction
	}{
		"an empty tree":                 {looks: make([]shape, 5), want: reclaimNothing},
		"little garbage":                {looks: []shape{{written: 9 * mib, tables: 8 * mib, garbage: 8 * mib}}, want: reclaimNothing},
		"garbage, little else":          {looks: []shape{{written: 9 * mib, tables: 10 * mib, garbage: 9 * mib}}, want: reclaimPass},
		"garbage, more else":            {looks: []shape{{written: 9 * mib, tables: 300 * mib, garbage: 90 * mib}}, want: reclaimNothing},
		"garbage of a third":            {looks: []shape{{written: 9 * mib, tables: 300 * mib, garbage: 101 * mib}}, want: reclaimPass},
		"more garbage than tables":      {looks: []shape{{written: 9 * mib, tables: 20 * mib, garbage: 30 * mib}}, want: reclaimPass},
		"garbage that a pass could not": {looks: []shape{{written: 9 * mib, tables: 20 * mib, garbage: 18 * mib}}, left: 17 * mib, want: reclaimNothing},
		"garbage, just after a pass":    {looks: []shape{{written: 9 * mib, tables: 20 * mib, garbage: 18 * mib}}, wait: true, want: reclaimNothing},
		"a full log under load":         {looks: []shape{{written: 9 * mib, logged: 9 * mib}, {written: 19 * mib, logged: 19 * mib}, {written: 29 * mib, logged: 29 * mib}}, want: reclaimNothing},
		"a full log, quiet for long":    {looks: []shape{{written: 9 * mib, logged: 9 * mib}, {written: 9 * mib, logged: 9 * mib}, {written: 10 * mib, logged: 10 * mib}}, want: reclaimFlush},
		"a full log, quiet for a while": {looks: []shape{{written: 9 * mib, logged: 9 * mib}, {written: 9 * mib, logged: 9 * mib}}, want: reclaimNothing},
		"deletions, quiet":              {looks: []shape{{tables: 12 * mib, deletions: 9}, {tables: 12 * mib, deletions: 9}}, want: reclaimPass},
		"deletions, still quiet":        {looks: []shape{{tables: 12 * mib, deletions: 9}, {tables: 12 * mib, deletions: 9}, {tables: 12 * mib, deletions: 9}}, want: reclaimNothing},
		"deletions in a large tree":     {looks: []shape{{tables: 900 * mib, deletions: 9}, {tables: 900 * mib, deletions: 9}}, want: reclaimNothing},
		"deletions in a tiny tree":      {looks: []shape{{tables: mib, deletions: 9}, {tables: mib, deletions: 9}}, want: reclaimNothing},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1, 0)
			r := reclaimer{left: c.left}
			if c.wait {
				r.passed(now, time.Minute, 0, 0)
			}
			got := reclaimNothing
			for _, s := range c.looks {
				now = now.Add(reclaimInterval)
				got = r.next(now, s)
			}
			require.Equal(t, c.want, got)
		})
	}
}

const reclaimRows = 1000

func rowKey(group uint16, row uint64) []byte {
	return binary.BigEndian.AppendUint64(AppendPrefix(nil, SpaceMessage, group), row)
}

// fillGroups stores rows of 1 KiB that do not compress, for each of some groups.
func fillGroups(t *testing.T, e *Engine, groups int) {
	t.Helper()
	noise := rand.NewChaCha8([32]byte{})
	value := make([]byte, 1<<10)
	for g := range groups {
		b := e.DB().NewBatch()
		for row := range uint64(reclaimRows) {
			_, _ = noise.Read(value) // never fails
			require.NoError(t, b.Set(rowKey(uint16(g), row), value, nil))
		}
		require.NoError(t, b.Commit(pebble.NoSync))
	}
}

// tables sums up the files of tables.
func tables(t *testing.T, fsys vfs.FS) (sum int64) {
	t.Helper()
	names, err := fsys.List(dir)
	require.NoError(t, err)
	for _, name := range names {
		info, err := fsys.Stat(fsys.PathJoin(dir, name))
		if isTable(name) && err == nil { // it may be deleted just now
			sum += info.Size()
		}
	}
	return sum
}

// What was trimmed gives its room back while the engine is open, whether ranges
// or single rows were deleted, and what was not trimmed is still there.
func TestReclaimsTrimmedRoom(t *testing.T) {
	t.Parallel()
	// Several memtables: each forgets by itself what is deleted in it.
	const groups, kept = 32, 100
	for name, trim := range map[string]func(b *pebble.Batch, group uint16) error{
		"ranges": func(b *pebble.Batch, group uint16) error {
			return b.DeleteRange(rowKey(group, 0), rowKey(group, reclaimRows-kept), nil)
		},
		"rows": func(b *pebble.Batch, group uint16) error {
			var errs []error
			for row := range uint64(reclaimRows - kept) {
				errs = append(errs, b.Delete(rowKey(group, row), nil))
			}
			return errors.Join(errs...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fsys := vfs.NewMem()
			opts := memOptions(fsys)
			opts.MemTableBytes = 4 << 20
			opts.reclaimInterval = 10 * time.Millisecond
			e := mustOpen(t, opts)
			fillGroups(t, e, groups)
			const before = groups * reclaimRows << 10
			b := e.DB().NewBatch() // one, so that a pass sees all of it or nothing
			for g := range groups {
				require.NoError(t, trim(b, uint16(g)))
			}
			require.NoError(t, b.Commit(pebble.Sync))
			require.NoError(t, e.DB().Flush()) // else it waits for more to be written
			require.Eventually(t, func() bool { return tables(t, fsys) < before/3 }, 3*time.Minute, 5*time.Millisecond)
			for g := range uint16(groups) {
				_, _, err := e.DB().Get(rowKey(g, reclaimRows-kept-1))
				require.ErrorIs(t, err, pebble.ErrNotFound)
				for row := range uint64(kept) {
					_, closer, err := e.DB().Get(rowKey(g, reclaimRows-kept+row))
					require.NoError(t, err)
					require.NoError(t, closer.Close())
				}
			}
			require.NoError(t, e.Close())
		})
	}
}

// Chunks cover every key of a space once, whatever is in it.
func TestReclaimChunksCoverTheSpace(t *testing.T) {
	t.Parallel()
	e := mustOpen(t, memOptions(vfs.NewMem()))
	fillGroups(t, e, 10)
	require.NoError(t, e.DB().Flush())
	for _, space := range reclaimSpaces {
		at, chunks := AppendPrefix(nil, space, 0), 0
		for group := 0; group < groupsMax; chunks++ {
			start, end, next, err := e.reclaimChunk(space, group, 4<<20)
			require.NoError(t, err)
			require.Equal(t, at, start)
			require.Greater(t, next, group)
			at, group = append([]byte(nil), end...), next
		}
		require.Equal(t, []byte{space + 1}, at)
		if space == SpaceMessage {
			require.Equal(t, 3, chunks)
		} else {
			require.Equal(t, 1, chunks)
		}
	}
	require.NoError(t, e.Close())
}

// Close does not wait for a whole pass.
func TestCloseStopsReclaiming(t *testing.T) {
	t.Parallel()
	e := mustOpen(t, memOptions(vfs.NewMem()))
	fillGroups(t, e, 4)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, e.compactAll(ctx), context.Canceled)
	require.NoError(t, e.Close())
}
