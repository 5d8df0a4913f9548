package storage

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestIdentityIsMadeOnceAndKept(t *testing.T) {
	t.Parallel()
	opts := memOptions(vfs.NewMem())
	opts.NodeID = "d1"
	e := mustOpen(t, opts)
	first := e.Identity()
	require.Equal(t, FormatVersion, first.Format)
	require.Equal(t, "d1", first.NodeID)
	require.Empty(t, first.ClusterID)
	require.Len(t, first.Incarnation, 32)
	require.NoError(t, e.Close())

	for _, nodeID := range []string{"d1", ""} {
		opts.NodeID = nodeID
		e = mustOpen(t, opts)
		require.Equal(t, first, e.Identity())
		require.NoError(t, e.Close())
	}

	other := mustOpen(t, memOptions(vfs.NewMem()))
	require.NotEqual(t, first.Incarnation, other.Identity().Incarnation)
	require.True(t, strings.HasPrefix(other.Identity().NodeID, "node-"))
	require.NoError(t, other.Close())
}

func TestSetClusterID(t *testing.T) {
	t.Parallel()
	opts := memOptions(vfs.NewMem())
	e := mustOpen(t, opts)
	require.Error(t, e.SetClusterID(""))
	require.Error(t, e.SetClusterID(strings.Repeat("x", maxIDBytes+1)))
	require.NoError(t, e.SetClusterID("c1"))
	require.NoError(t, e.SetClusterID("c1"))
	require.ErrorIs(t, e.SetClusterID("c2"), ErrForeignCluster)
	require.Equal(t, "c1", e.Identity().ClusterID)
	require.NoError(t, e.Close())
	e = mustOpen(t, opts)
	require.Equal(t, "c1", e.Identity().ClusterID)
	require.ErrorIs(t, e.SetClusterID("c2"), ErrForeignCluster)
	require.NoError(t, e.Close())
}

// A crash between the two writes of SetClusterID leaves the label behind; the
// next Open brings it up to date.
func TestLabelIsRepaired(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem()
	e := mustOpen(t, memOptions(fsys))
	behind := e.Identity()
	require.NoError(t, e.SetClusterID("c1"))
	require.NoError(t, e.Close())
	require.NoError(t, writeLabel(fsys, dir, behind))

	e = mustOpen(t, memOptions(fsys))
	require.Equal(t, "c1", e.Identity().ClusterID)
	require.NoError(t, e.Close())
	onLabel, known, err := readLabel(fsys, dir)
	require.NoError(t, err)
	require.True(t, known)
	require.Equal(t, "c1", onLabel.ClusterID)
}

func TestForeignDirectoriesAreRefused(t *testing.T) {
	t.Parallel()
	relabel := func(change func(*Identity)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			id, _, err := readLabel(vfs.Default, dir)
			require.NoError(t, err)
			change(&id)
			require.NoError(t, writeLabel(vfs.Default, dir, id))
		}
	}
	cases := []struct {
		name   string
		nodeID string
		change func(*testing.T, string)
		want   error
	}{
		{"another node", "d2", func(*testing.T, string) {}, ErrForeignNode},
		{"newer format", "d1", relabel(func(id *Identity) { id.Format = FormatVersion + 1 }), ErrFormat},
		{"older format", "d1", relabel(func(id *Identity) { id.Format = 0 }), ErrFormat},
		{"label of another node", "d2", relabel(func(id *Identity) { id.NodeID = "d2" }), ErrForeignNode},
		{"label of another incarnation", "d1", relabel(func(id *Identity) { id.Incarnation = "00" }), ErrForeignNode},
		{"no label", "d1", func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, labelName))) }, ErrFormat},
		{"empty label", "d1", func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, labelName), nil, 0o644))
		}, rpc.ErrCorrupt},
		{"not a directory", "d1", func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.WriteFile(dir, nil, 0o644))
		}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			opts := diskOptions(t.TempDir())
			opts.NodeID = "d1"
			e := mustOpen(t, opts)
			set(t, e, "\x22k", "v")
			require.NoError(t, e.Close())
			c.change(t, opts.Dir)
			before := contents(t, opts.Dir)

			opts.NodeID = c.nodeID
			_, err := Open(opts)
			require.Error(t, err)
			require.ErrorContains(t, err, opts.Dir)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			if c.name != "label of another node" && c.name != "label of another incarnation" {
				// Only the mixture of two directories is found after Pebble opened.
				require.Equal(t, before, contents(t, opts.Dir))
			}
		})
	}
}

// contents returns what is in the files of dir, but for the lock.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		b, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		require.NoError(t, err)
		all[entry.Name()] = string(b)
	}
	delete(all, lockName)
	return all
}

func TestMakeDirIsDurable(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewCrashableMem()
	opts := memOptions(fsys)
	opts.Dir = "/a/b/c"
	require.NoError(t, mustOpen(t, opts).Close())
	opts.FS = fsys.CrashClone(vfs.CrashCloneCfg{})
	_, err := opts.FS.Stat("/a/b/c/" + labelName)
	require.NoError(t, err)
	require.NoError(t, mustOpen(t, opts).Close())
}

// Errors while the directory is prepared release what was taken.
func TestOpenReleasesAfterErrors(t *testing.T) {
	t.Parallel()
	var f faults
	mem := vfs.NewMem()
	opts := memOptions(f.wrap(mem))
	for _, kind := range []errorfs.OpKind{errorfs.OpMkdirAll, errorfs.OpLock, errorfs.OpRename, errorfs.OpOpen, errorfs.OpList} {
		f.set(func(op errorfs.Op) error {
			if op.Kind == kind {
				return errorfs.ErrInjected
			}
			return nil
		})
		_, err := Open(opts)
		require.Error(t, err)
	}
	f.clear()
	e := mustOpen(t, opts)
	require.NoError(t, e.DB().Set([]byte("\x22k"), nil, pebble.Sync))
	require.NoError(t, e.Close())
}

func FuzzDecodeLabel(f *testing.F) {
	f.Add(encodeLabel(newIdentity("d1")))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeLabel(b)
		if err == nil && !bytes.Equal(b, encodeLabel(id)) {
			t.Fatalf("%q decodes to %+v, which encodes differently", b, id)
		}
	})
}
