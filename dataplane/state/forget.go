package state

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// forget releases ids and idempotency keys of messages that are neither hot nor
// among the newest rememberedMessages, in steps, a bounded number at a time but
// more than the op appended.
//
// It counts from last as it was before the current entry. Together with
// batchMessages this keeps every release row that it looks for out of the
// uncommitted batch, which cannot be read, and what it does independent of how
// entries are grouped into batches.
func (a *applier) forget(d *dirty, appended int) error {
	rec := &d.rec
	if d.entryLast < rememberedMessages {
		return nil
	}
	target := min(d.entryLast-rememberedMessages, rec.first-1)
	if target < rec.floor+forgetStep {
		return nil
	}
	target = min(target, rec.floor+uint64(max(forgetMost, 2*appended)))
	if rec.releases > 0 {
		if err := a.forgetRows(d, target); err != nil {
			return fmt.Errorf("forget message ids: %w", err)
		}
	}
	rec.floor = target
	d.changed = true
	return nil
}

// forgetRows releases the appends that ended above floor and up to target.
func (a *applier) forgetRows(d *dirty, target uint64) error {
	it, err := a.m.db.NewIter(&pebble.IterOptions{
		LowerBound: a.keys.release(nil, d.rec.num, d.rec.floor+1),
		UpperBound: a.keys.release(nil, d.rec.num, target+1),
	})
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		err = a.forgetRow(d, it)
	}
	return errors.Join(err, it.Error(), it.Close())
}

func (a *applier) forgetRow(d *dirty, it *pebble.Iterator) error {
	row, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	end, ok := seqOf(it.Key())
	if !ok {
		return fmt.Errorf("release key: %w", rpc.ErrCorrupt)
	}
	dec := decoder{in: row}
	if idemKey := dec.bounded(0, maxIdemKeyBytes); len(idemKey) > 0 {
		a.key = a.keys.idempotency(a.key[:0], d.rec.num, idemKey)
		if err := a.dropRow(); err != nil {
			return err
		}
	}
	for len(dec.in) > 0 && !dec.bad {
		r := dec.released()
		if dec.bad {
			break
		}
		if err := a.forgetID(d, end-r.distance, &r); err != nil {
			return err
		}
	}
	if dec.bad {
		return fmt.Errorf("release row: %w", rpc.ErrCorrupt)
	}
	d.rec.releases--
	return a.deleteRow(it.Key(), len(row))
}

// forgetID drops what is kept of the message seq: the row of its id when it is
// the newest with it, or else that of its content.
func (a *applier) forgetID(d *dirty, seq uint64, r *released) error {
	a.key = a.keys.id(a.key[:0], d.rec.num, r.id)
	row, err := a.row(a.key)
	if err != nil {
		return err
	}
	newest, _, err := decodeNewest(row)
	if err != nil {
		return err
	}
	if newest.seq == seq {
		return a.drop(a.key, len(row))
	}
	a.key = revision(a.key, r.digest)
	return a.dropRow()
}

// dropRow drops the row at a.key, which must exist.
func (a *applier) dropRow() error {
	row, err := a.row(a.key)
	if err != nil {
		return err
	}
	if row == nil {
		return fmt.Errorf("remembered row is missing: %w", rpc.ErrCorrupt)
	}
	return a.drop(a.key, len(row))
}
