package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// filled is a machine with rows of every kind, in several frames.
func filled(t fataler) *harness {
	h := newHarness(t, Options{})
	h.put("c", string(longMetadata))
	h.put("d", `{"a":1}`)
	h.put("empty", "")
	h.append("c", text("a", "first"), text("b", strings.Repeat("x", 150_000)), text("a", "second"))
	_, err := h.tryAppend(&rpc.AppendRequest{Key: "d", Messages: []rpc.NewMessage{text("", "y")}, IdempotencyKey: "k"})
	require.NoError(t, err)
	h.fill("d", 20)
	require.NoError(t, h.ack("d", 3, 10, 2))
	h.log = append(h.log, Entry{})
	_, err = h.m.Apply([]Entry{{Index: uint64(len(h.log)), Term: 4, Kind: KindConfiguration, Data: []byte("configuration")}})
	require.NoError(t, err)
	return h
}

func TestSnapshotStream(t *testing.T) {
	t.Parallel()
	h := filled(t)
	defer h.close()
	whole := snapshotBytes(t, h.m)
	s, err := h.m.OpenSnapshot()
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	index, term, conf, confIndex := s.Meta()
	require.EqualValues(t, len(h.log), index)
	require.EqualValues(t, 4, term)
	require.Equal(t, "configuration", string(conf))
	require.Equal(t, index, confIndex)

	// It stays what it was while the state moves on.
	h.append("c", text("", "later"))
	require.NoError(t, h.ack("c", 3, 4, 0))
	got, err := io.ReadAll(iotest.OneByteReader(s))
	require.NoError(t, err)
	require.True(t, bytes.Equal(whole, got))
	require.EqualValues(t, len(whole), s.Size())
	_, err = s.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)

	half, err := h.m.OpenSnapshot()
	require.NoError(t, err)
	_, err = half.Read(make([]byte, 10))
	require.NoError(t, err)
	require.NoError(t, half.Close())
	require.NoError(t, half.Close())
	_, err = half.Read(make([]byte, 10))
	require.ErrorIs(t, err, rpc.ErrClosed)

	broken, err := h.m.OpenSnapshot()
	require.NoError(t, err)
	full := errors.New("full")
	_, err = broken.WriteTo(writerFunc(func([]byte) (int, error) { return 3, full }))
	require.ErrorIs(t, err, full)
	require.NoError(t, broken.Close())
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A stream of nothing, and one over something.
func TestInstallOfEmptyState(t *testing.T) {
	t.Parallel()
	empty, h := setup(t, Options{}), filled(t)
	defer h.close()
	want := empty.hash()
	transfer(t, empty.m, h.m, 7)
	require.Equal(t, want, h.hash())
	index, _ := h.m.Applied()
	require.Zero(t, index)
	_, err := h.m.Conversation("c")
	require.ErrorIs(t, err, rpc.ErrNotFound)
	requireOneGeneration(t, h.m)
	h.log = nil
	h.put("c", "")
	h.check()
}

func TestInstall(t *testing.T) {
	t.Parallel()
	source := filled(t)
	defer source.close()
	resets := 0
	h := setup(t, Options{OnReset: func() { resets++ }})
	h.put("old", "")
	h.fill("old", 3)
	before := h.hash()
	open, err := h.m.OpenSnapshot()
	require.NoError(t, err)

	in, err := h.m.NewInstaller()
	require.NoError(t, err)
	other, err := h.m.NewInstaller()
	require.NoError(t, err)
	stream := snapshotBytes(t, source.m)
	_, err = other.Write(stream[:len(stream)/2])
	require.NoError(t, err)
	_, err = in.Write(stream)
	require.NoError(t, err)
	require.NoError(t, in.Verify())
	require.ErrorIs(t, other.Verify(), ErrBadSnapshot)
	index, term, conf, confIndex := in.Meta()
	require.EqualValues(t, len(source.log), index)
	require.EqualValues(t, 4, term)
	require.Equal(t, "configuration", string(conf))
	require.Equal(t, index, confIndex)
	require.Equal(t, before, h.hash(), "what is staged is invisible")
	h.fill("old", 1) // and applies go on

	require.NoError(t, in.Commit(nil))
	require.Equal(t, 1, resets)
	require.Equal(t, source.hash(), h.hash())
	require.Equal(t, source.m.Stats(), h.m.Stats())
	_, err = h.m.Conversation("old")
	require.ErrorIs(t, err, rpc.ErrNotFound)
	require.Error(t, in.Commit(nil), "once")
	_, err = in.Write([]byte("x"))
	require.Error(t, err)
	require.NoError(t, in.Abort())
	require.NoError(t, other.Abort())
	require.NoError(t, other.Abort())
	requireOneGeneration(t, h.m)

	_, err = io.ReadAll(open)
	require.NoError(t, err, "a snapshot opened before stays whole")
	require.NoError(t, open.Close())
	h.reopen(Options{})
	require.Equal(t, source.hash(), h.hash())
	h.log = source.log
	h.append("d", text("", "goes on"))
	h.check()
}

