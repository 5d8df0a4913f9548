package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

func take(t *testing.T, m *machines) (dir string, manifest *Manifest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "deep", "backup")
	manifest, err := Take(t.Context(), dir, source(m), Options{})
	require.NoError(t, err)
	return dir, manifest
}

func source(m *machines) Source {
	return Source{Cluster: m, ClusterID: "fp-one", Version: "v1", Control: []byte(`{"nodes":[]}`)}
}

func restore(ctx context.Context, dir string, m *machines, opts Options) (*Result, error) {
	b, err := Open(ctx, dir, Options{})
	if err != nil {
		return nil, err
	}
	target, err := b.Inspect(ctx, m, opts)
	if err != nil {
		return nil, err
	}
	return b.Restore(ctx, m, target, opts)
}

func TestRestoredClusterIsEqual(t *testing.T) {
	t.Parallel()
	from, to := newMachines(t), newMachines(t)
	from.write(600)
	var mu sync.Mutex
	groups, copied := 0, int64(0)
	dir := filepath.Join(t.TempDir(), "backup")
	manifest, err := Take(t.Context(), dir, source(from), Options{Progress: func(g int, n int64) {
		mu.Lock()
		defer mu.Unlock()
		groups, copied = groups+g, copied+n
	}})
	require.NoError(t, err)
	require.Equal(t, rpc.Groups, groups)
	require.EqualValues(t, manifest.Totals.Bytes, copied)
	require.EqualValues(t, 600, manifest.Totals.Conversations)
	require.Positive(t, manifest.Totals.Archived)
	require.Equal(t, "fp-one", manifest.ClusterID)
	for i := range manifest.Groups {
		sum, _, err := from.all[i].Hash(t.Context())
		require.NoError(t, err)
		require.Equal(t, hex.EncodeToString(sum[:]), manifest.Groups[i].StateHash)
		require.EqualValues(t, from.index[i], manifest.Groups[i].Applied)
	}
	result, err := restore(t.Context(), dir, to, Options{})
	require.NoError(t, err)
	require.Equal(t, &Result{Groups: rpc.Groups, Equal: rpc.Groups, Totals: manifest.Totals}, result)
	from.same(to)
	again, err := restore(t.Context(), dir, to, Options{})
	require.NoError(t, err, "what is there already is left alone")
	require.Equal(t, result, again)
	into, err := restore(t.Context(), dir, from, Options{})
	require.NoError(t, err)
	require.Equal(t, result, into)
}

func TestTakeLeavesNothingHalfDone(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	m.write(20)
	parent := t.TempDir()
	dir := filepath.Join(parent, "backup")
	broken := errors.New("broken")
	m.fail = func(method string, group rpc.Group, _ bool) error {
		if method == "Export" && group == 200 {
			return broken
		}
		return nil
	}
	_, err := Take(t.Context(), dir, source(m), Options{})
	require.ErrorIs(t, err, broken)
	entries, err := os.ReadDir(parent)
	require.NoError(t, err)
	require.Empty(t, entries)

	m.fail = nil
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Take(gone, dir, source(m), Options{})
	require.ErrorIs(t, err, context.Canceled)

	require.NoError(t, os.Mkdir(dir, 0o700))
	_, err = Take(t.Context(), dir, source(m), Options{})
	require.NoError(t, err, "an empty directory will do")
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), "it stays as private as it was")
	_, err = Take(t.Context(), dir, source(m), Options{})
	require.ErrorIs(t, err, ErrNotEmpty)
	file := filepath.Join(parent, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Take(t.Context(), file, source(m), Options{})
	require.Error(t, err)
}

// What fails for a moment is tried again, with the leader that is named.
func TestPassingFailures(t *testing.T) {
	t.Parallel()
	from, to := newMachines(t), newMachines(t)
	from.write(300)
	var mu sync.Mutex
	seen := map[string]int{}
	flaky := func(method string, group rpc.Group, after bool) error {
		mu.Lock()
		defer mu.Unlock()
		seen[method]++
		switch n := seen[method]; {
		case n%97 != 3:
			return nil
		case after:
			return rpc.ErrOutcomeUnknown
		case n%2 == 0:
			return rpc.ErrOverloaded
		default:
			return &rpc.NotLeaderError{Group: group, Leader: "d7"}
		}
	}
	from.fail, to.fail = flaky, flaky
	dir, _ := take(t, from)
	_, err := restore(t.Context(), dir, to, Options{})
	require.NoError(t, err)
	from.same(to)
	require.Contains(t, from.hints, "d7")
}

