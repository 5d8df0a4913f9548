package storage

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// walFile lets a LogWriter write, without syncing, into memory.
type walFile struct{ bytes.Buffer }

func writeWAL(t require.TestingT, num uint64, syncOffsets bool, records [][]byte, closed bool) []byte {
	var f walFile
	w := newLogWriter(record.NewLogWriter, &f, num, record.LogWriterConfig{
		QueueSemChan:        make(chan struct{}, 1),
		WriteWALSyncOffsets: func() bool { return syncOffsets },
	})
	for _, r := range records {
		_, err := w.WriteRecord(r)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	b := f.Bytes()
	if !closed {
		b = b[:len(b)-recyclableHeaderBytes]
	}
	return b
}

// newLogWriter and newReader convert to the type of Pebble's file numbers, which
// cannot be named here.
func newLogWriter[N ~uint64](
	create func(io.Writer, N, record.LogWriterConfig) *record.LogWriter, w io.Writer, num uint64, c record.LogWriterConfig,
) *record.LogWriter {
	return create(w, N(num), c)
}

func newReader[N ~uint64](create func(io.Reader, N) *record.Reader, r io.Reader, num uint64) *record.Reader {
	return create(r, N(num))
}

func writeManifest(t require.TestingT, records [][]byte) []byte {
	var f bytes.Buffer
	w := record.NewWriter(&f)
	for _, r := range records {
		_, err := w.WriteRecord(r)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return f.Bytes()
}

func drawRecords(t *rapid.T) [][]byte {
	sizes := rapid.SliceOfN(rapid.OneOf(
		rapid.IntRange(0, 100),
		rapid.IntRange(0, 3*logBlockBytes),
		rapid.IntRange(logBlockBytes-40, logBlockBytes), // ends near a block's
	), 0, 12).Draw(t, "sizes")
	records := make([][]byte, len(sizes))
	for i, n := range sizes {
		records[i] = bytes.Repeat([]byte{byte(i + 1)}, n)
	}
	return records
}

// The walk agrees with Pebble's own writers about every log, and a flipped bit
// or a cut anywhere shortens what it accepts to before the damage.
func TestWalkLog(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		kind, num, closed := manifestLog, uint64(7), false
		var b []byte
		if rapid.Bool().Draw(t, "wal") {
			kind, num, closed = walLog, rapid.Uint64Range(1, 1<<33).Draw(t, "num"), rapid.Bool().Draw(t, "closed")
			b = writeWAL(t, num, rapid.Bool().Draw(t, "offsets"), drawRecords(t), closed)
		} else {
			b = writeManifest(t, drawRecords(t))
		}
		end, gotClosed, err := walkLog(bytes.NewReader(b), kind, num)
		require.NoError(t, err)
		require.EqualValues(t, len(b), end)
		require.Equal(t, closed, gotClosed)
		if len(b) == 0 {
			return
		}

		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		cut, gotClosed, err := walkLog(bytes.NewReader(b[:at]), kind, num)
		require.NoError(t, err)
		require.LessOrEqual(t, cut, int64(at))
		require.False(t, gotClosed)

		b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		flipped, gotClosed, err := walkLog(bytes.NewReader(b), kind, num)
		require.NoError(t, err)
		require.LessOrEqual(t, flipped, int64(at))
		require.False(t, gotClosed)
	})
}

// A recycled log holds older chunks after its own; they are not read.
func TestWalkLogStopsAtOlderChunks(t *testing.T) {
	t.Parallel()
	older := writeWAL(t, 3, true, [][]byte{make([]byte, 2*logBlockBytes)}, true)
	newer := writeWAL(t, 9, true, [][]byte{[]byte("a"), []byte("b")}, false)
	copy(older, newer)
	end, closed, err := walkLog(bytes.NewReader(older), walLog, 9)
	require.NoError(t, err)
	require.False(t, closed)
	require.EqualValues(t, len(newer), end)
}

