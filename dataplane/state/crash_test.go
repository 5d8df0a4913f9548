package state

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// crashNode is a replica as a node runs it: the Raft log, synced, and the state
// machine, not synced, in one database.
type crashNode struct {
	t     *testing.T
	fs    *vfs.MemFS
	db    *pebble.DB
	m     *Machine
	group uint16
}

func logKey(group uint16, index uint64) []byte {
	return binary.BigEndian.AppendUint64(storage.AppendPrefix(nil, storage.SpaceLog, group), index)
}

func openCrashNode(t *testing.T, fs *vfs.MemFS) *crashNode {
	n := &crashNode{t: t, fs: fs, db: mustOpenDB(t, fs), group: 3}
	var err error
	n.m, err = Open(n.db, n.group, Options{})
	require.NoError(t, err)
	return n
}

func (n *crashNode) store(e Entry) {
	value := append([]byte{byte(e.Kind)}, e.Data...)
	require.NoError(n.t, n.db.Set(logKey(n.group, e.Index), value, pebble.Sync))
}

// truncate deletes the log below index, which the machine has applied.
func (n *crashNode) truncate(index uint64) {
	require.NoError(n.t, n.db.DeleteRange(logKey(n.group, 0), logKey(n.group, index), pebble.NoSync))
}

// logged reads the log.
func (n *crashNode) logged() (entries []Entry) {
	it, err := n.db.NewIter(&pebble.IterOptions{LowerBound: logKey(n.group, 0), UpperBound: logKey(n.group+1, 0)})
	require.NoError(n.t, err)
	for it.First(); it.Valid(); it.Next() {
		value := append([]byte(nil), it.Value()...)
		index := binary.BigEndian.Uint64(it.Key()[storage.PrefixLen:])
		entries = append(entries, Entry{Index: index, Term: 2, Kind: Kind(value[0]), Data: value[1:]})
	}
	require.NoError(n.t, it.Close())
	return entries
}

// crash loses the machine: of what was not synced, a random part survives.
func (n *crashNode) crash(rng *rand.Rand) *crashNode {
	clone := n.fs.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: rng.IntN(101), RNG: rand.New(rand.NewPCG(rng.Uint64(), 0)),
	})
	require.NoError(n.t, n.m.Close())
	require.NoError(n.t, n.db.Close())
	return openCrashNode(n.t, clone)
}

// crashHistory is a log of random commands and the state's hash after each.
func crashHistory(t *testing.T, rng *rand.Rand, n int) (entries []Entry, hashes [][32]byte) {
	h := newHarness(t, Options{})
	defer h.close()
	keys := []rpc.Key{"a", "b", "c"}
	hashes = append(hashes, h.hash())
	for len(entries) < n {
		key := keys[rng.IntN(len(keys))]
		var op Op
		switch rng.IntN(8) {
		case 0:
			op = PutOp(&rpc.PutRequest{Key: key, Metadata: longMetadata})
		case 1:
			op = ArchiveAckOp(&ArchiveAck{Epoch: 1, Keep: 2, Watermarks: []Watermark{{key, rng.Uint64N(40)}}})
		default:
			body := make([]byte, rng.IntN(20_000))
			for i := range body {
				body[i] = 'a' + byte(rng.IntN(26))
			}
			op = AppendOp(&rpc.AppendRequest{Key: key, Messages: []rpc.NewMessage{text("m"+string(body[:len(body)/20_000]), string(body)), text("", "x")}})
		}
		h.apply(op)
		hashes = append(hashes, h.hash())
		e := h.log[len(h.log)-1]
		e.Term = 2
		entries = append(entries, e)
	}
	return entries, hashes
}

