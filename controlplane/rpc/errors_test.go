package rpc

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNotLeaderError(t *testing.T) {
	t.Parallel()
	var err error = fmt.Errorf("table: %w", &NotLeaderError{Leader: "c2", Address: "host:1"})
	require.ErrorIs(t, err, ErrUnavailable)
	require.NotErrorIs(t, err, ErrClosed)
	var hint *NotLeaderError
	require.ErrorAs(t, err, &hint)
	require.Equal(t, "host:1", hint.Address)
	require.EqualError(t, hint, "control plane is led by c2 at host:1")
	require.EqualError(t, &NotLeaderError{}, "control plane has no leader")
}