func TestLogChecker(t *testing.T) {
	t.Parallel()
	log := func(num uint64, closed bool) []byte {
		return writeWAL(t, num, true, [][]byte{make([]byte, 100), make([]byte, 100)}, closed)
	}
	torn := log(5, false)[:200]
	cases := []struct {
		name          string
		files         map[string][]byte
		wal, manifest syncMark
		check         string
		want          error
	}{
		{"whole", map[string][]byte{"000005.log": log(5, false)}, syncMark{5, 238}, syncMark{}, "000005.log", nil},
		{"torn after what was synced", map[string][]byte{"000005.log": torn}, syncMark{5, 119}, syncMark{}, "000005.log", nil},
		{"torn without a mark", map[string][]byte{"000005.log": torn}, syncMark{}, syncMark{}, "000005.log", nil},
		{"torn before", map[string][]byte{"000005.log": torn}, syncMark{5, 200}, syncMark{}, "000005.log", rpc.ErrCorrupt},
		{"closed before a newer", map[string][]byte{"000005.log": log(5, true), "000006.log": nil}, syncMark{}, syncMark{}, "000005.log", nil},
		{"not closed before a newer", map[string][]byte{"000005.log": log(5, false), "000006.log": nil}, syncMark{}, syncMark{}, "000005.log", rpc.ErrCorrupt},
		{"mark of an older log", map[string][]byte{"000006.log": torn}, syncMark{5, 200}, syncMark{}, "000006.log", nil},
		{"manifest cut", map[string][]byte{"MANIFEST-000001": writeManifest(t, [][]byte{{1}})[:7]}, syncMark{}, syncMark{1, 8}, "MANIFEST-000001", rpc.ErrCorrupt},
		{"another manifest", map[string][]byte{"MANIFEST-000002": {1}}, syncMark{}, syncMark{1, 8}, "MANIFEST-000002", nil},
		{"other file", map[string][]byte{"000001.sst": {1}}, syncMark{}, syncMark{}, "000001.sst", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fsys := vfs.NewMem()
			require.NoError(t, fsys.MkdirAll(dir, 0o755))
			for name, b := range c.files {
				writeFile(t, fsys, name, b)
			}
			checker, err := newLogChecker(fsys, dir, &syncMarks{wal: c.wal, manifest: c.manifest})
			require.NoError(t, err)
			err = checker.check(fsys.PathJoin(dir, c.check))
			if c.want == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, c.want)
			}
		})
	}
}

func TestMissingLogIsCorrupt(t *testing.T) {
	t.Parallel()
	killed, _ := flipBase(t, 1)
	names, err := killed.List(dir)
	require.NoError(t, err)
	for _, name := range names {
		if kind, _ := parseLogName(name); kind == walLog {
			require.NoError(t, killed.Remove(killed.PathJoin(dir, name)))
		}
	}
	_, err = readAll(killed)
	require.ErrorIs(t, err, rpc.ErrCorrupt)
}

func writeFile(t *testing.T, fsys vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fsys.Create(fsys.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(bytes.Clone(b)) // a file may change what it is given
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestSyncMarks(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	require.NoError(t, fsys.MkdirAll(dir, 0o755))
	open := func() *syncMarks {
		m, err := openSyncMarks(fsys, dir, DefaultOptions("").Logger)
		require.NoError(t, err)
		return m
	}
	m := open()
	require.Equal(t, [2]syncMark{}, [2]syncMark{m.wal, m.manifest})
	m.set(walLog, 5, 100)
	m.set(manifestLog, 1, 50)
	m.set(walLog, 5, 300)
	require.NoError(t, m.close())
	require.NoError(t, m.close())
	m.set(walLog, 5, 400) // after close: forgotten

	m = open()
	require.Equal(t, [2]syncMark{{5, 300}, {1, 50}}, [2]syncMark{m.wal, m.manifest})
	require.NoError(t, m.close())
	for cut := range marksBytes {
		writeFile(t, fsys, marksName, m.encode()[:cut])
		m = open()
		require.Equal(t, [2]syncMark{}, [2]syncMark{m.wal, m.manifest})
		m.wal = syncMark{5, 300}
		require.NoError(t, m.close())
	}
}

func FuzzWalkLog(f *testing.F) {
	f.Add(writeWAL(f, 5, true, [][]byte{make([]byte, 100), []byte("y")}, true), true)
	f.Add(writeWAL(f, 5, false, [][]byte{[]byte("x")}, false), true)
	f.Add(writeManifest(f, [][]byte{make([]byte, 40), {1}}), false)
	f.Fuzz(func(t *testing.T, b []byte, wal bool) {
		kind := manifestLog
		if wal {
			kind = walLog
		}
		end, _, err := walkLog(bytes.NewReader(b), kind, 5)
		if err != nil || end < 0 || end > int64(len(b)) {
			t.Fatalf("end %d of %d, error %v", end, len(b), err)
		}
		// Whatever the walk accepts, Pebble's reader accepts as well.
		r := newReader(record.NewReader, bytes.NewReader(b[:end]), 5)
		for {
			rec, err := r.Next()
			if err != nil {
				break
			}
			if _, err := io.Copy(io.Discard, rec); err != nil && !record.IsInvalidRecord(err) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzDecodeMarks(f *testing.F) {
	f.Add((&syncMarks{wal: syncMark{5, 300}}).encode())
	f.Add([]byte(marksMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m syncMarks
		if m.decode(b) && !bytes.Equal(m.encode(), b[:marksBytes]) {
			t.Fatal("decoded marks encode differently")
		}
	})
}

func TestParseLogName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		kind logKind
		num  uint64
	}{
		"000012.log":      {walLog, 12},
		"MANIFEST-000034": {manifestLog, 34},
		"MANIFEST-x":      {notALog, 0},
		"000012.sst":      {notALog, 0},
		"LOCK":            {notALog, 0},
		"x.log":           {notALog, 0},
	} {
		kind, num := parseLogName(name)
		require.Equal(t, fmt.Sprint(want.kind, want.num), fmt.Sprint(kind, num), name)
	}
}
