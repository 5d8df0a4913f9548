package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
)

// A cluster of three is backed up under appends while a node dies, and once more
// when all is quiet; backups that are interrupted leave nothing. The backups are
// restored into a cluster of one and into one of five, and refused where they
// must not go.
func TestBackupsAreRestored(t *testing.T) {
	p := newPostgres(t)
	one, five := t.TempDir(), t.TempDir()
	quiet, live := filepath.Join(one, "quiet"), filepath.Join(five, "deep", "live")

	c := start(t, 3, p.url())
	router := connect(t, c)
	ids := conversations(t, router)
	interrupted(t, c)
	l := startLoad(t, router)
	l.await(t, 5)
	known := l.acknowledged()
	underFire(t, c, l, live)
	l.end()
	sameReplicas(t, c)
	if p != nil {
		settled(t, router, append(ids, l.ids...))
	}
	before := read(t, router, append(ids, l.ids...))
	summary := takeQuiet(t, c, quiet, len(before), p != nil)
	run(t, c, exitRefused, []string{"backup", quiet}, "is not empty")
	require.Equal(t, summary, sumsOf(t, quiet), "what was there is as it was")
	run(t, c, exitRefused, []string{"restore", live, "--yes"}, "is not empty")
	require.Equal(t, before, read(t, router, append(ids, l.ids...)), "a restore that was refused changed nothing")
	c.Close()

	p.release()
	t.Run("OneNode", func(t *testing.T) { intoOne(t, p, quiet, before, ids) })
	t.Run("FiveNodes", func(t *testing.T) { intoFive(t, live, quiet, before, ids, l, known) })
}

// interrupted ends backups in the middle.
func interrupted(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "interrupted")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		// Without one of the nodes it cannot end by itself.
		require.NoError(t, c.Data[0].Pause())
		o := order(t, c, "backup", dir)
		within(t, func() error {
			if len(partials(t, dir)) == 0 {
				return errors.New("it has not begun")
			}
			return nil
		})
		require.NoError(t, o.cmd.Process.Signal(sig))
		code, _, stderr := o.end()
		require.NoError(t, c.Data[0].Continue())
		require.NoDirExists(t, dir)
		if sig == syscall.SIGINT {
			require.Equal(t, exitInterrupted, code, stderr)
			require.Contains(t, stderr, "nothing is left of the backup")
			require.Empty(t, partials(t, dir))
		} else {
			require.Len(t, partials(t, dir), 1, "what is incomplete has another name")
		}
	}
}

// underFire takes a backup under load while a data node is killed.
func underFire(t *testing.T, c *cluster.Cluster, l *load, dir string) {
	t.Helper()
	require.NoError(t, c.Data[1].Pause())
	o := order(t, c, "backup", dir)
	within(t, func() error {
		if len(partials(t, dir)) == 0 {
			return errors.New("it has not begun")
		}
		return nil
	})
	require.NoError(t, c.Data[1].Restart())
	l.await(t, 5)
	o.expect(exitOK, "Backed up", "copied 256 of 256 groups")
	require.Empty(t, partials(t, dir))
	within(t, func() error { return c.WaitReady(t.Context()) })
}

// takeQuiet takes a backup of what does not change, checks what it says, and
// returns its checksums.
func takeQuiet(t *testing.T, c *cluster.Cluster, dir string, conversations int, archived bool) string {
	t.Helper()
	require.NoError(t, os.Mkdir(dir, 0o700))
	var m struct {
		Format    int    `json:"format"`
		ClusterID string `json:"cluster_id"`
		Groups    []any  `json:"groups"`
		Totals    struct {
			Conversations int `json:"conversations"`
			Messages      int `json:"messages"`
			Archived      int `json:"archive_messages"`
		} `json:"totals"`
	}
	require.NoError(t, json.Unmarshal([]byte(run(t, c, exitOK, []string{"backup", dir, "-o", "json"})), &m))
	require.Equal(t, 1, m.Format)
	require.Len(t, m.Groups, groupCount)
	require.Equal(t, conversations, m.Totals.Conversations)
	require.Positive(t, m.Totals.Messages)
	require.Equal(t, archived, m.Totals.Archived > 0)
	require.NotEmpty(t, m.ClusterID)
	return sumsOf(t, dir)
}

// sumsOf checks SHA256SUMS as sha256sum would, and returns it.
func sumsOf(t *testing.T, dir string) string {
	t.Helper()
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	require.NoError(t, err)
	count := 0
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		got := sha256.Sum256(data)
		require.Equal(t, sum, hex.EncodeToString(got[:]), name)
		count++
	}
	require.Equal(t, groupCount+2, count)
	return string(sums)
}