// After a crash at any moment the state is that of some applied index, the
// synced log still holds everything after it, and applying that converges. The
// log is truncated right up to the applied index, as early as it ever could be,
// and memtables are flushed in between.
func TestCrashConverges(t *testing.T) {
	t.Parallel()
	lost := 0
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 7))
		entries, hashes := crashHistory(t, rng, 60)
		n := openCrashNode(t, vfs.NewCrashableMem())
		for stored := 0; stored < len(entries); {
			steps := 1 + rng.IntN(12)
			for range min(steps, len(entries)-stored) {
				n.store(entries[stored])
				stored++
				if rng.IntN(4) == 0 {
					continue // committed later
				}
				_, err := n.m.Apply(n.logged())
				require.NoError(t, err)
				if rng.IntN(3) == 0 {
					index, _ := n.m.Applied()
					n.truncate(index + 1)
				}
				if rng.IntN(10) == 0 {
					require.NoError(t, n.db.Flush())
				}
			}
			before, _ := n.m.Applied()
			n = n.crash(rng)
			index, _ := n.m.Applied()
			require.LessOrEqual(t, index, before)
			if index < before {
				lost++
			}
			require.Equal(t, hashes[index], mustHash(t, n.m), "state is not that of its applied index")
			rest := n.logged()
			if index < uint64(stored) {
				require.NotEmpty(t, rest)
				require.LessOrEqual(t, rest[0].Index, index+1, "the log does not reach the state")
				require.EqualValues(t, stored, rest[len(rest)-1].Index)
			}
			_, err := n.m.Apply(rest)
			require.NoError(t, err)
			require.Equal(t, hashes[stored], mustHash(t, n.m))
		}
		require.NoError(t, n.m.Close())
		require.NoError(t, n.db.Close())
	}
	require.Positive(t, lost, "no crash lost anything")
}

// A crash during an install leaves the old state or the new one, and nothing of
// the other.
func TestCrashDuringInstall(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	entries, hashes := crashHistory(t, rng, 40)
	source := newHarness(t, Options{})
	defer source.close()
	source.group = 3
	require.NoError(t, source.m.Close())
	var err error
	source.m, err = Open(source.db, 3, Options{})
	require.NoError(t, err)
	_, err = source.m.Apply(entries)
	require.NoError(t, err)
	stream := snapshotBytes(t, source.m)

	for round := range 24 {
		n := openCrashNode(t, vfs.NewCrashableMem())
		for _, e := range entries[:10] {
			n.store(e)
		}
		_, err := n.m.Apply(entries[:10])
		require.NoError(t, err)
		in, err := n.m.NewInstaller()
		require.NoError(t, err)
		length := len(stream)
		if round%3 == 0 {
			length = rng.IntN(len(stream))
		}
		_, err = in.Write(stream[:length])
		require.NoError(t, err)
		committed := round%3 == 1
		if committed {
			require.NoError(t, in.Commit(func(b *pebble.Batch) error {
				return b.DeleteRange(logKey(3, 0), logKey(4, 0), nil)
			}))
		} else if rng.IntN(2) == 0 {
			require.NoError(t, n.db.Flush())
		}
		n = n.crash(rng)
		index, _ := n.m.Applied()
		if committed {
			require.EqualValues(t, 40, index)
			require.Empty(t, n.logged())
		} else {
			require.LessOrEqual(t, index, uint64(10))
			_, err = n.m.Apply(n.logged())
			require.NoError(t, err)
			index = 10
		}
		require.Equal(t, hashes[index], mustHash(t, n.m))
		requireOneGeneration(t, n.m)
		require.NoError(t, n.m.Close())
		require.NoError(t, n.db.Close())
	}
}

// requireOneGeneration verifies that nothing is stored but the current one.
func requireOneGeneration(t fataler, m *Machine) {
	t.Helper()
	stored, current := 0, 0
	for _, space := range append([]byte{storage.SpaceMeta}, dataSpaces[:]...) {
		lower := storage.AppendPrefix(nil, space, m.group)
		it, err := m.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: successor(lower)})
		require.NoError(t, err)
		for it.First(); it.Valid(); it.Next() {
			if space == storage.SpaceMeta {
				require.NotEqual(t, kindStaging, it.Key()[storage.PrefixLen], "a staging marker is left")
				continue
			}
			stored++
		}
		require.NoError(t, it.Close())
	}
	w := walk{reader: m.db, keys: m.keys}
	for {
		_, _, _, ok, err := w.next()
		require.NoError(t, err)
		if !ok {
			break
		}
		current++
	}
	require.Equal(t, current, stored, "rows of another generation are left")
	_, _, err := m.Hash(context.Background())
	require.NoError(t, err)
}
