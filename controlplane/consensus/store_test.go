package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// fillStore makes a store with enough entries, deletions and overwrites that its
// tree has branch pages, overflow pages and free pages.
func fillStore(t testing.TB, dir string) (stable map[string][]byte, logs []raft.Log) {
	t.Helper()
	s, err := openStore(dir, false, quiet())
	require.NoError(t, err)
	require.NoError(t, s.SetUint64(currentTermKey, 7))
	require.NoError(t, s.Set([]byte("LastVoteCand"), []byte("c1")))
	for first := uint64(1); first <= 200; first += 10 {
		var entries []*raft.Log
		for index := first; index < first+10; index++ {
			size := 40
			if index%50 == 0 {
				size = 9000 // an overflow page
			}
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(index)
			}
			entries = append(entries, &raft.Log{Index: index, Term: 1 + index/40, Data: data})
		}
		require.NoError(t, s.StoreLogs(entries))
	}
	require.NoError(t, s.DeleteRange(1, 30))
	require.NoError(t, s.DeleteRange(191, 200))
	require.NoError(t, s.SetUint64([]byte("LastVoteTerm"), 7))
	require.NoError(t, s.close())
	return content(t, dir)
}

// content reads all that a store holds.
func content(t testing.TB, dir string) (map[string][]byte, []raft.Log) {
	t.Helper()
	s, err := openStore(dir, true, quiet())
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	stable, logs, err := readAll(s)
	require.NoError(t, err)
	return stable, logs
}

func readAll(s *store) (map[string][]byte, []raft.Log, error) {
	var logs []raft.Log
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	for index := first; index > 0 && index <= last; index++ {
		var entry raft.Log
		if err := s.GetLog(index, &entry); err != nil {
			return nil, nil, err
		}
		logs = append(logs, entry)
	}
	return s.stable, logs, nil
}

func TestStoreKeepsWhatItWasGiven(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stable, logs := fillStore(t, dir)
	require.Len(t, stable, 3)
	require.Len(t, logs, 160)
	require.Equal(t, uint64(31), logs[0].Index)
	require.Equal(t, uint64(190), logs[len(logs)-1].Index)

	s, err := openStore(dir, true, quiet())
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	var entry raft.Log
	require.ErrorIs(t, s.GetLog(30, &entry), raft.ErrLogNotFound)
	require.ErrorIs(t, s.GetLog(191, &entry), raft.ErrLogNotFound)
	term, err := s.GetUint64(currentTermKey)
	require.NoError(t, err)
	require.Equal(t, uint64(7), term)
	missing, err := s.GetUint64([]byte("missing"))
	require.NoError(t, err)
	require.Zero(t, missing)
	_, err = s.GetUint64([]byte("LastVoteCand"))
	require.ErrorIs(t, err, ErrCorrupt)
}

// The store must agree with a plain map, whatever raft does to it.
func TestStoreModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(r, err)
		s, err := openStore(dir, false, quiet())
		require.NoError(r, err)
		require.NoError(r, s.SetUint64(currentTermKey, 1))
		model := map[uint64]string{}
		first, last := uint64(0), uint64(0)
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			switch rapid.IntRange(0, 3).Draw(r, "step") {
			case 0, 1:
				next := last + 1
				if first == 0 {
					next = rapid.Uint64Range(1, 100).Draw(r, "first")
					first = next
				}
				last = next + rapid.Uint64Range(0, 5).Draw(r, "entries")
				var entries []*raft.Log
				for index := next; index <= last; index++ {
					model[index] = rapid.String().Draw(r, "data")
					entries = append(entries, &raft.Log{Index: index, Term: 1, Data: []byte(model[index])})
				}
				require.NoError(r, s.StoreLogs(entries))
			case 2:
				if first == 0 {
					continue
				}
				from, to := first, last
				if cut := rapid.Uint64Range(first, last).Draw(r, "cut"); rapid.Bool().Draw(r, "front") {
					to = cut
					first = cut + 1
				} else {
					from = cut
					last = cut - 1
				}
				if last < first {
					first, last = 0, 0
				}
				for index := from; index <= to; index++ {
					delete(model, index)
				}
				require.NoError(r, s.DeleteRange(from, to))
			case 3:
				require.NoError(r, s.close())
				s, err = openStore(dir, true, quiet())
				require.NoError(r, err)
			}
			gotFirst, _ := s.FirstIndex()
			gotLast, _ := s.LastIndex()
			require.Equal(r, []uint64{first, last}, []uint64{gotFirst, gotLast})
			_, logs, err := readAll(s)
			require.NoError(r, err)
			require.Len(r, logs, len(model))
			for _, entry := range logs {
				require.Equal(r, model[entry.Index], string(entry.Data))
			}
		}
		require.NoError(r, s.close())
	})
}

