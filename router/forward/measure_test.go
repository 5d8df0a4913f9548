package forward

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// slowNode answers appends after a while, of which it says that it worked a
// part.
type slowNode struct {
	node
	answersAfter, took time.Duration
}

func (n *slowNode) Append(context.Context, *rpc.AppendRequest) (*rpc.AppendReply, error) {
	<-time.After(n.answersAfter)
	return &rpc.AppendReply{Seq: 1, Took: n.took}, n.run()
}

type measurement struct {
	op        string
	wait, hop time.Duration
	err       error
}

type recorder struct {
	mu   sync.Mutex // guards seen
	seen []measurement
}

func (r *recorder) add(m measurement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, m)
}

func (r *recorder) Appended(_ trace.Span, wait, hop time.Duration, err error) {
	r.add(measurement{"append", wait, hop, err})
}

func (r *recorder) Read(_ trace.Span, op Read, c rpc.Consistency, took time.Duration, err error) {
	r.add(measurement{op.String(), took, time.Duration(c), err})
}

// The hop is what a call takes beside what the node says it worked; what comes
// before the call is waiting for a route.
func TestAnAppendsTimeIsDivided(t *testing.T) {
	t.Parallel()
	const way, work = 50 * time.Millisecond, 20 * time.Millisecond
	c := newCluster(t, placed(1, led("a")))
	slow := &slowNode{answersAfter: way + work, took: work}
	measured := &recorder{}
	f := c.forwarder(t, func(cfg *Config) {
		cfg.Measure, cfg.BackoffMin, cfg.BackoffMax = measured, 40*time.Millisecond, 40*time.Millisecond
		cfg.Connect = func(id control.NodeID, address string) (rpc.Node, error) { return slow, nil }
	})
	_, err := f.Append(t.Context(), plain)
	require.NoError(t, err)
	slow.answer = fails(rpc.ErrUnavailable)
	slow.calls = 0
	_, err = f.Append(t.Context(), plain)
	require.NoError(t, err)
	slow.took = time.Hour
	_, err = f.Append(t.Context(), plain)
	require.NoError(t, err)
	require.Len(t, measured.seen, 3)
	require.GreaterOrEqual(t, measured.seen[0].hop, way)
	require.GreaterOrEqual(t, measured.seen[1].wait, way+work+20*time.Millisecond, "the failed try and the pause")
	require.GreaterOrEqual(t, measured.seen[1].hop, way)
	require.Zero(t, measured.seen[2].hop, "a node cannot have worked longer than the call took")
}

func TestEveryReadIsMeasured(t *testing.T) {
	t.Parallel()
	c := newCluster(t, placed(1, led("b")))
	measured := &recorder{}
	f := c.forwarder(t, func(cfg *Config) { cfg.Measure = measured })
	ctx := t.Context()
	_, _ = f.Conversation(ctx, "k", rpc.ReadOptions{Consistency: rpc.Stale})
	_, _ = f.Messages(ctx, &rpc.MessagesRequest{Key: "k"})
	_, _ = f.Tail(ctx, &rpc.TailRequest{Key: "k", ReadOptions: rpc.ReadOptions{Consistency: rpc.Linearizable}})
	for _, n := range c.nodes {
		n.list = func(*rpc.ListRequest) (*rpc.ListReply, error) { return nil, errors.New("broken") }
	}
	_, err := f.List(ctx, &rpc.ListRequest{Limit: 1})
	require.Error(t, err)
	var ops []string
	for _, m := range measured.seen {
		ops = append(ops, m.op)
	}
	require.Equal(t, []string{"conversation", "messages", "tail", "list"}, ops)
	require.EqualValues(t, rpc.Stale, measured.seen[0].hop)
	require.EqualValues(t, rpc.Linearizable, measured.seen[2].hop)
	require.Error(t, measured.seen[3].err)
	require.Equal(t, "unknown", Reads.String())
}
