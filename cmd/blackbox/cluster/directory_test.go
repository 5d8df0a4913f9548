package cluster

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// contents describes every file of a directory, so that two looks at it can be
// compared. The PID file is left out: it is of whoever tried last.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "PID" {
			return err
		}
		data, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%d bytes, %x", len(data), sha256.Sum256(data))
		return err
	}))
	return all
}

// TestDirectories starts processes with data directories that are not theirs to
// use. Each exits with an error in words, has changed nothing, and leaves the
// directory to its owner.
func TestDirectories(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Control: 3, Token: token})
	l := startLoad(t, c, "directories", 8, 100*time.Millisecond)
	l.awaitAppends(t)
	member, node := c.Control[2], c.Data[2]
	member.Kill()
	node.Kill()

	asData := func(id, dir string) []string {
		return []string{"data", "--id", id, "--data-dir", dir, "--control", c.ControlAddresses()}
	}
	asMember := func(id, dir string) []string {
		return []string{"control", "--id", id, "--data-dir", dir, "--peers", c.peersWith(id)}
	}
	label, card := filepath.Join(node.Dir, "data", "NODE"), filepath.Join(member.Dir, "control", "member.json")
	for _, test := range []struct {
		name   string
		dir    string
		args   []string
		damage func(t *testing.T)
		file   string // what damage changes
		says   []string
	}{
		{"of another node", node.Dir, asData("d9", node.Dir), nil, "", []string{node.Dir, "another node", "d3", "d9"}},
		{"in use", c.Data[0].Dir, asData("d1", c.Data[0].Dir), nil, "", []string{c.Data[0].Dir, "in use"}},
		{"of a newer format", node.Dir, asData("d3", node.Dir), func(t *testing.T) { relabel(t, label, 2) }, label, []string{node.Dir, "unknown format", "format 2"}},
		{"of an older format", node.Dir, asData("d3", node.Dir), func(t *testing.T) { relabel(t, label, 0) }, label, []string{node.Dir, "unknown format", "format 0"}},
		{"from before there were formats", node.Dir, asData("d3", node.Dir), func(t *testing.T) { require.NoError(t, os.Remove(label)) }, label, []string{node.Dir, "unknown format", "no NODE file"}},
		{"with a damaged label", node.Dir, asData("d3", node.Dir), func(t *testing.T) { require.NoError(t, os.WriteFile(label, []byte("{}"), 0o600)) }, label, []string{node.Dir, "label"}},
		{"of another member", member.Dir, asMember("c9", member.Dir), nil, "", []string{member.Dir, "c3", "c9"}},
		{"of a member in use", c.Control[0].Dir, asMember("c1", c.Control[0].Dir), nil, "", []string{c.Control[0].Dir, "in use"}},
		{"of a member's newer format", member.Dir, asMember("c3", member.Dir), func(t *testing.T) { renumber(t, card, 2) }, card, []string{member.Dir, "format 2"}},
		{"of a member's older format", member.Dir, asMember("c3", member.Dir), func(t *testing.T) { renumber(t, card, 0) }, card, []string{member.Dir, "format 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			running := test.file == "" && strings.Contains(test.name, "in use")
			if test.file != "" {
				before, err := os.ReadFile(test.file)
				require.NoError(t, err)
				test.damage(t)
				defer func() { require.NoError(t, os.WriteFile(test.file, before, 0o600)) }()
			}
			var before map[string]string
			if !running {
				before = contents(t, test.dir)
			}
			n := stranger(t, c, []string{"FASTPACA_TOKEN=" + token}, test.args...)
			refuses(t, n, test.says...)
			if !running {
				require.Equal(t, before, contents(t, test.dir), "a refused directory was changed")
			}
		})
	}

	require.NoError(t, node.Start())
	require.NoError(t, member.Start())
	ready(t, c.Nodes()...)
	l.awaitAppends(t)
	l.finish(t)
	sameReplicas(t, c)
	require.NoError(t, c.CheckRunning())
}

// relabel makes the label of a data node's directory one of another format, as
// a program of that format would have written it.
func relabel(t *testing.T, path string, format int) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var label struct {
		Format      int    `json:"format"`
		NodeID      string `json:"node_id"`
		ClusterID   string `json:"cluster_id"`
		Incarnation string `json:"incarnation"`
		Checksum    string `json:"checksum"`
	}
	require.NoError(t, json.Unmarshal(data, &label))
	label.Format, label.Checksum = format, ""
	bare, err := json.Marshal(&label)
	require.NoError(t, err)
	label.Checksum = fmt.Sprintf("%08x", castagnoli(bare))
	data, err = json.Marshal(&label)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(data, '\n'), 0o600))
}

// renumber does the same to the directory of a member of the control plane.
func renumber(t *testing.T, path string, format int) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	body, _, found := strings.Cut(string(data), "\n")
	require.True(t, found)
	changed := strings.Replace(body, `"format":1`, fmt.Sprintf(`"format":%d`, format), 1)
	require.NotEqual(t, body, changed)
	sum := strconv.FormatUint(uint64(castagnoli([]byte(changed))), 16)
	require.NoError(t, os.WriteFile(path, []byte(changed+"\n"+sum+"\n"), 0o600))
}

func castagnoli(data []byte) uint32 {
	return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
}

// peersWith names the members of the control plane for --peers, with id in place
// of the last one if it is none of them.
func (c *Cluster) peersWith(id string) string {
	var out []string
	known := false
	for _, n := range c.Control {
		known = known || n.Name == id
		out = append(out, n.Name+"="+c.reached(n))
	}
	if !known {
		out[len(out)-1] = id + "=127.0.0.1:1"
	}
	return strings.Join(out, ",")
}
