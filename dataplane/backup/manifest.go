package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Format is the version of the files that this build writes and reads.
const Format = 1

// Names of files. Groups have theirs below groupDir.
const (
	manifestFile = "manifest.json"
	controlFile  = "control.json"
	sumsFile     = "SHA256SUMS"
	groupDir     = "groups"
)

// maxManifestBytes bounds what is read of a manifest, of the sums, and of what
// the control plane said.
const maxManifestBytes = 64 << 20

var (
	// ErrDamaged: a file is not what was written, or is missing.
	ErrDamaged = errors.New("backup is damaged")
	// ErrVersion: the backup is of another format than this build reads.
	ErrVersion = errors.New("backup is of another format")
	// ErrNotEmpty: the directory, or the cluster, holds something already.
	ErrNotEmpty = errors.New("is not empty")
)

// Manifest says what a backup consists of.
type Manifest struct {
	Format    int       `json:"format"`
	Version   string    `json:"version"` // of the program that wrote it
	ClusterID string    `json:"cluster_id"`
	Began     time.Time `json:"began_at"`
	Ended     time.Time `json:"ended_at"`
	Totals    Totals    `json:"totals"`
	Control   File      `json:"control"`
	Groups    []Group   `json:"groups"` // ascending, all there are
}

// Totals add up the groups.
type Totals struct {
	Conversations uint64 `json:"conversations"`
	Messages      uint64 `json:"messages"`         // in the hot log
	Archived      uint64 `json:"archive_messages"` // in the archive only, and so not in the backup
	Bytes         uint64 `json:"bytes"`            // of files
}

// File is a file of the backup.
type File struct {
	Name   string `json:"file"` // slash-separated, below the backup's directory
	Bytes  uint64 `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Group is what the backup holds of a group.
type Group struct {
	File
	Group         rpc.Group `json:"group"`
	Applied       uint64    `json:"applied"` // index of the newest entry in it
	StateHash     string    `json:"state_hash"`
	Conversations uint64    `json:"conversations"`
	Messages      uint64    `json:"messages"`
	Archived      uint64    `json:"archive_messages"`
	Rows          uint64    `json:"rows"`
}

func groupFile(group rpc.Group) string { return fmt.Sprintf("%s/%03d.state", groupDir, group) }

func local(dir, name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }

// decodeManifest reads a manifest that is known to be undamaged.
func decodeManifest(data []byte) (*Manifest, error) {
	var m Manifest
	// The format comes first: another one may look different.
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, manifestFile, err)
	}
	if version.Format != Format {
		return nil, fmt.Errorf("%w: it is %d, this program reads %d", ErrVersion, version.Format, Format)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, manifestFile, err)
	}
	if len(m.Groups) != rpc.Groups {
		return nil, fmt.Errorf("%w: %s names %d groups of %d", ErrDamaged, manifestFile, len(m.Groups), rpc.Groups)
	}
	for i := range m.Groups {
		if g := &m.Groups[i]; g.Group != rpc.Group(i) || g.Name != groupFile(g.Group) {
			return nil, fmt.Errorf("%w: %s: group %d", ErrDamaged, manifestFile, i)
		}
	}
	if m.Control.Name != controlFile {
		return nil, fmt.Errorf("%w: %s: %q", ErrDamaged, manifestFile, m.Control.Name)
	}
	return &m, nil
}