// openReadOnly does what openStore does, without writing to the file.
func openReadOnly(path string) (*store, error) {
	if _, err := checkStoreFile(path, true); err != nil {
		return nil, err
	}
	s := &store{logger: quiet(), released: make(chan struct{})}
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: s.boltOptions(true)})
	if err != nil {
		return nil, err
	}
	s.backend = bolt
	if err := s.load(true); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// Goal: a flipped bit anywhere in the file is either detected at open or was in
// bytes that mean nothing. Every page is hit, its header and its elements more
// densely than its data.
func TestStoreDetectsFlippedBits(t *testing.T) {
	t.Parallel()
	origin := t.TempDir()
	stable, logs := fillStore(t, origin)
	data := mustReadFile(t, origin, storeFile)
	dir := t.TempDir()
	path := filepath.Join(dir, storeFile)
	detected, harmless := 0, 0
	random := rand.New(rand.NewPCG(1, 2))
	try := func(at int) {
		flipped := append([]byte(nil), data...)
		flipped[at] ^= 1 << random.IntN(8)
		require.NoError(t, os.WriteFile(path, flipped, 0o600))
		s, err := openReadOnly(path)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			detected++
			return
		}
		harmless++
		gotStable, gotLogs, err := readAll(s)
		require.NoError(t, err)
		require.True(t, reflect.DeepEqual(stable, gotStable), "byte %d", at)
		require.True(t, reflect.DeepEqual(logs, gotLogs), "byte %d", at)
		require.NoError(t, s.close())
	}
	page := os.Getpagesize()
	for start := 0; start < len(data); start += page {
		for at := start; at < start+96 && at < len(data); at += 1 + random.IntN(14) {
			try(at)
		}
		for at := start + 96; at < start+page && at < len(data); at += 1 + random.IntN(800) {
			try(at)
		}
	}
	t.Logf("%d flips detected, %d harmless", detected, harmless)
	require.Greater(t, detected, 200)
}

func TestStoreDetectsLossOfTheWholeFile(t *testing.T) {
	t.Parallel()
	origin := t.TempDir()
	fillStore(t, origin)
	size := len(mustReadFile(t, origin, storeFile))
	for name, damage := range map[string]func(path string) error{
		"removed":   os.Remove,
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"cut short": func(path string) error { return os.Truncate(path, int64(size/2)) },
		"one page":  func(path string) error { return os.Truncate(path, int64(os.Getpagesize())) },
		"zeroed":    func(path string) error { return os.WriteFile(path, make([]byte, size), 0o600) },
		"foreign":   func(path string) error { return os.WriteFile(path, []byte("hello"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyDir(t, origin)
			require.NoError(t, damage(filepath.Join(dir, storeFile)))
			_, err := openStore(dir, true, quiet())
			require.ErrorIs(t, err, ErrCorrupt)
		})
	}
}

// Values that pass bbolt's structure but not ours.
func TestStoreDetectsForeignValues(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(s *store) error{
		"hole in the log": func(s *store) error { return s.backend.DeleteRange(100, 100) },
		"entry without checksum": func(s *store) error {
			return s.backend.StoreLogs([]*raft.Log{{Index: 100, Term: 3, Data: []byte("x")}})
		},
		"entry of unknown version": func(s *store) error {
			return s.backend.StoreLogs([]*raft.Log{{Index: 100, Term: 3, Data: []byte("\xffxxxxxx")}})
		},
		"entry moved": func(s *store) error {
			moved := sealLog(&raft.Log{Index: 100, Term: 3})
			moved.Index = 101
			return s.backend.StoreLogs([]*raft.Log{moved})
		},
		"term falls": func(s *store) error {
			return s.backend.StoreLogs([]*raft.Log{sealLog(&raft.Log{Index: 100, Term: 1})})
		},
		"term of the future": func(s *store) error {
			return s.backend.StoreLogs([]*raft.Log{sealLog(&raft.Log{Index: 191, Term: 8})})
		},
		"stable record broken": func(s *store) error { return s.backend.Set(stableKey, []byte("nonsense")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fillStore(t, dir)
			s, err := openStore(dir, true, quiet())
			require.NoError(t, err)
			require.NoError(t, damage(s))
			require.NoError(t, s.close())
			_, err = openStore(dir, true, quiet())
			require.ErrorIs(t, err, ErrCorrupt)
		})
	}
}

// A flip while the store is open is found when the entry is read.
func TestStoreDetectsFlipsWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, logs := fillStore(t, dir)
	s, err := openStore(dir, true, quiet())
	require.NoError(t, err)
	defer func() { _ = s.close() }()
	path := filepath.Join(dir, storeFile)
	data := mustReadFile(t, path)
	target := logs[0].Data // 40 times its index, which no other entry holds
	for at := range len(data) - len(target) {
		if string(data[at:at+len(target)]) == string(target) {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = file.WriteAt([]byte{target[0] ^ 4}, int64(at))
			require.NoError(t, errors.Join(err, file.Close()))
		}
	}
	var entry raft.Log
	require.ErrorIs(t, s.GetLog(logs[0].Index, &entry), ErrCorrupt)
	require.NoError(t, s.GetLog(logs[1].Index, &entry))
}

