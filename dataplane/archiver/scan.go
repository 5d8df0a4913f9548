package archiver

import (
	"context"
	"errors"

	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// runScan reads groups whose lease is new and compares every conversation with
// the archive: what was committed before is not told by hooks, and neither is
// what the archive has lost.
func (a *Archiver) runScan(ctx context.Context) {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return
	}
	var retry backoff
	for {
		worked, err := a.scanRound(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.health.store(a.log, err)
			if !retry.wait(ctx) {
				return
			}
			continue
		case worked:
			retry.reset()
			a.health.store(a.log, nil)
			continue
		}
		select {
		case <-a.scan:
		case <-ctx.Done():
			return
		}
	}
}

// scanRound scans a page of every group that needs it.
func (a *Archiver) scanRound(ctx context.Context) (worked bool, err error) {
	for i := range a.trackers {
		t := &a.trackers[i]
		cursor, epoch, wanted := t.nextScan()
		if !wanted {
			continue
		}
		g, ok := a.mine(t.group, epoch)
		if !ok {
			continue
		}
		list, err := g.List(ctx, "", cursor, scanPage, rpc.Stale)
		if err != nil {
			a.log.Warn("reading a group for the archive", "group", t.group, "error", err)
			continue // the next tick tries again
		}
		found, err := a.compare(ctx, list)
		if err != nil {
			return worked, err
		}
		last := ""
		if len(list) == scanPage {
			last = string(list[len(list)-1].Key)
		}
		t.scanned(epoch, found, last)
		worked = true
		if len(found) > 0 {
			kick(a.work)
		}
	}
	return worked, nil
}

// compare returns what the archive lacks of the listed conversations.
func (a *Archiver) compare(ctx context.Context, list []rpc.Conversation) ([]entryNews, error) {
	wants := make([]archive.Want, 0, len(list))
	kept := make([]*rpc.Conversation, 0, len(list))
	var found []entryNews
	for i := range list {
		c := &list[i]
		if !archive.ValidKey(c.Key) {
			found = append(found, newsOf(c)) // the writer says why not
			continue
		}
		wants, kept = append(wants, archive.Want{Key: c.Key, Seq: c.ArchivedSeq}), append(kept, c)
	}
	if len(wants) == 0 {
		return found, nil
	}
	held, err := a.opts.Store.Held(ctx, wants)
	if err != nil {
		return nil, err
	}
	if len(held) != len(wants) {
		return nil, errors.New("the archive answered for other conversations")
	}
	for i, c := range kept {
		h := &held[i]
		if !h.Exists || !h.HasHash || h.ArchivedSeq < c.ArchivedSeq || c.LastSeq > c.ArchivedSeq ||
			h.UpdatedAt.Before(c.UpdatedAt) || c.Tombstoned && !h.Tombstoned {
			found = append(found, newsOf(c))
		}
	}
	return found, nil
}

func newsOf(c *rpc.Conversation) entryNews {
	n := entryNews{key: c.Key, touched: true, now: true}
	if c.LastSeq > c.ArchivedSeq {
		n.first, n.last = c.ArchivedSeq+1, c.LastSeq
	}
	return n
}