// What extra adds is in the same batch; when it fails nothing happens.
func TestInstallWithExtra(t *testing.T) {
	t.Parallel()
	source := filled(t)
	defer source.close()
	h := setup(t, Options{})
	h.put("old", "")
	before := h.hash()
	in, err := h.m.NewInstaller()
	require.NoError(t, err)
	_, err = in.Write(snapshotBytes(t, source.m))
	require.NoError(t, err)
	extra := func(result error) func(*pebble.Batch) error {
		return func(b *pebble.Batch) error {
			require.NoError(t, b.Set([]byte("extra"), []byte("1"), nil))
			return result
		}
	}
	failure := errors.New("no")
	require.ErrorIs(t, in.Commit(extra(failure)), failure)
	require.Equal(t, before, h.hash())
	_, found, err := getRow(h.db, nil, []byte("extra"))
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, in.Commit(extra(nil)))
	_, found, err = getRow(h.db, nil, []byte("extra"))
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, source.hash(), h.hash())
}

// reframe makes a stream with valid checksums out of altered rows.
func reframe(start []byte, rows []byte) []byte {
	out := bytes.Clone(start)
	for n := uint64(0); len(rows) > 0; n++ {
		payload := rows[:min(len(rows), frameBytes)]
		rows = rows[len(payload):]
		out = binary.BigEndian.AppendUint32(out, uint32(len(payload)))
		out = binary.BigEndian.AppendUint32(out, frameSum(n, payload))
		out = append(out, payload...)
	}
	out = binary.BigEndian.AppendUint32(out, 0)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// split takes a stream apart.
func split(t fataler, stream []byte) (start, rows []byte) {
	n := len(streamMagic) + 4 + int(binary.BigEndian.Uint32(stream[len(streamMagic):])) + 4
	start, stream = stream[:n], stream[n:]
	for {
		length := int(binary.BigEndian.Uint32(stream))
		if length == 0 {
			return start, rows
		}
		rows = append(rows, stream[frameHead:frameHead+length]...)
		stream = stream[frameHead+length:]
	}
}

// badStreams are streams of source with something wrong.
func badStreams(t *testing.T, source *harness) map[string][]byte {
	stream := snapshotBytes(t, source.m)
	start, rows := split(t, stream)
	require.Equal(t, stream, reframe(start, rows))
	flip := func(at int) []byte {
		s := bytes.Clone(stream)
		s[at] ^= 0x10
		return s
	}
	headerOf := func(change func(m *meta), group uint16) []byte {
		m, conf, err := loadMeta(source.db, source.group)
		require.NoError(t, err)
		change(&m)
		return appendStreamStart(nil, group, &m, conf)
	}
	frame1, frame2 := len(start), len(start)+frameHead+frameBytes
	swapped := slices.Concat(stream[:frame1], stream[frame2:frame2+frameHead+frameBytes], stream[frame1:frame2], stream[frame2+frameHead+frameBytes:])
	require.Len(t, swapped, len(stream))
	future := bytes.Clone(start)
	future[len(streamMagic)+4] = streamVersion + 1
	binary.BigEndian.PutUint32(future[len(future)-4:], crc32.Checksum(future[len(streamMagic)+4:len(future)-4], castagnoli))

	bad := map[string][]byte{
		"empty": nil, "garbage": []byte(strings.Repeat("garbage ", 100)), "magic only": stream[:len(streamMagic)],
		"no end": stream[:len(stream)-endBytes], "no last byte": stream[:len(stream)-1], "one more byte": append(bytes.Clone(stream), 0),
		"twice": append(bytes.Clone(stream), stream...), "swapped frames": swapped,
		"other group":         reframe(headerOf(func(*meta) {}, 8), rows),
		"future version":      reframe(future, rows),
		"more rows":           reframe(headerOf(func(m *meta) { m.rows++ }, 7), rows),
		"fewer bytes":         reframe(headerOf(func(m *meta) { m.bytes-- }, 7), rows),
		"more bytes":          reframe(headerOf(func(m *meta) { m.bytes++ }, 7), rows),
		"other count":         reframe(headerOf(func(m *meta) { m.messages++ }, 7), rows),
		"other conversations": reframe(headerOf(func(m *meta) { m.conversations-- }, 7), rows),
		"unknown space":       reframe(start, append([]byte{0x10}, rows[1:]...)),
		"bad row length":      reframe(start, append([]byte{rows[0], 0xff, 0xff, 0xff, 0xff, 0x7f}, rows[6:]...)),
		"rows out of order":   reframe(start, twice(rows)),
	}
	for i, at := range []int{0, 8, 12, 14, 20, len(start) - 1, len(start) + 1, len(start) + 5, len(start) + 100, len(stream) - 40, len(stream) - endBytes, len(stream) - 1} {
		bad[fmt.Sprint("flip ", i)] = flip(at)
	}
	return bad
}

func TestBadStreamsAreRefused(t *testing.T) {
	t.Parallel()
	source := filled(t)
	defer source.close()
	h := setup(t, Options{})
	h.put("kept", "")
	before := h.hash()
	for name, stream := range badStreams(t, source) {
		in, err := h.m.NewInstaller()
		require.NoError(t, err)
		_, writeErr := in.Write(stream)
		for _, err := range []error{in.Verify(), in.Commit(nil)} {
			require.ErrorIs(t, err, ErrBadSnapshot, name)
		}
		if writeErr != nil {
			require.ErrorIs(t, writeErr, ErrBadSnapshot, name)
			_, again := in.Write([]byte("x"))
			require.Equal(t, writeErr, again, name)
		}
		require.NoError(t, in.Abort())
		require.Equal(t, before, h.hash(), name)
	}
	requireOneGeneration(t, h.m)
	transfer(t, source.m, h.m, 1000)
	require.Equal(t, source.hash(), h.hash())
}

// twice repeats the first row of a stream in place of what follows it.
func twice(rows []byte) []byte {
	d := decoder{in: rows}
	d.byte()
	d.bounded(1, maxKeyBytes)
	d.bounded(1, maxRowBytes)
	n := len(rows) - len(d.in)
	out := bytes.Clone(rows)
	copy(out[n:], rows[:n])
	return out
}

// Any change to a stream is refused and leaves the state as it was.
func FuzzInstaller(f *testing.F) {
	source := newHarness(f, Options{})
	f.Cleanup(source.close)
	source.put("c", "")
	source.append("c", text("a", "x"), text("a", "y"))
	stream := snapshotBytes(f, source.m)
	start, rows := split(f, stream)
	f.Add(stream, 100)
	f.Add(stream[:len(stream)/2], 1)
	f.Add(start, 3)
	f.Add(reframe(start, rows[:len(rows)/2]), 50)
	f.Add(append(bytes.Clone(stream), 1), 7)
	h := newHarness(f, Options{})
	f.Cleanup(h.close)
	h.put("kept", "")
	before := h.hash()
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		chunk = max(1, chunk)
		in, err := h.m.NewInstaller()
		require.NoError(t, err)
		for rest := data; len(rest) > 0 && err == nil; {
			n := min(chunk, len(rest))
			_, err = in.Write(rest[:n])
			rest = rest[n:]
		}
		if bytes.Equal(data, stream) {
			require.NoError(t, in.Verify())
		} else {
			require.ErrorIs(t, in.Commit(nil), ErrBadSnapshot)
		}
		require.NoError(t, in.Abort())
		require.Equal(t, before, mustHash(t, h.m))
	})
}

