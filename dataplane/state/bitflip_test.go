package state

import (
	"bytes"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// A bit that flipped in a stored table is never served: every read gives what
// was written or rpc.ErrCorrupt, and so does the snapshot stream.
func TestFlippedBitsAreNotServed(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	db := mustOpenDB(t, fs)
	m, err := Open(db, 7, Options{})
	require.NoError(t, err)
	h := &harness{t: t, db: db, m: m, group: 7, clock: epoch}
	h.put("c", string(longMetadata))
	for range 40 {
		h.append("c", text("", strings.Repeat("x", 300)))
	}
	conversation := h.conversation("c")
	want, err := m.Messages("c", 1, 100, 0)
	require.NoError(t, err)
	require.NoError(t, db.Flush())
	h.close()

	names, err := fs.List("db")
	require.NoError(t, err)
	detected := 0
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		size := readFile(t, fs, path.Join("db", name))
		for at := 0; at < len(size)/2; at += 97 { // the data blocks
			detected += requireFlipDetected(t, fs, name, at, conversation, want)
		}
	}
	require.Positive(t, detected)
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	f, err := fs.Open(name)
	require.NoError(t, err)
	stat, err := f.Stat()
	require.NoError(t, err)
	data := make([]byte, stat.Size())
	_, err = f.ReadAt(data, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return data
}

func requireFlipDetected(t *testing.T, fs vfs.FS, name string, at int, conversation rpc.Conversation, want rpc.Page) (detected int) {
	damaged := vfs.NewMem()
	ok, err := vfs.Clone(fs, damaged, "db", "db")
	require.NoError(t, err)
	require.True(t, ok)
	data := readFile(t, fs, path.Join("db", name))
	data[at] ^= 4
	f, err := damaged.Create(path.Join("db", name), vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	db := mustOpenDB(t, damaged)
	defer func() { _ = db.Close() }()
	m, err := Open(db, 7, Options{})
	if err != nil {
		require.ErrorIs(t, err, rpc.ErrCorrupt)
		return 1
	}
	for _, read := range []func() (rpc.Page, error){
		func() (rpc.Page, error) { return m.Messages("c", 1, 100, 0) },
		func() (rpc.Page, error) { return m.Tail("c", 0, 0, 100, 0) },
	} {
		if page, err := read(); err != nil {
			require.ErrorIs(t, err, rpc.ErrCorrupt)
			detected = 1
		} else {
			require.Equal(t, want, page)
		}
	}
	if got, err := m.Conversation("c"); err != nil {
		require.ErrorIs(t, err, rpc.ErrCorrupt)
		detected = 1
	} else {
		require.Equal(t, conversation, got)
	}
	s, err := m.OpenSnapshot()
	if err == nil {
		var b bytes.Buffer
		if _, err = s.WriteTo(&b); err != nil {
			require.ErrorIs(t, err, rpc.ErrCorrupt)
			detected = 1
		}
		require.NoError(t, s.Close())
	}
	require.NoError(t, m.Close())
	return detected
}