// faultyBackend fails writes on demand.
type faultyBackend struct {
	backend
	mu    sync.Mutex
	err   error
	tries int
}

func (f *faultyBackend) setErr(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.tries = err, 0
}

func (f *faultyBackend) attempts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries
}

func (f *faultyBackend) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries++
	if f.err == errPanic {
		panic("bbolt lost its mind")
	}
	return f.err
}

var errPanic = errors.New("panic")

func (f *faultyBackend) StoreLogs(entries []*raft.Log) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.backend.StoreLogs(entries)
}

func (f *faultyBackend) Set(key, value []byte) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.backend.Set(key, value)
}

func noSpace() error { return &fs.PathError{Op: "write", Path: storeFile, Err: syscall.ENOSPC} }

// Goal: a full disk costs proposals, not the process, and the member works again
// by itself once there is room.
func TestFullDiskPasses(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.HeartbeatTimeout = 50 * time.Millisecond
	m := mustOpenFaulty(t, cfg)
	faults := m.store.backend.(*faultyBackend)
	mustLead(t, m)
	mustPropose(t, m, "before")
	faults.setErr(noSpace())
	_, err := m.Propose(testContext(t), []byte("lost"))
	require.ErrorIs(t, err, ErrOutcomeUnknown)
	require.ErrorIs(t, err, ErrStorage)
	require.ErrorIs(t, m.Status().StorageError, syscall.ENOSPC)
	// The election that follows cannot store its term and waits.
	require.Eventually(t, func() bool { return faults.attempts() >= 2 }, patience, time.Millisecond)
	_, err = m.Propose(testContext(t), []byte("refused"))
	require.ErrorIs(t, err, ErrNotLeader)
	faults.setErr(nil)
	mustLead(t, m)
	mustPropose(t, m, "after")
	require.NoError(t, m.Status().StorageError)
	require.NoError(t, m.Close())

	cfg.Machine = &journal{}
	m = mustOpen(t, cfg)
	mustLead(t, m)
	require.Equal(t, []string{"before", "after"}, cfg.Machine.(*journal).commands())
}