// A count that does not match what is stored stops the stream.
func TestSnapshotChecksItsCounts(t *testing.T) {
	t.Parallel()
	h := filled(t)
	defer h.close()
	require.NoError(t, h.db.Delete(h.m.keys.message(nil, 1, 2), nil))
	s, err := h.m.OpenSnapshot()
	require.NoError(t, err)
	_, err = s.WriteTo(io.Discard)
	require.ErrorIs(t, err, rpc.ErrCorrupt)
	_, again := s.Read(make([]byte, 1))
	require.Equal(t, err, again)
	require.NoError(t, s.Close())
}

// Rows that nobody wrote, under valid checksums, are refused or installed, but
// never make the installer fail otherwise.
func FuzzInstallerRows(f *testing.F) {
	source := filled(f)
	f.Cleanup(source.close)
	_, rows := split(f, snapshotBytes(f, source.m))
	f.Add(rows[:3000], uint64(3))
	f.Add(rows[len(rows)-500:], uint64(2))
	f.Add([]byte{}, uint64(0))
	h := newHarness(f, Options{})
	f.Cleanup(h.close)
	f.Fuzz(func(t *testing.T, rows []byte, n uint64) {
		in, err := h.m.NewInstaller()
		require.NoError(t, err)
		start := appendStreamStart(nil, h.group, &meta{generation: 1, rows: n, bytes: uint64(len(rows))}, configuration{})
		if _, err := in.Write(reframe(start, rows)); err != nil {
			require.ErrorIs(t, err, ErrBadSnapshot)
		}
		if err := in.Verify(); err != nil {
			require.ErrorIs(t, err, ErrBadSnapshot)
		}
		require.NoError(t, in.Abort())
	})
}