// intoOne restores the quiet backup into a single node, with the archive, and
// reads everything as it was.
func intoOne(t *testing.T, p *postgres, dir string, before map[string]told, ids []string) {
	c := start(t, 1, p.url())
	router := connect(t, c)
	refusesDamaged(t, c, router, dir)
	run(t, c, exitUsage, []string{"restore", dir}, "--yes")
	run(t, c, exitOK, []string{"restore", dir, "--dry-run"}, "undamaged")
	require.Empty(t, listed(t, router))
	run(t, c, exitOK, []string{"restore", dir, "--yes"}, "256 of 256 groups")
	require.Equal(t, before, read(t, router, keys(before)))
	run(t, c, exitOK, []string{"restore", dir, "--yes"}, "256 of 256 groups compared equal")
	id := ids[7]
	log := before[id].log
	require.Greater(t, len(log), 3)
	for i, got := range followed(t, c, id, 2, len(log)-2) {
		require.Equal(t, string(log[2+i].Raw), got, "a stream goes on from a cursor of before")
	}
	goesOn(t, router, ids)
	run(t, c, exitRefused, []string{"restore", dir, "--yes"}, "is not empty")
	sameReplicas(t, c)
}

// refusesDamaged offers backups that are not as they were taken.
func refusesDamaged(t *testing.T, c *cluster.Cluster, router *client.Client, dir string) {
	t.Helper()
	group := ""
	for i := range groupCount {
		name := filepath.Join("groups", fmt.Sprintf("%03d.state", i))
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Size() > 1000 {
			group = name
			break
		}
	}
	require.NotEmpty(t, group)
	for what, damage := range map[string]func(dir string) error{
		"flipped": func(dir string) error {
			return change(filepath.Join(dir, group), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		},
		"truncated": func(dir string) error {
			return change(filepath.Join(dir, group), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"gone": func(dir string) error { return os.Remove(filepath.Join(dir, group)) },
		"manifest": func(dir string) error {
			return change(filepath.Join(dir, "manifest.json"), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"conversations": 1`), []byte(`"conversations": 2`), 1)
			})
		},
	} {
		copied := filepath.Join(t.TempDir(), what)
		require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
		require.NoError(t, damage(copied))
		run(t, c, exitFailed, []string{"restore", copied, "--yes"}, "damaged", "the cluster was not touched")
	}
	run(t, c, exitFailed, []string{"restore", filepath.Join(dir, "no"), "--yes"}, "manifest.json is missing")
	require.Empty(t, listed(t, router))
}

func change(path string, to func([]byte) []byte) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, to(data), 0o600)
}

// intoFive restores the backup that was taken under load into five nodes, of
// which one is away at first, so that the first attempt can be killed halfway.
func intoFive(t *testing.T, dir, other string, before map[string]told, ids []string, l *load, known []int64) {
	c := start(t, 5, "")
	router := connect(t, c)
	require.NoError(t, c.Data[0].Pause())
	o := order(t, c, "restore", dir, "--yes")
	within(t, func() error {
		if !bytes.Contains(o.stderr.Bytes(), []byte("restored ")) {
			return errors.New("it has not begun to restore")
		}
		return nil
	})
	require.NoError(t, o.cmd.Process.Kill())
	_, _, _ = o.end()
	require.NoError(t, c.Data[0].Continue())
	run(t, c, exitOK, []string{"restore", dir, "--yes"}, "this one goes on with it", "256 of 256 groups")
	run(t, c, exitRefused, []string{"restore", other, "--yes"}, "is not empty")
	sameReplicas(t, c)
	for i, id := range l.ids {
		got, err := router.Conversation(t.Context(), id)
		require.NoError(t, err)
		require.GreaterOrEqual(t, int64(got.LastSeq), known[i], "what was acknowledged before the backup is in it")
		want := before[id].log
		require.LessOrEqual(t, got.LastSeq, uint64(len(want)))
		require.Equal(t, client.Head(want[:got.LastSeq]), got.Head, "what is there is what was there at one moment")
		same := followed(t, c, id, got.LastSeq-1, 1)
		require.Equal(t, string(want[got.LastSeq-1].Raw), same[0])
	}
	goesOn(t, router, ids)
	out := run(t, c, exitOK, []string{"nodes", "-o", "json"})
	var nodes struct {
		Nodes []struct {
			DiskUsed uint64 `json:"disk_used"`
			DiskFree uint64 `json:"disk_free"`
		} `json:"nodes"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &nodes))
	require.Len(t, nodes.Nodes, 5)
	for _, n := range nodes.Nodes {
		require.Positive(t, n.DiskUsed)
		require.Positive(t, n.DiskFree)
	}
}

// listed is the first page of conversations.
func listed(t *testing.T, c *client.Client) []any {
	t.Helper()
	reply, err := c.Do(t.Context(), "GET", "/v1/conversations", nil)
	require.NoError(t, err)
	var page struct {
		Conversations []any `json:"conversations"`
	}
	require.NoError(t, json.Unmarshal(reply.Body, &page), reply)
	return page.Conversations
}

func keys(m map[string]told) []string {
	var out []string
	for id := range m {
		out = append(out, id)
	}
	return out
}
