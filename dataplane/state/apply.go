package state

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Apply applies committed entries in order and returns the outcomes of each
// entry's ops. An entry at or below the applied index is skipped and, like a
// configuration, has none. An entry that is not a command has one outcome,
// ErrBadCommand.
//
// Effects and applied index are written together, in one batch or, when the
// entries are large, in several, each of whole entries. Nothing is synced: the
// log that the entries came from must be, in the same database.
//
// An error means that storage failed, that stored data is corrupt, or
// (ErrNewerCommand) that this build is too old. Some of the entries may have
// been applied; the applied index tells. No further Apply succeeds.
func (m *Machine) Apply(entries []Entry) ([][]Outcome, error) {
	m.apply.Lock()
	defer m.apply.Unlock()
	if m.failed != nil {
		return nil, m.failed
	}
	outcomes := make([][]Outcome, len(entries))
	a := newApplier(m)
	err := a.run(entries, outcomes)
	a.free()
	if err != nil {
		m.failed = fmt.Errorf("apply to group %d: %w", m.group, storageError(err))
		return nil, m.failed
	}
	return outcomes, nil
}

func (a *applier) run(entries []Entry, outcomes [][]Outcome) error {
	for i := range entries {
		e := &entries[i]
		if e.Index <= a.meta.applied {
			continue
		}
		alone := e.Kind == KindCommand && restores(e.Data)
		if alone || a.batch.Len() >= batchBytes || a.messages >= batchMessages {
			if err := a.commit(); err != nil {
				return err
			}
		}
		var err error
		if outcomes[i], err = a.entry(e); err != nil {
			if errors.Is(err, ErrNewerCommand) {
				err = errors.Join(err, a.commit())
			}
			return err
		}
		if alone {
			if err := a.commit(); err != nil {
				return err
			}
			if ended(outcomes[i]) {
				a.restored()
			}
		}
	}
	return a.commit()
}

// entry adds the effects of one entry to the batch.
func (a *applier) entry(e *Entry) ([]Outcome, error) {
	var outcomes []Outcome
	if e.Kind == KindConfiguration {
		a.configuration = &configuration{index: e.Index, data: append([]byte(nil), e.Data...)}
	} else {
		err := a.command.decode(e.Data)
		switch {
		case errors.Is(err, ErrNewerCommand):
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		case err != nil:
			outcomes = []Outcome{{Err: err}}
		default:
			a.index = e.Index
			outcomes = make([]Outcome, len(a.command.ops))
			for i := range a.command.ops {
				if outcomes[i], err = a.operation(&a.command.ops[i]); err != nil {
					return nil, fmt.Errorf("entry %d: %w", e.Index, err)
				}
			}
		}
	}
	a.meta.applied, a.meta.term = e.Index, e.Term
	a.touched = true
	return outcomes, nil
}

// operation returns the outcome of one op. The error is a failure of storage,
// not of the op.
func (a *applier) operation(op *operation) (Outcome, error) {
	if op.kind == opRestore {
		return a.restore(&a.command.restore)
	}
	if a.meta.restoring {
		return Outcome{Err: errRestoring}, nil
	}
	switch op.kind {
	case opAppend:
		return a.append(op)
	case opPut:
		return a.put(op)
	case opTombstone:
		return a.tombstone(op)
	case opArchive:
		return a.archive(op)
	}
	return Outcome{Err: ErrInvalidOp}, nil
}

// commit writes what the entries since the last commit did, and shows it.
func (a *applier) commit() error {
	if !a.touched {
		return nil
	}
	m := a.m
	for _, d := range a.order {
		if d.changed {
			if err := a.store(d); err != nil {
				return err
			}
		}
	}
	if a.configuration != nil {
		if err := a.batch.Set(metaKey(m.group, kindConfiguration), a.configuration.append(nil), nil); err != nil {
			return err
		}
	}
	a.key = append(a.key[:0], m.metaKey...)
	if err := a.batch.Set(a.key, a.meta.append(a.value[:0]), nil); err != nil {
		return err
	}
	if err := a.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	m.meta = a.meta
	a.view.end(a.order)
	a.began = false
	m.publish(a.configuration)
	m.waiters.committed(a.order)
	if m.opts.OnCommit != nil {
		a.report()
	}
	return a.reset()
}

// publish shows the applied position, after readers can see what it covers.
func (m *Machine) publish(c *configuration) {
	m.published.Lock()
	m.published.meta = m.meta
	if c != nil {
		m.published.configuration = *c
	}
	m.published.Unlock()
}

// store writes a conversation's record, once for all ops of the batch.
func (a *applier) store(d *dirty) error {
	rec := &d.rec
	apart := 0
	if len(rec.metadata) > inlineMetadataBytes {
		apart = len(rec.metadata)
	}
	a.key = a.keys.metadata(a.key[:0], rec.num)
	switch {
	case d.newMetadata && apart > 0:
		if err := a.setRow(a.key, rec.metadata, rec.apart); err != nil {
			return err
		}
	case apart == 0 && rec.apart > 0:
		if err := a.deleteRow(a.key, rec.apart); err != nil {
			return err
		}
	}
	rec.apart = apart
	a.key = a.keys.record(a.key[:0], d.key)
	a.value = rec.append(a.value[:0])
	err := a.setRow(a.key, a.value, rec.size)
	rec.size = len(a.value)
	return err
}

// setRow writes a row and counts it; old is the length of the value that it
// replaces, 0 for a new row. No row has an empty value.
func (a *applier) setRow(key, value []byte, old int) error {
	a.countRow(len(key)-prefixLen, len(value), old)
	return a.batch.Set(key, value, nil)
}

func (a *applier) countRow(rest, value, old int) {
	if old > 0 {
		a.meta.bytes -= rowBytes(rest, old)
	} else {
		a.meta.rows++
	}
	a.meta.bytes += rowBytes(rest, value)
}

// deleteRow deletes a row whose value has the given length.
func (a *applier) deleteRow(key []byte, old int) error {
	a.meta.rows--
	a.meta.bytes -= rowBytes(len(key)-prefixLen, old)
	return a.batch.Delete(key, nil)
}

// report calls the commit hook.
func (a *applier) report() {
	for _, d := range a.order {
		if len(d.appended) > 0 || d.closed {
			a.committed = append(a.committed, Committed{Key: rpc.Key(d.key), Messages: d.appended, Tombstoned: d.closed})
		}
	}
	if len(a.committed) > 0 {
		a.m.opts.OnCommit(a.committed)
	}
	clear(a.committed)
	a.committed = a.committed[:0]
}
