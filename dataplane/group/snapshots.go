package group

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/state"
)

// snapshotID names the one snapshot a replica has: its state as it is now.
const snapshotID = "state"

// snapshots is raft's view of the replica's durable state: a snapshot is never
// copied to be taken, it is read out of storage when a follower needs it. The
// approach is Vault's (physical/raft/snapshot.go in hashicorp/vault).
type snapshots Group

var _ raft.SnapshotStore = (*snapshots)(nil)

// List describes the state at its applied index, so that a starting raft skips
// everything the state already covers.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	g := (*Group)(s)
	index, term := g.machine.Applied()
	if index == 0 {
		return nil, nil
	}
	conf, confIndex := g.machine.Configuration()
	return []*raft.SnapshotMeta{snapshotMeta(index, term, conf, confIndex, 0)}, nil
}

func snapshotMeta(index, term uint64, conf []byte, confIndex uint64, size int64) *raft.SnapshotMeta {
	meta := &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: snapshotID,
		Index: index, Term: term, ConfigurationIndex: confIndex, Size: size,
	}
	if len(conf) > 0 {
		meta.Configuration = raft.DecodeConfiguration(conf)
	}
	return meta
}

// Open returns the state as a stream: the current one for a follower, or the
// staged one that a sink has just received.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	g := (*Group)(s)
	if id != snapshotID {
		staged := g.staged.Swap(nil)
		if staged == nil || staged.meta.ID != id {
			return nil, nil, fmt.Errorf("snapshot %s: not staged here", id)
		}
		return &staged.meta, staged, nil
	}
	snap, err := g.machine.OpenSnapshot()
	if err != nil {
		return nil, nil, fmt.Errorf("group %d: open snapshot: %w", g.opts.Group, err)
	}
	index, term, conf, confIndex := snap.Meta()
	return snapshotMeta(index, term, conf, confIndex, snap.Size()), snap, nil
}

// Create returns a sink. Raft asks for one to take a snapshot of its own, which
// writes nothing, and to receive one from a leader; only the latter writes.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration,
	confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{
		group: (*Group)(s),
		meta: raft.SnapshotMeta{
			Version: version, ID: fmt.Sprintf("received-%d-%d", term, index),
			Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex,
		},
	}, nil
}

// sink stages a received snapshot beside the live state.
type sink struct {
	group     *Group
	meta      raft.SnapshotMeta
	installer *state.Installer // nil until the first byte
}

func (s *sink) ID() string {
	if s.installer == nil {
		return snapshotID
	}
	return s.meta.ID
}

func (s *sink) Write(p []byte) (int, error) {
	if s.installer == nil {
		in, err := s.group.machine.NewInstaller()
		if err != nil {
			return 0, fmt.Errorf("group %d: stage snapshot: %w", s.group.opts.Group, err)
		}
		s.installer = in
	}
	n, err := s.installer.Write(p)
	s.meta.Size += int64(n)
	return n, err
}

func (s *sink) Close() error {
	if s.installer == nil {
		return nil
	}
	staged := &stagedSnapshot{meta: s.meta, installer: s.installer}
	if old := s.group.staged.Swap(staged); old != nil {
		_ = old.installer.Abort()
	}
	return nil
}

func (s *sink) Cancel() error {
	if s.installer == nil {
		return nil
	}
	return s.installer.Abort()
}

// stagedSnapshot carries a received snapshot from the sink to fsm.Restore. It
// is not read again: Restore swaps it in.
type stagedSnapshot struct {
	meta      raft.SnapshotMeta
	installer *state.Installer
}

// Read fails: a staged snapshot is installed, not copied.
func (*stagedSnapshot) Read([]byte) (int, error) {
	return 0, errors.New("a staged snapshot is installed, not read")
}

// Close does nothing: the installer was consumed by Restore.
func (*stagedSnapshot) Close() error { return nil }
