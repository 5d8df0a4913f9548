package group

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/state"
)

// fsm adapts the state machine to raft.BatchingFSM. Raft calls it from its own
// FSM goroutine only.
type fsm Group

var _ raft.BatchingFSM = (*fsm)(nil)

// ApplyBatch applies committed entries in one storage batch, or on a follower
// defers them. Each response is []state.Outcome or an error; nobody waits for
// those of a follower. After a storage failure nothing is applied any more: the
// applied index stays, so a restart applies the rest.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	g := (*Group)(f)
	g.reached(logs)
	responses := make([]any, len(logs))
	var err error
	if g.defers(logs) {
		err = g.postpone(logs)
	} else {
		var outcomes [][]state.Outcome
		if outcomes, err = g.applyNow(entriesOf(logs)); err == nil {
			for i := range outcomes {
				responses[i] = outcomes[i]
			}
		}
	}
	if err != nil {
		for i := range responses {
			responses[i] = err
		}
	}
	return responses
}

func entriesOf(logs []*raft.Log) []state.Entry {
	entries := make([]state.Entry, len(logs))
	for i, l := range logs {
		entries[i] = state.Entry{Index: l.Index, Term: l.Term, Kind: state.KindCommand, Data: l.Data}
		if l.Type == raft.LogConfiguration {
			entries[i].Kind = state.KindConfiguration
		}
	}
	return entries
}

// Apply applies one entry.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot returns a snapshot that writes nothing: the state is already on
// disk. What raft does next, truncating its log, is the point.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := (*Group)(f).failed(); err != nil {
		return nil, err
	}
	// What raft will truncate must be in the state.
	if err := (*Group)(f).applyDeferred(); err != nil {
		return nil, err
	}
	return emptySnapshot{}, nil
}

type emptySnapshot struct{}

func (emptySnapshot) Persist(sink raft.SnapshotSink) error { return sink.Close() }
func (emptySnapshot) Release()                             {}

// Restore swaps in the state that the sink staged. The group's log is wiped in
// the same batch when it cannot be continued from the snapshot; raft keeps the
// old last index in memory then, so the instance is restarted in place
// (hashicorp/raft issue 697).
func (f *fsm) Restore(rc io.ReadCloser) error {
	g := (*Group)(f)
	if wrapper, ok := rc.(raft.ReadCloserWrapper); ok {
		rc = wrapper.WrappedReadCloser()
	}
	staged, ok := rc.(*stagedSnapshot)
	if !ok {
		return errors.New("restore: not a snapshot received by this replica")
	}
	if err := g.applyDeferred(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	term, have, err := g.entries.TermAt(staged.meta.Index)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	wipe := !have || term != staged.meta.Term
	last, err := g.entries.LastIndex()
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	err = staged.installer.Commit(func(b *pebble.Batch) error {
		if wipe {
			return g.entries.AppendWipe(b)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if wipe {
		g.entries.Wiped()
		if last >= staged.meta.Index {
			select {
			case g.wantRestart <- struct{}{}:
			default: // one restart serves all
			}
		}
	}
	return nil
}
