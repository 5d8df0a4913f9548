package group

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// steps turns a stream into a restore of two steps: all rows but records, and
// these.
func steps(t *testing.T, stream []byte) []*rpc.RestoreRequest {
	t.Helper()
	var out []*rpc.RestoreRequest
	var total rpc.GroupState
	after := uint64(0)
	for _, records := range []bool{false, true} {
		s, err := state.NewStreamReader(bytes.NewReader(stream), testGroup)
		require.NoError(t, err)
		total = s.State()
		step := &rpc.RestoreRequest{Group: testGroup, After: after, Numbers: s.Numbers()}
		for {
			row, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if row.IsRecord() == records {
				step.Rows = row.AppendTo(step.Rows)
				after++
			}
		}
		out = append(out, step)
	}
	out[1].Total = &total
	return out
}

// What one cluster exports another takes, on all of its replicas; meanwhile it
// takes nothing else.
func TestExportIsRestored(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	from := newCluster(t, 1, 1)
	source := from.leader()
	from.put(source, "chat")
	from.mustAppend(source, "chat", "one")
	var stream bytes.Buffer
	require.NoError(t, source.group.Export(ctx, &stream))
	at, err := source.group.GroupState()
	require.NoError(t, err)
	require.EqualValues(t, 1, at.Messages)

	to := newCluster(t, 3, 3)
	leader := to.leader()
	all := steps(t, stream.Bytes())
	reply, err := leader.group.Restore(ctx, all[0])
	require.NoError(t, err)
	require.True(t, reply.Taken, reply.Refused)
	require.True(t, reply.State.Restoring)
	_, err = leader.group.Put(ctx, &rpc.PutRequest{Key: "other"})
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	reply, err = leader.group.Restore(ctx, all[0])
	require.NoError(t, err)
	require.False(t, reply.Taken, "a step happens once")
	reply, err = leader.group.Restore(ctx, all[1])
	require.NoError(t, err)
	require.True(t, reply.Taken, reply.Refused)
	require.False(t, reply.State.Restoring)
	require.EqualValues(t, 2, to.mustAppend(leader, "chat", "two"))
	want, err := leader.group.Hash(ctx)
	require.NoError(t, err)
	for _, r := range to.others(leader) {
		to.eventually(func() bool {
			got, err := r.group.Hash(ctx)
			return err == nil && got.Applied == want.Applied && got.Hash == want.Hash
		}, "replicas are equal")
		_, err := r.group.GroupState()
		require.ErrorAs(t, err, new(*rpc.NotLeaderError))
		require.ErrorAs(t, r.group.Export(ctx, io.Discard), new(*rpc.NotLeaderError))
		_, err = r.group.Restore(ctx, all[0])
		require.ErrorAs(t, err, new(*rpc.NotLeaderError))
	}
}

func TestExportEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	leader := c.leader()
	c.put(leader, "chat")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, leader.group.Export(ctx, io.Discard), rpc.ErrUnavailable)
	full := errors.New("full")
	require.ErrorIs(t, leader.group.Export(t.Context(), writer(func([]byte) (int, error) { return 0, full })), full)
	_, err := leader.group.Restore(t.Context(), &rpc.RestoreRequest{Rows: make([]byte, 64<<20)})
	require.ErrorIs(t, err, state.ErrInvalidOp)
	g := leader.group
	c.stop(leader)
	require.Error(t, g.Export(t.Context(), io.Discard))
	_, err = g.Restore(t.Context(), &rpc.RestoreRequest{})
	require.Error(t, err)
}

type writer func([]byte) (int, error)

func (f writer) Write(p []byte) (int, error) { return f(p) }
