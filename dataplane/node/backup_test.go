package node

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

func TestBackupOfAGroup(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir(), &control{})
	ready(t, n)
	ctx := t.Context()
	key := rpc.Key("chat")
	_, err := n.Put(ctx, &rpc.PutRequest{Key: key})
	require.NoError(t, err)
	at, err := n.GroupState(ctx, key.Group())
	require.NoError(t, err)
	require.EqualValues(t, 1, at.Conversations)
	var stream bytes.Buffer
	require.NoError(t, n.Export(ctx, key.Group(), &stream))
	s, err := state.NewStreamReader(&stream, key.Group())
	require.NoError(t, err)
	require.Equal(t, *at, s.State())
	reply, err := n.Restore(ctx, &rpc.RestoreRequest{Group: key.Group(), Numbers: 1})
	require.NoError(t, err)
	require.NotEmpty(t, reply.Refused)

	_, err = n.GroupState(ctx, rpc.Groups)
	require.ErrorIs(t, err, rpc.ErrNotFound)
	require.ErrorIs(t, n.Export(ctx, rpc.Groups, io.Discard), rpc.ErrNotFound)
	_, err = n.Restore(ctx, &rpc.RestoreRequest{Group: rpc.Groups})
	require.ErrorIs(t, err, rpc.ErrNotFound)
	for range maxExports {
		n.exporting <- struct{}{}
	}
	require.ErrorIs(t, n.Export(ctx, key.Group(), io.Discard), rpc.ErrOverloaded)
}

// Reports say what the disk holds, as it was a short while ago.
func TestReportsTellOfTheDisk(t *testing.T) {
	t.Parallel()
	n := &Node{engine: open(t, t.TempDir(), &control{}).engine}
	now := time.Now()
	used, free := n.lookAtDisk(now)
	require.Positive(t, used)
	require.Positive(t, free)
	n.disk.used = 1
	used, _ = n.lookAtDisk(now.Add(diskInterval - 1))
	require.EqualValues(t, 1, used, "the disk is not asked for every report")
	used, _ = n.lookAtDisk(now.Add(diskInterval))
	require.Greater(t, used, uint64(1))
}
