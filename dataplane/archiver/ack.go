package archiver

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// acknowledge tells the groups how far their conversations are archived. What
// is not told is written and told again, which changes nothing.
func (a *Archiver) acknowledge(ctx context.Context, items []*item) {
	groups := make(map[rpc.Group][]*item)
	for _, it := range items {
		switch {
		case !it.written:
		case len(it.run.Messages) == 0:
			it.outcome.clean = true // only the conversation itself had changed
		default:
			groups[it.group] = append(groups[it.group], it)
		}
	}
	var work errgroup.Group
	work.SetLimit(ackFanOut)
	for _, members := range groups {
		work.Go(func() error {
			for len(members) > 0 {
				n := min(len(members), maxAckMarks)
				if !a.tell(ctx, members[:n]) {
					return nil
				}
				members = members[n:]
			}
			return nil
		})
	}
	_ = work.Wait() // the functions return nil
}

// tell commits the watermarks of conversations of one group.
func (a *Archiver) tell(ctx context.Context, items []*item) bool {
	first := items[0]
	t := &a.trackers[first.group]
	ack := &state.ArchiveAck{Epoch: first.epoch, Keep: a.opts.TailKeep, Watermarks: make([]state.Watermark, len(items))}
	for i, it := range items {
		ack.Watermarks[i] = state.Watermark{Key: it.conv.Key, Seq: it.run.Messages[len(it.run.Messages)-1].Seq}
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	// Looked at last: writing may have taken longer than the lease.
	replica, ok := a.mine(first.group, first.epoch)
	if !ok {
		return false
	}
	err := replica.ArchiveAck(ctx, ack)
	t.acked(first.epoch, err)
	if err == nil {
		for i, it := range items {
			it.outcome.archived = ack.Watermarks[i].Seq
			it.outcome.clean = true
		}
		a.totals.acks.Add(1)
		return true
	}
	a.totals.failures.Add(1)
	switch {
	case errors.Is(err, rpc.ErrEpochFenced):
		a.log.Info("lease was taken over", "group", first.group, "epoch", first.epoch)
		t.fence(first.epoch)
		kick(a.renew)
	case errors.Is(err, rpc.ErrUnavailable), errors.Is(err, rpc.ErrClosed), ctx.Err() != nil:
		a.log.Debug("group did not take an acknowledgement, will be tried again", "group", first.group, "error", err)
	default:
		a.log.Warn("group did not take an acknowledgement, will be tried again", "group", first.group, "error", err)
	}
	return false
}