func TestRestoreGoesOn(t *testing.T) {
	t.Parallel()
	from, to := newMachines(t), newMachines(t)
	from.write(400)
	// One group is larger than a step.
	for range 3 {
		big := &rpc.AppendRequest{Key: "conversation-1", Messages: []rpc.NewMessage{{Content: bytes.Repeat([]byte("x"), stepBytes)}}}
		require.NoError(t, from.apply(big.Key.Group(), state.EncodeCommand(nil, clock, state.AppendOp(big))).Err)
	}
	dir, _ := take(t, from)
	broken := errors.New("broken")
	for attempt := 1; ; attempt++ {
		require.Less(t, attempt, 100)
		var mu sync.Mutex
		calls := 0
		to.fail = func(method string, _ rpc.Group, _ bool) error {
			mu.Lock()
			defer mu.Unlock()
			if method == "Restore" {
				calls++
			}
			if method == "Restore" && calls > 101 {
				return broken
			}
			return nil
		}
		result, err := restore(t.Context(), dir, to, Options{FanOut: 3})
		if err != nil {
			require.ErrorIs(t, err, broken)
			continue
		}
		require.Greater(t, attempt, 2)
		require.Equal(t, rpc.Groups, result.Equal)
		break
	}
	from.same(to)
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	from := newMachines(t)
	from.write(100)
	dir, _ := take(t, from)
	to := newMachines(t)
	stranger := rpc.Key("stranger")
	require.NoError(t, to.apply(stranger.Group(), state.EncodeCommand(nil, clock, state.PutOp(&rpc.PutRequest{Key: stranger}))).Err)
	before := to.hashes()
	_, err := restore(t.Context(), dir, to, Options{})
	require.ErrorIs(t, err, ErrNotEmpty)
	require.ErrorContains(t, err, "1 conversations")
	require.Equal(t, before, to.hashes(), "nothing was changed")
	same := newMachines(t)
	same.write(101)
	_, err = restore(t.Context(), dir, same, Options{})
	require.ErrorIs(t, err, ErrNotEmpty, "most of it is in the backup, not all")

	nobody := newMachines(t)
	nobody.fail = func(method string, _ rpc.Group, _ bool) error {
		if method == "Restore" {
			return rpc.ErrUnavailable
		}
		return nil
	}
	_, err = restore(t.Context(), dir, nobody, Options{Patience: time.Millisecond})
	require.ErrorIs(t, err, rpc.ErrUnavailable)

	// A restore that was begun with another backup is not gone on with.
	other := newMachines(t)
	other.write(350)
	otherDir, _ := take(t, other)
	half := newMachines(t)
	calls := 0
	half.fail = func(method string, _ rpc.Group, _ bool) error {
		if method == "Restore" {
			calls++
			if calls > 21 {
				return errors.New("broken")
			}
		}
		return nil
	}
	_, err = restore(t.Context(), dir, half, Options{FanOut: 1})
	require.Error(t, err)
	half.fail = nil
	before = half.hashes()
	_, err = restore(t.Context(), otherDir, half, Options{})
	require.ErrorIs(t, err, ErrNotEmpty)
	require.Equal(t, before, half.hashes())
	_, err = restore(t.Context(), dir, half, Options{})
	require.NoError(t, err, "with the same it is")
	from.same(half)
}

// A restore that was begun of another backup, whose groups count as many rows
// and bytes, is told apart by what is in them.
func TestRestoreOfTheOtherOfTwins(t *testing.T) {
	t.Parallel()
	twin := func(text string) *machines {
		m := newMachines(t)
		for i := range 5 {
			key := rpc.Key("conversation")
			content := fmt.Appendf(nil, `"role":"user","parts":[{"type":"text","text":"%s"}]`, strings.Repeat(text, stepBytes))
			for _, op := range []state.Op{
				state.PutOp(&rpc.PutRequest{Key: key}), state.AppendOp(&rpc.AppendRequest{Key: key, Messages: []rpc.NewMessage{{Content: content}}}),
			} {
				require.NoError(t, m.apply(key.Group(), state.EncodeCommand(nil, clock.Add(time.Duration(i)), op)).Err)
			}
		}
		return m
	}
	one, _ := take(t, twin("a"))
	two, _ := take(t, twin("b"))
	to := newMachines(t)
	calls := 0
	to.fail = func(method string, _ rpc.Group, _ bool) error {
		if method == "Restore" {
			if calls++; calls > 4 {
				return errors.New("broken")
			}
		}
		return nil
	}
	_, err := restore(t.Context(), one, to, Options{FanOut: 1})
	require.Error(t, err)
	to.fail = nil
	before := to.hashes()
	_, err = restore(t.Context(), two, to, Options{})
	require.ErrorIs(t, err, ErrNotEmpty)
	require.ErrorContains(t, err, "restore of another backup")
	require.Equal(t, before, to.hashes())
	_, err = restore(t.Context(), one, to, Options{})
	require.NoError(t, err)
}

