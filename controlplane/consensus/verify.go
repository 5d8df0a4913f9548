package consensus

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// Verify asks a quorum whether this member still leads and returns the term.
// Nothing is written. A member that was deposed without noticing, because it was
// cut off, gets an error: those of Propose, without a proposal whose outcome could
// be unknown. Raft counts answers to heartbeats that were on their way already,
// so what is verified is as old as a round trip; who cannot live with that uses
// Barrier.
func (m *Member) Verify(ctx context.Context) (term uint64, err error) {
	err = m.await(ctx, func(instance *raft.Raft) error {
		if err := instance.VerifyLeader().Error(); err != nil {
			return err
		}
		// Read after the quorum's word: a term that began meanwhile is another.
		term = instance.CurrentTerm()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("verify leadership: %w", err)
	}
	return term, nil
}
