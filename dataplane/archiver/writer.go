package archiver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// item is one conversation in a batch.
type item struct {
	group   rpc.Group
	epoch   uint64
	entry   *entry
	replica Group
	conv    *rpc.Conversation
	from    uint64 // first message to write
	run     archive.Run
	outcome outcome
	written bool // durable in the archive, to be acknowledged
}

// runWriter writes one batch after the other.
func (a *Archiver) runWriter(ctx context.Context) {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return
	}
	var retry backoff
	for ctx.Err() == nil {
		batch := a.take()
		if len(batch) == 0 {
			select {
			case <-a.work:
			case <-ctx.Done():
			}
			continue
		}
		kick(a.work) // there may be more, for another writer
		err := a.archive(ctx, batch)
		for i := range batch {
			it := &batch[i]
			a.trackers[it.group].finish(it.entry, it.epoch, it.outcome)
		}
		if err == nil && progress(batch) {
			retry.reset()
			a.health.store(a.log, nil)
			continue
		}
		if err == nil { // the groups take nothing now
			retry.wait(ctx)
			continue
		}
		if ctx.Err() == nil {
			a.totals.failures.Add(1)
			a.health.store(a.log, err)
			retry.wait(ctx)
		}
	}
}

// progress reports whether anything came of a batch.
func progress(batch []item) bool {
	return slices.ContainsFunc(batch, func(it item) bool { return it.outcome.clean || it.outcome.problem != nil })
}

// take gathers conversations that are due, of all groups that may be archived
// here, in turns.
func (a *Archiver) take() []item {
	rows, all, due := a.opts.BatchRows, a.full(), a.due.Load()
	var batch []item
	first := int(a.next.Add(1))
	for i := range a.trackers {
		if rows <= 0 {
			break
		}
		t := &a.trackers[(first+i)%len(a.trackers)]
		if !t.tracking.Load() {
			continue
		}
		t.mu.Lock()
		epoch := t.epoch
		t.mu.Unlock()
		replica, ok := a.mine(t.group, epoch)
		if !ok {
			continue
		}
		var taken []*entry
		taken, epoch, rows = t.take(rows, all, due)
		for _, e := range taken {
			batch = append(batch, item{group: t.group, epoch: epoch, entry: e, replica: replica})
		}
	}
	return batch
}

// archive brings a batch into the archive and tells the groups. The outcomes
// are set in any case; the error is one that has nothing to do with a single
// conversation.
func (a *Archiver) archive(ctx context.Context, batch []item) error {
	for i := range batch {
		a.lookUp(ctx, &batch[i])
	}
	if err := a.continueFrom(ctx, batch); err != nil {
		return err
	}
	rows, bytes := 0, 0
	var runs []*item
	for i := range batch {
		it := &batch[i]
		if it.conv == nil || it.outcome.problem != nil || rows >= a.opts.BatchRows || bytes >= maxBatchBytes {
			continue
		}
		n, err := a.read(ctx, it, a.opts.BatchRows-rows, maxBatchBytes-bytes)
		if err != nil {
			a.spoil(it, fmt.Errorf("read from the group: %w", err))
			continue
		}
		rows, bytes = rows+len(it.run.Messages), bytes+n
		runs = append(runs, it)
	}
	if err := a.write(ctx, runs); err != nil {
		return err
	}
	a.acknowledge(ctx, runs)
	return nil
}

// lookUp reads the conversation as it is now.
func (a *Archiver) lookUp(ctx context.Context, it *item) {
	conv, err := it.replica.Conversation(ctx, it.entry.key, rpc.ReadOptions{Consistency: rpc.Stale})
	switch {
	case errors.Is(err, rpc.ErrNotFound):
		it.outcome.clean = true // the replica was wiped or set back; the lease will go
	case err != nil:
		a.spoil(it, fmt.Errorf("read from the group: %w", err))
	case !archive.ValidKey(conv.Key):
		it.outcome.problem = archive.ErrInvalidKey
	default:
		it.conv = conv
		it.outcome.last, it.outcome.archived = conv.LastSeq, conv.ArchivedSeq
	}
}

// spoil decides what an error of the group means: most pass.
func (a *Archiver) spoil(it *item, err error) {
	if errors.Is(err, rpc.ErrCorrupt) {
		it.outcome.problem = err
		a.log.Error("conversation cannot be archived", "group", it.group, "conversation", it.entry.key, "error", err)
	}
}

// LostError reports that the archive no longer holds messages that were
// acknowledged and trimmed. Nothing of the conversation is archived until they
// are restored.
type LostError struct {
	Key       rpc.Key
	Low, High uint64
}

func (e *LostError) Error() string {
	return fmt.Sprintf("conversation %q: the archive lost messages %d to %d, and the hot log no longer has them", e.Key, e.Low, e.High)
}

