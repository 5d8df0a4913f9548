package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// flipBase is a directory as a killed process leaves it: data in tables, in a
// MANIFEST with several records, and in the write-ahead log alone.
func flipBase(t *testing.T, logRecords int) (*vfs.MemFS, map[string]string) {
	mem := vfs.NewMem()
	e := mustOpen(t, memOptions(mem))
	want := map[string]string{}
	set := func(i int) {
		key, value := fmt.Sprintf("\x22key-%05d", i), strings.Repeat(strconv.Itoa(i), 40)
		require.NoError(t, e.DB().Set([]byte(key), []byte(value), pebble.Sync))
		want[key] = value
	}
	for i := range 200 {
		set(i)
		if i == 100 {
			require.NoError(t, e.DB().Flush())
		}
	}
	require.NoError(t, e.SetClusterID("c"))
	require.NoError(t, e.DB().DeleteRange([]byte("\x22key-00010"), []byte("\x22key-00020"), pebble.Sync))
	for i := 10; i < 20; i++ {
		delete(want, fmt.Sprintf("\x22key-%05d", i))
	}
	require.NoError(t, e.DB().Flush())
	for i := 150; i < 150+logRecords; i++ {
		set(i)
	}
	killed := vfs.NewMem()
	ok, err := vfs.Clone(mem, killed, dir, dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, e.Close())
	return killed, want
}

// readAll opens the directory and returns everything in the test's space.
func readAll(fsys vfs.FS) (got map[string]string, err error) {
	e, err := Open(memOptions(fsys))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	it, err := e.DB().NewIter(&pebble.IterOptions{LowerBound: []byte{SpaceMessage}, UpperBound: []byte{SpaceMessage + 1}})
	if err != nil {
		return nil, Classify(err)
	}
	defer it.Close()
	got = map[string]string{}
	for it.First(); it.Valid(); it.Next() {
		got[string(it.Key())] = string(it.Value())
	}
	if err := it.Error(); err != nil {
		return nil, Classify(err)
	}
	return got, checkGets(e.DB(), got)
}

// checkGets reads each key by itself, through the filters that scans skip.
func checkGets(db *pebble.DB, want map[string]string) error {
	for key, value := range want {
		got, closer, err := db.Get([]byte(key))
		if err != nil {
			return Classify(err)
		}
		if string(got) != value {
			return fmt.Errorf("get %q differs from scan", key)
		}
		if err := closer.Close(); err != nil {
			return err
		}
	}
	return nil
}

func flipBit(t *testing.T, fsys *vfs.MemFS, name string, bit int64) {
	f, err := fsys.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], bit/8)
	require.NoError(t, err)
	b[0] ^= 1 << (bit % 8)
	_, err = f.WriteAt(b[:], bit/8)
	require.NoError(t, err)
}

// TestFlippedBits flips single bits of every file of a killed process's
// directory and opens it. The data must be what was written, or an error must
// say that it is corrupt.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	base, want := flipBase(t, 300)
	got, err := readAll(mustClone(t, base))
	require.NoError(t, err)
	require.Equal(t, want, got)

	flips := 12
	if n, err := strconv.Atoi(os.Getenv("STORAGE_FLIPS")); err == nil {
		flips = n
	}
	rng := rand.New(rand.NewPCG(1, 2))
	names, err := base.List(dir)
	require.NoError(t, err)
	slices.Sort(names)
	for _, name := range names {
		info, err := base.Stat(base.PathJoin(dir, name))
		require.NoError(t, err)
		bits := 8 * info.Size()
		if bits == 0 {
			continue
		}
		detected := 0
		for range flips {
			bit := rng.Int64N(bits)
			damaged := mustClone(t, base)
			flipBit(t, damaged, base.PathJoin(dir, name), bit)
			got, err := readAll(damaged)
			if err != nil {
				require.ErrorIs(t, err, rpc.ErrCorrupt, "%s bit %d", name, bit)
				detected++
				continue
			}
			require.Equal(t, want, got, "%s bit %d", name, bit)
		}
		t.Logf("%s: %d bytes, %d of %d flips detected, the rest without effect", name, info.Size(), detected, flips)
	}
}
