package state

import (
	"fmt"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// put creates a conversation or replaces its metadata.
func (a *applier) put(op *operation) (Outcome, error) {
	d, err := a.conversation(op.key)
	if err != nil {
		return Outcome{}, err
	}
	rec := &d.rec
	created := !d.exists
	switch {
	case created:
		a.meta.nextConversation++
		a.meta.conversations++
		*rec = record{num: a.meta.nextConversation, first: 1, created: a.command.at, metadata: emptyMetadata}
		d.exists = true
	case rec.tombstoned:
		return Outcome{Err: rpc.ErrTombstoned}, nil
	}
	if op.setMetadata {
		rec.metadata = append([]byte(nil), op.metadata...)
		d.newMetadata = true
	}
	if created || op.setMetadata {
		rec.updated = a.now(d)
		d.changed = true
	}
	return Outcome{Reply: &rpc.PutReply{Conversation: rec.conversation(d.key), Created: created}}, nil
}

// tombstone closes a conversation for writing. Repeating it changes nothing.
func (a *applier) tombstone(op *operation) (Outcome, error) {
	d, err := a.conversation(op.key)
	switch {
	case err != nil:
		return Outcome{}, err
	case !d.exists:
		return Outcome{Err: rpc.ErrNotFound}, nil
	case d.rec.tombstoned:
		return Outcome{}, nil
	}
	d.rec.tombstoned = true
	d.rec.updated = a.now(d)
	d.changed, d.closed = true, true
	return Outcome{}, nil
}

// archive raises watermarks and trims.
func (a *applier) archive(op *operation) (Outcome, error) {
	if op.epoch < a.meta.epoch {
		return Outcome{Err: rpc.ErrEpochFenced}, nil
	}
	a.meta.epoch = op.epoch
	for i := range a.command.watermarks[op.from:op.to] {
		w := &a.command.watermarks[op.from+i]
		d, err := a.conversation(w.key)
		if err != nil {
			return Outcome{}, err
		}
		if !d.exists {
			continue
		}
		archived := min(w.seq, d.rec.last)
		if archived < d.rec.archived {
			continue
		}
		if archived > d.rec.archived {
			d.rec.archived = archived
			d.changed = true
		}
		if err := a.trim(d, op.keep); err != nil {
			return Outcome{}, fmt.Errorf("trim: %w", err)
		}
	}
	return Outcome{}, nil
}

// trim deletes the archived messages except the newest keep of them. With 10
// messages, 5 of them archived and keep 2, messages 4 to 10 stay: never anything
// above the watermark goes, and just below it keep messages stay for readers
// that follow the archive.
func (a *applier) trim(d *dirty, keep uint64) error {
	rec := &d.rec
	if rec.archived <= keep || rec.archived-keep < rec.first {
		return nil
	}
	first := rec.archived - keep + 1
	before, err := a.storedBefore(d, first)
	if err != nil {
		return err
	}
	gone := first - rec.first
	a.meta.messages -= gone
	a.meta.rows -= gone
	a.meta.bytes -= before - rec.trimmed
	if err := a.deleteMessages(rec.num, rec.first, first); err != nil {
		return err
	}
	rec.first, rec.trimmed = first, before
	d.changed = true
	return a.forget(d, 0)
}

// storedBefore returns what rec.stored was before message seq.
func (a *applier) storedBefore(d *dirty, seq uint64) (uint64, error) {
	if seq > d.rec.last {
		return d.rec.stored, nil
	}
	if seq > d.base {
		return d.before[seq-d.base-1], nil
	}
	a.key = a.keys.message(a.key[:0], d.rec.num, seq)
	row, found, err := getRow(a.m.db, a.old[:0], a.key)
	a.old = row
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("message %d is missing: %w", seq, rpc.ErrCorrupt)
	}
	m, err := decodeMessage(row)
	return m.stored, err
}

// deleteMessages deletes the messages from first up to but not with end.
func (a *applier) deleteMessages(num, first, end uint64) error {
	if end-first > pointDeletes {
		return a.batch.DeleteRange(a.keys.message(nil, num, first), a.keys.message(nil, num, end), nil)
	}
	for seq := first; seq < end; seq++ {
		a.key = a.keys.message(a.key[:0], num, seq)
		if err := a.batch.Delete(a.key, nil); err != nil {
			return err
		}
	}
	return nil
}