// continueFrom finds where each conversation goes on in the archive, and the
// hash that its chain continues.
func (a *Archiver) continueFrom(ctx context.Context, batch []item) error {
	var wants []archive.Want
	var asked []*item
	for i := range batch {
		if it := &batch[i]; it.conv != nil {
			wants, asked = append(wants, archive.Want{Key: it.conv.Key, Seq: it.conv.ArchivedSeq}), append(asked, it)
		}
	}
	if len(wants) == 0 {
		return nil
	}
	held, err := a.opts.Store.Held(ctx, wants)
	if err != nil {
		return err
	}
	var behind []archive.Want
	var again []*item
	for i, it := range asked {
		h := &held[i]
		it.from, it.run.Previous = it.conv.ArchivedSeq+1, h.Hash
		if it.conv.ArchivedSeq == 0 || h.HasHash && h.ArchivedSeq >= it.conv.ArchivedSeq {
			continue
		}
		// The archive was set back, as by a failover that lost commits. What is
		// still hot is archived once more.
		at := min(h.ArchivedSeq, it.conv.ArchivedSeq-1)
		if at+1 < it.conv.FirstSeq {
			err := &LostError{Key: it.conv.Key, Low: at + 1, High: it.conv.FirstSeq - 1}
			it.outcome.problem = err
			a.log.Error("conversation cannot be archived", "group", it.group, "error", err)
			continue
		}
		it.from = at + 1
		behind, again = append(behind, archive.Want{Key: it.conv.Key, Seq: at}), append(again, it)
	}
	if len(behind) == 0 {
		return nil
	}
	if held, err = a.opts.Store.Held(ctx, behind); err != nil {
		return err
	}
	for i, it := range again {
		if !held[i].HasHash {
			it.outcome.problem = &LostError{Key: it.conv.Key, Low: behind[i].Seq, High: behind[i].Seq}
			continue
		}
		it.run.Previous = held[i].Hash
		a.log.Warn("the archive was set back, archiving again what is still hot",
			"conversation", it.conv.Key, "from", it.from, "acknowledged", it.conv.ArchivedSeq)
	}
	return nil
}

// read reads what is to be written of a conversation, from the local replica:
// what it has applied is committed.
func (a *Archiver) read(ctx context.Context, it *item, rows, bytes int) (size int, err error) {
	it.run.Conversation = *it.conv
	for seq := it.from; seq <= it.conv.LastSeq && rows > 0 && size < bytes; {
		limit := min(uint64(rows), it.conv.LastSeq-seq+1, rpc.MaxPageMessages)
		page, err := it.replica.Messages(ctx, &rpc.MessagesRequest{
			Key: it.conv.Key, From: seq, Limit: int(limit), ReadOptions: rpc.ReadOptions{Consistency: rpc.Stale},
		})
		if err != nil {
			return size, err
		}
		if len(page.Messages) == 0 {
			break
		}
		for i := range page.Messages {
			size += len(page.Messages[i].JSON)
		}
		it.run.Messages = append(it.run.Messages, page.Messages...)
		seq, rows = page.Messages[len(page.Messages)-1].Seq+1, rows-len(page.Messages)
	}
	// Until its rows are there, the archive is not said to hold more than it did.
	it.run.Conversation.ArchivedSeq = it.from - 1
	return size, nil
}

// write stores the runs. Conversations that differ from the archive are taken
// out and set aside, and the others are written without them.
func (a *Archiver) write(ctx context.Context, items []*item) error {
	slices.SortFunc(items, func(x, y *item) int { return strings.Compare(string(x.conv.Key), string(y.conv.Key)) })
	for {
		var runs []archive.Run
		var members []*item
		for _, it := range items {
			if _, ok := a.mine(it.group, it.epoch); ok && it.outcome.problem == nil {
				runs, members = append(runs, it.run), append(members, it)
			}
		}
		if len(runs) == 0 {
			return nil
		}
		_, err := a.opts.Store.Write(ctx, runs)
		if err == nil {
			rows, bytes := 0, 0
			for _, it := range members {
				it.written = true
				rows += len(it.run.Messages)
				for i := range it.run.Messages {
					bytes += len(it.run.Messages[i].JSON)
				}
			}
			a.totals.wrote(rows, bytes)
			return nil
		}
		if !a.blame(members, err) {
			return err
		}
	}
}

// blame sets aside the conversations that an error names. It returns false when
// it names none.
func (a *Archiver) blame(members []*item, err error) bool {
	guilty := make(map[rpc.Key]error)
	var diverged *archive.DivergenceError
	var chain *archive.ChainError
	var row *archive.RowError
	switch {
	case errors.As(err, &diverged):
		for _, d := range diverged.Found {
			guilty[d.Key] = &archive.DivergenceError{Found: []archive.Divergence{d}}
		}
	case errors.As(err, &chain):
		guilty[chain.Key] = err
	case errors.As(err, &row):
		guilty[row.Key] = err
	}
	found := false
	for _, it := range members {
		if problem := guilty[it.conv.Key]; problem != nil {
			it.outcome.problem = problem
			found = true
			a.totals.divergences.Add(1)
			a.log.Error("conversation cannot be archived", "group", it.group, "conversation", it.conv.Key, "error", problem)
		}
	}
	return found
}
