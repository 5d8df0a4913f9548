package consensus

import (
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/raft"
)

// openStorage opens the directory and bootstraps it when it is new.
func (m *Member) openStorage() (err error) {
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return err
	}
	owner, err := readIdentity(m.cfg.Dir)
	if err != nil {
		return err
	}
	if owner != nil {
		if err := owner.check(m.cfg.Dir, m.cfg.ID); err != nil {
			return err
		}
	}
	m.store, err = openStore(m.cfg.Dir, owner != nil, m.logger)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			m.store.release()
			err = errors.Join(err, m.store.close())
		}
	}()
	if m.snapshots, err = openSnapshots(m.cfg.Dir, m.logger); err != nil {
		return err
	}
	m.snapshots.installed = m.snapshotInstalled
	if m.cfg.wrapBackend != nil {
		m.store.backend = m.cfg.wrapBackend(m.store.backend)
	}
	if err := m.alignLog(); err != nil {
		return err
	}
	if owner != nil {
		return m.checkMembers()
	}
	if err := m.bootstrap(); err != nil {
		return err
	}
	return writeIdentity(m.cfg.Dir, m.cfg.ID)
}

// alignLog makes the log fit the newest snapshot, which a crash or a conflict
// while a leader's snapshot was installed can have kept from happening. It runs
// while raft does not.
func (m *Member) alignLog() error {
	list, err := m.snapshots.List()
	if err != nil {
		return err
	}
	first, last := m.store.first.Load(), m.store.last.Load()
	if len(list) == 0 {
		if first > 1 {
			return fmt.Errorf("%w: log starts at entry %d and there is no snapshot", ErrCorrupt, first)
		}
		return nil
	}
	snapshot := list[0]
	if first > snapshot.Index+1 {
		return fmt.Errorf("%w: log starts at entry %d, snapshot ends at %d", ErrCorrupt, first, snapshot.Index)
	}
	if last == 0 {
		return nil
	}
	covered := last < snapshot.Index
	if !covered && first <= snapshot.Index {
		var entry raft.Log
		if err := m.store.GetLog(snapshot.Index, &entry); err != nil {
			return err
		}
		covered = entry.Term != snapshot.Term
	}
	if covered {
		return m.store.DeleteRange(first, last)
	}
	return nil
}

// bootstrap writes the first entry, the members, into an empty log. All members
// of a new group write the same one, so it does not matter which leads first.
func (m *Member) bootstrap() error {
	if m.store.last.Load() > 0 {
		// A first start that was interrupted wrote at most this entry.
		if m.store.last.Load() > 1 {
			return fmt.Errorf("%w: %s is missing beside a log", ErrWrongDirectory, identityFile)
		}
		return m.checkMembers()
	}
	list, err := m.snapshots.List()
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("%w: %s is missing beside a snapshot", ErrWrongDirectory, identityFile)
	}
	// A term without an entry is what is left of an interrupted bootstrap.
	if err := m.store.reset(); err != nil {
		return err
	}
	if err := raft.BootstrapCluster(m.raftConfig(), m.store, m.store, m.snapshots, nil, m.configuration()); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// configuration lists the members, whose raft addresses are their ids.
func (m *Member) configuration() raft.Configuration {
	var servers []raft.Server
	for _, id := range sortedKeys(m.cfg.Peers) {
		servers = append(servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	return raft.Configuration{Servers: servers}
}

// checkMembers compares the stored members with the configured peers.
func (m *Member) checkMembers() error {
	stored, err := m.storedMembers()
	if err != nil {
		return err
	}
	for _, server := range stored {
		if _, known := m.cfg.Peers[string(server.ID)]; !known || len(stored) != len(m.cfg.Peers) {
			return fmt.Errorf("%w: it was made for the members %v, the peers are %v",
				ErrWrongDirectory, serverIDs(stored), sortedKeys(m.cfg.Peers))
		}
	}
	return nil
}

// storedMembers reads the newest configuration from log and snapshot.
func (m *Member) storedMembers() ([]raft.Server, error) {
	first, last := m.store.first.Load(), m.store.last.Load()
	for index := last; index >= first && index > 0; index-- {
		var entry raft.Log
		if err := m.store.GetLog(index, &entry); err != nil {
			return nil, err
		}
		if entry.Type == raft.LogConfiguration {
			return raft.DecodeConfiguration(entry.Data).Servers, nil
		}
	}
	list, err := m.snapshots.List()
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: neither log nor snapshot name the members", ErrCorrupt)
	}
	return list[0].Configuration.Servers, nil
}
