package group

import (
	"context"

	"github.com/fastpaca/fastpaca/dataplane/state"
)

// ArchiveAck tells the group how far its conversations are archived, so that it
// trims them. It returns rpc.ErrEpochFenced when an archiver with a higher epoch
// has come before; then nothing has changed. ack must not change until
// ArchiveAck has returned.
func (g *Group) ArchiveAck(ctx context.Context, ack *state.ArchiveAck) error {
	op := state.ArchiveAckOp(ack)
	_, err := g.propose(ctx, op, int64(opOverhead+op.Size()), nil)
	return err
}
