package consensus

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

const (
	snapshotDir    = "snapshots"
	snapshotSuffix = ".snap"
	// snapshotsKept is how many snapshots stay on disk. Only the newest is ever
	// used; the one before it is for people.
	snapshotsKept = 2
	// maxSnapshotBytes bounds a snapshot. A catalog of the largest supported
	// cluster is far smaller; snapshots are therefore held in memory whole.
	maxSnapshotBytes = 64 << 20
	// maxSnapshotHeader bounds the encoded raft.SnapshotMeta.
	maxSnapshotHeader = 1 << 20

	snapshotMagic = "FPCTLSN1"
)

// snapshots is a raft.SnapshotStore of one file per snapshot: magic, header
// length, header (raft's metadata as JSON), payload, and the SHA-256 of all of
// it. raft's own file store leaves its metadata without a checksum, and with it
// the index and the members that raft would believe.
type snapshots struct {
	dir    string
	logger *slog.Logger
	// installed is called before a snapshot that another member sent becomes
	// visible, and may be nil.
	installed func(meta *raft.SnapshotMeta)
}

var _ raft.SnapshotStore = (*snapshots)(nil)

func openSnapshots(dir string, logger *slog.Logger) (*snapshots, error) {
	path := filepath.Join(dir, snapshotDir)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), tmpSuffix) {
			if err := os.Remove(filepath.Join(path, entry.Name())); err != nil {
				return nil, fmt.Errorf("open snapshots: %w", err)
			}
		}
	}
	return &snapshots{dir: path, logger: logger}, nil
}

// names returns the files of the store, newest first. Names sort like term and
// index.
func (s *snapshots) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), snapshotSuffix) {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	return names, nil
}

// List implements raft.SnapshotStore. It returns the newest snapshot only: an
// older one has a gap to the log, which starts where the newest ends.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.names()
	if err != nil || len(names) == 0 {
		return nil, err
	}
	meta, _, err := s.read(strings.TrimSuffix(names[0], snapshotSuffix))
	if err != nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{meta}, nil
}

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, payload, err := s.read(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, io.NopCloser(bytes.NewReader(payload)), nil
}

func (s *snapshots) read(id string) (*raft.SnapshotMeta, []byte, error) {
	path := filepath.Join(s.dir, id+snapshotSuffix)
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read snapshot: %w", err)
	}
	if info.Size() > maxSnapshotBytes+maxSnapshotHeader {
		return nil, nil, fmt.Errorf("%w: snapshot %s is too large", ErrCorrupt, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read snapshot: %w", err)
	}
	meta, payload, err := decodeSnapshot(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: snapshot %s: %w", ErrCorrupt, path, err)
	}
	if meta.ID != id {
		return nil, nil, fmt.Errorf("%w: snapshot %s says it is %s", ErrCorrupt, path, meta.ID)
	}
	return meta, payload, nil
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("create snapshot: version %d is not supported", version)
	}
	return &snapshotSink{store: s, meta: raft.SnapshotMeta{
		Version:            version,
		ID:                 fmt.Sprintf("%020d-%020d", term, index),
		Index:              index,
		Term:               term,
		Configuration:      configuration,
		ConfigurationIndex: configurationIndex,
	}}, nil
}

// reap removes all but the newest snapshots.
func (s *snapshots) reap() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, name := range names[min(len(names), snapshotsKept):] {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reap snapshots: %w", err)
		}
	}
	return nil
}

// snapshotSink gathers a snapshot in memory and writes it when it is closed.
// One goroutine of raft uses it.
type snapshotSink struct {
	store   *snapshots
	meta    raft.SnapshotMeta
	payload bytes.Buffer
	done    bool
}

// ID implements raft.SnapshotSink.
func (k *snapshotSink) ID() string { return k.meta.ID }

// Write implements raft.SnapshotSink.
func (k *snapshotSink) Write(p []byte) (int, error) {
	if k.payload.Len()+len(p) > maxSnapshotBytes {
		return 0, fmt.Errorf("write snapshot: larger than %d bytes", maxSnapshotBytes)
	}
	return k.payload.Write(p)
}

// Close implements raft.SnapshotSink. The snapshot is durable when it returns.
func (k *snapshotSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	k.meta.Size = int64(k.payload.Len())
	data, err := encodeSnapshot(&k.meta, k.payload.Bytes())
	if err != nil {
		return fmt.Errorf("close snapshot: %w", err)
	}
	if k.store.installed != nil {
		k.store.installed(&k.meta)
	}
	if err := writeFileAtomic(k.store.dir, k.meta.ID+snapshotSuffix, data); err != nil {
		return fmt.Errorf("close snapshot: %w", err)
	}
	return k.store.reap()
}

// Cancel implements raft.SnapshotSink.
func (k *snapshotSink) Cancel() error {
	k.done = true
	k.payload = bytes.Buffer{}
	return nil
}

func encodeSnapshot(meta *raft.SnapshotMeta, payload []byte) ([]byte, error) {
	header, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, len(snapshotMagic)+4+len(header)+len(payload)+sha256.Size)
	data = append(data, snapshotMagic...)
	data = binary.BigEndian.AppendUint32(data, uint32(len(header)))
	data = append(data, header...)
	data = append(data, payload...)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...), nil
}

func decodeSnapshot(data []byte) (*raft.SnapshotMeta, []byte, error) {
	fixed := len(snapshotMagic) + 4
	if len(data) < fixed+sha256.Size || string(data[:len(snapshotMagic)]) != snapshotMagic {
		return nil, nil, errors.New("not a snapshot")
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, nil, errors.New("checksum does not match")
	}
	size := binary.BigEndian.Uint32(body[len(snapshotMagic):])
	if uint64(size) > uint64(len(body)-fixed) {
		return nil, nil, errors.New("header is cut short")
	}
	header, payload := body[fixed:fixed+int(size)], body[fixed+int(size):]
	var meta raft.SnapshotMeta
	if err := json.Unmarshal(header, &meta); err != nil {
		return nil, nil, err
	}
	if meta.Size != int64(len(payload)) || meta.Version != raft.SnapshotVersionMax {
		return nil, nil, errors.New("header does not match the payload")
	}
	return &meta, payload, nil
}
