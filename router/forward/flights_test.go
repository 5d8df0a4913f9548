package forward

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// stuck is a node that takes requests and says nothing until they are given up,
// as a paused process does.
type stuck struct {
	node
	entered chan struct{}
}

func (s *stuck) wait(ctx context.Context, then error) error {
	s.entered <- struct{}{}
	<-ctx.Done()
	return errors.Join(then, ctx.Err())
}

func (s *stuck) Append(ctx context.Context, _ *rpc.AppendRequest) (*rpc.AppendReply, error) {
	return nil, s.wait(ctx, rpc.ErrOutcomeUnknown)
}

func (s *stuck) Conversation(ctx context.Context, _ rpc.Key, _ rpc.ReadOptions) (*rpc.Conversation, error) {
	return nil, s.wait(ctx, rpc.ErrUnavailable)
}

// Goal: what was asked of a leader that fell silent is not left there once the
// placement table names another one.
func TestSilentLeaderIsGivenUpWhenAnotherLeads(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		op     func(ctx context.Context, f *Forwarder) error
		want   error
		second int // calls of the new leader
	}{
		"append with ids is made again": {func(ctx context.Context, f *Forwarder) error {
			_, err := f.Append(ctx, named)
			return err
		}, nil, 1},
		"append without ids is of unknown outcome": {func(ctx context.Context, f *Forwarder) error {
			_, err := f.Append(ctx, plain)
			return err
		}, rpc.ErrOutcomeUnknown, 0},
		"read is made again": {func(ctx context.Context, f *Forwarder) error {
			_, err := f.Conversation(ctx, "k", rpc.ReadOptions{})
			return err
		}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, placed(1, led("a")))
			silent := &stuck{entered: make(chan struct{}, 8)}
			c.silent = silent
			f := c.forwarder(t, nil)
			f.flights.grace = time.Millisecond
			done := make(chan error, 1)
			go func() { done <- tc.op(t.Context(), f) }()
			<-silent.entered
			// In an election the table may name nobody for a while.
			c.control.publish(placed(2, led("")))
			c.control.publish(placed(3, led("b")))
			select {
			case err := <-done:
				if tc.want == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, tc.want)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the request waits for a node that lost its group")
			}
			require.Equal(t, tc.second, c.nodes["b"].count())
		})
	}
}

func TestTriesOfOtherGroupsAndNodesGoOn(t *testing.T) {
	t.Parallel()
	var f flights
	f.grace, f.timers = 0, map[*time.Timer]struct{}{}
	moved, endMoved := f.begin(t.Context(), 1, "a")
	otherGroup, endGroup := f.begin(t.Context(), 2, "a")
	otherNode, endNode := f.begin(t.Context(), 1, "b")
	f.superseded(map[rpc.Group]control.NodeID{1: "a"})
	<-moved.Done()
	require.ErrorIs(t, context.Cause(moved), errSuperseded)
	later, endLater := f.begin(t.Context(), 1, "a") // it may lead again
	require.NoError(t, otherGroup.Err())
	require.NoError(t, otherNode.Err())
	require.NoError(t, later.Err())
	for _, end := range []func(){endMoved, endGroup, endNode, endLater} {
		end()
	}
	require.Empty(t, f.group[1].tries)
	f.close()
	f.superseded(map[rpc.Group]control.NodeID{1: "a"})
	require.Empty(t, f.timers)
}
