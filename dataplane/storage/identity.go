package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// FormatVersion is the format of a data directory that this program writes and
// the only one it opens.
const FormatVersion = 1

// labelName names the file that repeats the identity outside Pebble, so that a
// directory of another node or format is refused before Pebble touches it, and
// so that an operator can read whose it is.
const labelName = "NODE"

// maxLabelBytes bounds what is read of a label.
const maxLabelBytes = 4 << 10

// maxIDBytes bounds node and cluster ids.
const maxIDBytes = 256

// Identity says whose a data directory is. It is written when the directory is
// first opened; only ClusterID may be set later, once.
type Identity struct {
	Format int    `json:"format"`
	NodeID string `json:"node_id"`
	// ClusterID is empty until SetClusterID.
	ClusterID string `json:"cluster_id"`
	// Incarnation is random, 16 bytes in hex, and tells a wiped directory from
	// a restarted one.
	Incarnation string `json:"incarnation"`
}

// label is the stored form of an Identity. Its members and its checksum are
// the same in every format, so that any version can tell a format it does not
// know from damage.
type label struct {
	Identity
	Checksum string `json:"checksum"` // CRC-32C of the label without it, in hex
}

func newIdentity(nodeID string) Identity {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	incarnation := hex.EncodeToString(random[:])
	if nodeID == "" {
		nodeID = "node-" + incarnation[:8]
	}
	return Identity{Format: FormatVersion, NodeID: nodeID, Incarnation: incarnation}
}

func (l *label) sum() string {
	bare := label{Identity: l.Identity}
	b, _ := json.Marshal(&bare) // strings and ints always marshal
	return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli))
}

func encodeLabel(id Identity) []byte {
	l := label{Identity: id}
	l.Checksum = l.sum()
	b, _ := json.Marshal(&l)
	return append(b, '\n')
}

// decodeLabel returns rpc.ErrCorrupt for a damaged label and ErrFormat for one
// of another format.
func decodeLabel(b []byte) (Identity, error) {
	var l label
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return Identity{}, fmt.Errorf("%w: node label: %w", rpc.ErrCorrupt, err)
	}
	// Comparing the encoding catches damage that JSON reads past, such as the
	// case of a member's name.
	if l.Checksum != l.sum() || !bytes.Equal(b, encodeLabel(l.Identity)) {
		return Identity{}, fmt.Errorf("%w: node label fails its checksum", rpc.ErrCorrupt)
	}
	if l.Format != FormatVersion {
		return Identity{}, fmt.Errorf("%w: it has format %d, this program knows %d", ErrFormat, l.Format, FormatVersion)
	}
	return l.Identity, nil
}

// readLabel returns the identity in dir and whether there is one. A directory
// that holds a database but no label is of an unknown format.
func readLabel(fsys vfs.FS, dir string) (Identity, bool, error) {
	f, err := fsys.Open(fsys.PathJoin(dir, labelName))
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, false, refuseUnlabelled(fsys, dir)
	}
	if err != nil {
		return Identity{}, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLabelBytes))
	if err != nil {
		return Identity{}, false, err
	}
	id, err := decodeLabel(b)
	return id, err == nil, err
}

func refuseUnlabelled(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if kind, _ := parseLogName(name); kind != notALog || isTable(name) || name == "CURRENT" || strings.HasPrefix(name, "marker.") {
			return fmt.Errorf("%w: it holds a database (%s) but no %s file", ErrFormat, name, labelName)
		}
	}
	return nil
}

// writeLabel replaces the label atomically and durably.
func writeLabel(fsys vfs.FS, dir string, id Identity) error {
	name := fsys.PathJoin(dir, labelName)
	temp := name + ".tmp"
	f, err := fsys.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(encodeLabel(id))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(temp, name); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// identityKey is where Pebble holds the identity. This copy decides; the label
// follows it.
func identityKey() []byte {
	return append(AppendPrefix(nil, SpaceNode, 0), "identity"...)
}

// matchIdentity compares the identity in Pebble with the label and returns the
// one that is in force. It writes the record of a new directory, and repairs a
// label that a crash in SetClusterID left behind.
func matchIdentity(db *pebble.DB, fsys vfs.FS, dir string, onLabel Identity) (Identity, error) {
	value, closer, err := db.Get(identityKey())
	if errors.Is(err, pebble.ErrNotFound) {
		if err := db.Set(identityKey(), encodeLabel(onLabel), pebble.Sync); err != nil {
			return Identity{}, err
		}
		return onLabel, nil
	}
	if err != nil {
		return Identity{}, err
	}
	stored, err := decodeLabel(value)
	_ = closer.Close()
	if err != nil {
		return Identity{}, err
	}
	if stored.NodeID != onLabel.NodeID || stored.Incarnation != onLabel.Incarnation {
		return Identity{}, fmt.Errorf("%w: its database is of node %q (%s), its %s file of node %q (%s)", ErrForeignNode,
			stored.NodeID, stored.Incarnation, labelName, onLabel.NodeID, onLabel.Incarnation)
	}
	if stored != onLabel {
		if err := writeLabel(fsys, dir, stored); err != nil {
			return Identity{}, err
		}
	}
	return stored, nil
}
