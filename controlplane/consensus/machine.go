package consensus

import (
	"errors"
	"io"

	"github.com/hashicorp/raft"
)

// machine shows a StateMachine to raft.
type machine struct{ StateMachine }

var (
	_ raft.FSM                = machine{}
	_ raft.ConfigurationStore = machine{}
)

// Apply implements raft.FSM.
func (m machine) Apply(entry *raft.Log) any {
	return m.StateMachine.Apply(entry.Index, entry.Data)
}

// StoreConfiguration implements raft.ConfigurationStore. Raft keeps
// configurations itself; being told of them lets it take a snapshot whose last
// entry is one.
func (m machine) StoreConfiguration(uint64, raft.Configuration) {}

// Snapshot implements raft.FSM.
func (m machine) Snapshot() (raft.FSMSnapshot, error) {
	write, err := m.Capture()
	if err != nil {
		return nil, err
	}
	return capture(write), nil
}

// Restore implements raft.FSM.
func (m machine) Restore(r io.ReadCloser) error {
	return errors.Join(m.StateMachine.Restore(r), r.Close())
}

// capture is a state on its way into a snapshot.
type capture func(w io.Writer) error

// Persist implements raft.FSMSnapshot. Raft closes the sink.
func (c capture) Persist(sink raft.SnapshotSink) error { return c(sink) }

// Release implements raft.FSMSnapshot.
func (c capture) Release() {}