// Goal: after an error that leaves the file in doubt nothing is written any
// more, Close neither hangs nor panics, and a restart has what was acknowledged.
func TestBrokenDiskNeedsARestart(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]error{
		"failed sync":       syscall.ENOSPC, // not from the write call
		"input/output":      &fs.PathError{Op: "write", Err: syscall.EIO},
		"panic in the tree": errPanic,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := singleConfig(t.TempDir())
			cfg.HeartbeatTimeout = 50 * time.Millisecond
			m := mustOpenFaulty(t, cfg)
			faults := m.store.backend.(*faultyBackend)
			mustLead(t, m)
			mustPropose(t, m, "before")
			faults.setErr(fault)
			_, err := m.Propose(testContext(t), []byte("lost"))
			require.ErrorIs(t, err, ErrStorage)
			faults.setErr(nil)
			require.Eventually(t, func() bool { return m.Status().State == "candidate" }, patience, time.Millisecond)
			require.ErrorIs(t, m.Status().StorageError, ErrStorage)
			require.Zero(t, faults.attempts(), "nothing is written any more")
			require.NoError(t, m.Close())
			if errors.Is(fault, errPanic) {
				// The test's bbolt is sound, and only its file was closed.
				require.ErrorContains(t, faults.backend.Close(), "funlock")
			}

			cfg.Machine = &journal{}
			m = mustOpen(t, cfg)
			mustLead(t, m)
			require.Equal(t, []string{"before"}, cfg.Machine.(*journal).commands())
		})
	}
}

// mustOpenFaulty opens a member whose store writes through a faultyBackend.
func mustOpenFaulty(t *testing.T, cfg Config) *Member {
	t.Helper()
	cfg.wrapBackend = func(b backend) backend { return &faultyBackend{backend: b} }
	return mustOpen(t, cfg)
}

func TestReleasedStoreForgetsTheTermOnly(t *testing.T) {
	t.Parallel()
	s, err := openStore(t.TempDir(), false, quiet())
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	require.NoError(t, s.SetUint64(currentTermKey, 1))
	s.release()
	require.NoError(t, s.SetUint64(currentTermKey, 2), "raft panics over an error")
	require.ErrorIs(t, s.Set([]byte("LastVoteCand"), []byte("c1")), ErrClosed)
	require.ErrorIs(t, s.StoreLog(&raft.Log{Index: 1, Term: 2}), ErrClosed)
	term, err := s.GetUint64(currentTermKey)
	require.NoError(t, err)
	require.Equal(t, uint64(1), term)
}

func FuzzDecodeStable(f *testing.F) {
	f.Add(encodeStable(nil))
	f.Add(encodeStable(map[string][]byte{"CurrentTerm": {0, 0, 0, 0, 0, 0, 0, 9}, "LastVoteCand": []byte("c1")}))
	f.Add([]byte{1, 0, 0, 0, 0, 255, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := decodeStable(data)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Equal(t, data, encodeStable(values))
	})
}

func FuzzOpenLog(f *testing.F) {
	sealed := sealLog(&raft.Log{Index: 7, Term: 2, Data: []byte("command")})
	f.Add(uint64(7), uint64(2), uint8(0), sealed.Data, []byte(nil))
	f.Add(uint64(0), uint64(0), uint8(9), []byte("\x01"), []byte("ext"))
	f.Fuzz(func(t *testing.T, index, term uint64, kind uint8, data, extensions []byte) {
		entry := raft.Log{Index: index, Term: term, Type: raft.LogType(kind), Data: data, Extensions: extensions}
		if err := openLog(index, &entry); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Equal(t, data, sealLog(&entry).Data)
	})
}

func FuzzCheckBolt(f *testing.F) {
	dir := f.TempDir()
	s, err := openStore(dir, false, quiet())
	require.NoError(f, err)
	require.NoError(f, s.SetUint64(currentTermKey, 1))
	require.NoError(f, s.close())
	data := mustReadFile(f, dir, storeFile)
	f.Add(data)
	for at := 0; at < len(data); at += 509 {
		damaged := append([]byte(nil), data...)
		damaged[at] ^= 0x10
		f.Add(damaged)
	}
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, data []byte) {
		// It must not panic; what it may accept is for the flip test to say.
		_ = checkBolt(data, true, boltBuckets, false)
		_ = checkBolt(data, false, boltBuckets, false)
	})
}

func BenchmarkOpenStore(b *testing.B) {
	dir := b.TempDir()
	fillStore(b, dir)
	b.ReportAllocs()
	for b.Loop() {
		s, err := openStore(dir, true, quiet())
		require.NoError(b, err)
		require.NoError(b, s.close())
	}
}

func BenchmarkPropose(b *testing.B) {
	m := mustOpen(b, singleConfig(b.TempDir()))
	mustLead(b, m)
	command := []byte(fmt.Sprintf("%0100d", 1))
	b.ReportAllocs()
	for b.Loop() {
		_, err := m.Propose(b.Context(), command)
		require.NoError(b, err)
	}
}