func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	from := newMachines(t)
	from.write(100)
	dir, manifest := take(t, from)
	group := ""
	for i := range manifest.Groups {
		if manifest.Groups[i].Rows > 0 {
			group = manifest.Groups[i].Name
			break
		}
	}
	for name, tc := range map[string]struct {
		file string
		to   func([]byte) []byte
		want error
	}{
		"group flipped":      {group, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, ErrDamaged},
		"group cut":          {group, func(b []byte) []byte { return b[:len(b)-1] }, ErrDamaged},
		"group empty":        {group, func([]byte) []byte { return []byte{} }, ErrDamaged},
		"group gone":         {group, func([]byte) []byte { return nil }, ErrDamaged},
		"group longer":       {group, func(b []byte) []byte { return append(b, 0) }, ErrDamaged},
		"manifest flipped":   {manifestFile, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, ErrDamaged},
		"manifest cut":       {manifestFile, func(b []byte) []byte { return b[:len(b)/2] }, ErrDamaged},
		"manifest gone":      {manifestFile, func([]byte) []byte { return nil }, ErrDamaged},
		"sums gone":          {sumsFile, func([]byte) []byte { return nil }, ErrDamaged},
		"sums of another":    {sumsFile, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(manifestFile), []byte("other")) }, ErrDamaged},
		"control flipped":    {controlFile, func(b []byte) []byte { b[1] ^= 1; return b }, ErrDamaged},
		"control gone":       {controlFile, func([]byte) []byte { return nil }, ErrDamaged},
		"a group of another": {groupFile(3), func([]byte) []byte { return mustRead(t, dir, groupFile(4)) }, ErrDamaged},
	} {
		copied := filepath.Join(t.TempDir(), "copy")
		require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
		path := local(copied, tc.file)
		changed := tc.to(mustRead(t, dir, tc.file))
		if changed == nil {
			require.NoError(t, os.Remove(path))
		} else {
			require.NoError(t, os.WriteFile(path, changed, 0o600))
		}
		_, err := Open(t.Context(), copied, Options{})
		require.ErrorIs(t, err, tc.want, name)
	}
	_, err := Open(t.Context(), filepath.Join(dir, "no"), Options{})
	require.ErrorIs(t, err, ErrDamaged)
}

func mustRead(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(local(dir, name))
	require.NoError(t, err)
	return data
}

// Manifests that are as they were written, but not for this program.
func TestOtherManifests(t *testing.T) {
	t.Parallel()
	from := newMachines(t)
	dir, _ := take(t, from)
	good := mustRead(t, dir, manifestFile)
	for name, tc := range map[string]struct {
		manifest []byte
		want     error
	}{
		"newer format":  {bytes.Replace(good, []byte(`"format": 1`), []byte(`"format": 2`), 1), ErrVersion},
		"no format":     {[]byte(`{}`), ErrVersion},
		"no JSON":       {[]byte(`backup`), ErrDamaged},
		"no groups":     {[]byte(`{"format":1}`), ErrDamaged},
		"other groups":  {bytes.Replace(good, []byte(`"group": 7,`), []byte(`"group": 8,`), 1), ErrDamaged},
		"other file":    {bytes.Replace(good, []byte(`groups/007.state`), []byte(`../etc/007.state`), 1), ErrDamaged},
		"other control": {bytes.Replace(good, []byte(controlFile), []byte("../x"), 1), ErrDamaged},
		"other types":   {bytes.Replace(good, []byte(`"group": 7,`), []byte(`"group": "7",`), 1), ErrDamaged},
	} {
		require.NotEqual(t, good, tc.manifest, name)
		copied := filepath.Join(t.TempDir(), "copy")
		require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
		sums := bytes.ReplaceAll(mustRead(t, dir, sumsFile), []byte(sumOf(good)), []byte(sumOf(tc.manifest)))
		require.NoError(t, errors.Join(os.WriteFile(local(copied, manifestFile), tc.manifest, 0o600), os.WriteFile(local(copied, sumsFile), sums, 0o600)))
		_, err := Open(t.Context(), copied, Options{})
		require.ErrorIs(t, err, tc.want, name)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"groups":[{"group":0,"file":"groups/000.state"}]}`))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := decodeManifest(data); err == nil {
			require.Len(t, m.Groups, rpc.Groups)
		}
	})
}
