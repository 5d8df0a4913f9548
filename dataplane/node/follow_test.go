package node

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// listener hands what it hears to the test.
type listener struct {
	news chan rpc.News
	ends chan error
}

func (l *listener) Deliver(n rpc.News) { l.news <- n }
func (l *listener) End(err error)      { l.ends <- err }

func TestNodeIsAFeed(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir(), &control{})
	ready(t, n)
	ctx := t.Context()
	l := &listener{news: make(chan rpc.News, 8), ends: make(chan error, 8)}
	reply, stop, err := n.Subscribe(ctx, "chat", l)
	require.NoError(t, err)
	require.Equal(t, &rpc.SubscribeReply{}, reply)
	_, err = n.Put(ctx, &rpc.PutRequest{Key: "chat"})
	require.NoError(t, err)
	content := []byte(`"role":"user"`)
	_, err = n.Append(ctx, &rpc.AppendRequest{Key: "chat", Messages: []rpc.NewMessage{{Content: content}}})
	require.NoError(t, err)
	news := <-l.news
	require.EqualValues(t, 1, news.LastSeq)
	require.Contains(t, string(news.Messages[0].JSON), string(content))
	stop()
	require.Zero(t, n.subscriptions.Used())

	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err = n.Subscribe(gone, "chat", l)
	require.ErrorIs(t, err, rpc.ErrUnavailable)

	_, _, err = n.Subscribe(ctx, "chat", l)
	require.NoError(t, err)
	n.Drain(ctx)
	_, _, err = n.Subscribe(ctx, "chat", l)
	require.ErrorIs(t, err, rpc.ErrClosed)
	require.Empty(t, l.ends, "nobody else could lead")
	require.NoError(t, n.Close())
	require.ErrorIs(t, <-l.ends, rpc.ErrClosed)
}

func TestNodeTellsHashes(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir(), &control{})
	ready(t, n)
	first, err := n.StateHash(t.Context(), 3)
	require.NoError(t, err)
	require.Equal(t, rpc.Group(3), first.Group)
	require.Positive(t, first.Applied)
	_, err = n.StateHash(t.Context(), rpc.Groups)
	require.ErrorIs(t, err, rpc.ErrNotFound)

	for range maxStateHashes {
		n.hashing <- struct{}{}
	}
	_, err = n.StateHash(t.Context(), 3)
	require.ErrorIs(t, err, rpc.ErrOverloaded)
	<-n.hashing
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again, err := n.StateHash(ctx, 3)
	require.NoError(t, err)
	require.Equal(t, first.Hash, again.Hash)
}
