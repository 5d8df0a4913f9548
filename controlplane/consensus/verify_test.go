package consensus

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestVerifyWritesNothing(t *testing.T) {
	t.Parallel()
	m := mustOpen(t, singleConfig(t.TempDir()))
	mustLead(t, m)
	before := m.Status()
	for range 3 {
		term, err := m.Verify(testContext(t))
		require.NoError(t, err)
		require.Equal(t, before.Term, term)
	}
	require.Equal(t, before.LastIndex, m.Status().LastIndex)
	require.NoError(t, m.Close())
	_, err := m.Verify(testContext(t))
	require.ErrorIs(t, err, ErrClosed)
}

// A leader that is cut off verifies nothing although it does not know yet that
// it was deposed, and followers never do.
func TestVerifyNeedsAQuorum(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(clusterIDs...)
	leader := c.leader()
	term, err := leader.Verify(testContext(t))
	require.NoError(t, err)
	require.Equal(t, leader.Status().Term, term)
	for id, m := range c.members {
		if m != leader {
			_, err := m.Verify(testContext(t))
			require.ErrorIs(t, err, ErrNotLeader, id)
		}
	}
	c.streams[leader.cfg.ID].setCut(true)
	require.Eventually(t, func() bool {
		_, err := leader.Verify(testContext(t))
		return err != nil
	}, 20*time.Second, time.Millisecond, "answers that were on their way come to an end")
}
