package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func someConversation(key string) rpc.Conversation {
	return rpc.Conversation{
		Key: rpc.Key(key), Version: 7, LastSeq: 6, FirstSeq: 2, ArchivedSeq: 1, Tombstoned: true,
		Metadata: []byte(`{"user":"u"}`), Head: [32]byte{1, 31: 2},
		CreatedAt: time.Date(2024, 2, 29, 1, 2, 3, 456789000, time.UTC), UpdatedAt: time.Unix(0, 1).UTC(),
	}
}

// Every field of every request and reply of the writes arrives.
func TestWritesArriveWhole(t *testing.T) {
	t.Parallel()
	version := uint64(0)
	req := &rpc.AppendRequest{
		Key: "\x00tenant\xff", IfVersion: &version, IdempotencyKey: "idem\xfe", BodyDigest: [32]byte{9},
		Messages: []rpc.NewMessage{
			{ID: "m1\xfd", Content: []byte(`"role":"user"`), Digest: [32]byte{31: 1}, TokenCount: 3},
			{Content: []byte(`"role":"assistant"`)},
		},
	}
	reply := &rpc.AppendReply{
		Seq: 4, LastSeq: 5, Version: 3, TokenCount: 8, Duplicate: true,
		Messages: []rpc.Appended{{Seq: 4, TokenCount: 3, Revises: 1, Duplicate: true}, {Seq: 5}},
	}
	client := pair(t, &stubNode{
		append: func(_ context.Context, got *rpc.AppendRequest) (*rpc.AppendReply, error) {
			require.Equal(t, req, got)
			return reply, nil
		},
		put: func(_ context.Context, got *rpc.PutRequest) (*rpc.PutReply, error) {
			c := someConversation(string(got.Key))
			c.Metadata = got.Metadata
			return &rpc.PutReply{Conversation: c, Created: got.Metadata == nil}, nil
		},
		tombstone: func(_ context.Context, key rpc.Key) error {
			require.Equal(t, rpc.Key("k"), key)
			return nil
		},
	})
	got, err := client.Append(within10s(t), req)
	require.NoError(t, err)
	require.Equal(t, reply, got)
	for _, metadata := range [][]byte{nil, {}, []byte(`{}`)} {
		got, err := client.Put(within10s(t), &rpc.PutRequest{Key: "k", Metadata: metadata})
		require.NoError(t, err)
		want := someConversation("k")
		want.Metadata = metadata
		require.Equal(t, &rpc.PutReply{Conversation: want, Created: metadata == nil}, got)
	}
	require.NoError(t, client.Tombstone(within10s(t), "k"))
}

// Every field of every request and reply of the reads arrives.
func TestReadsArriveWhole(t *testing.T) {
	t.Parallel()
	options := rpc.ReadOptions{Consistency: rpc.Linearizable, MinSeq: 12}
	messagesReq := &rpc.MessagesRequest{Key: "k", From: 3, Limit: 10, ReadOptions: options}
	tailReq := &rpc.TailRequest{Key: "k", Before: 9, Offset: 2, Limit: -1, ReadOptions: rpc.ReadOptions{Consistency: rpc.Stale}}
	page := &rpc.Page{LastSeq: 9, Earliest: 2, Messages: []rpc.Message{
		{Seq: 3, Version: 2, JSON: []byte(`{"seq":3}`)}, {Seq: 4, Version: 2, JSON: []byte(`{}`)}, {Seq: 5, Version: 4, JSON: []byte("x")},
	}}
	listReq := &rpc.ListRequest{Groups: []rpc.Group{0, 255}, Prefix: "p\xff", After: "q", Limit: 2, Consistency: rpc.Stale}
	list := &rpc.ListReply{Conversations: []rpc.Conversation{someConversation("a"), {Key: "b"}}}
	client := pair(t, &stubNode{
		conversation: func(_ context.Context, key rpc.Key, opts rpc.ReadOptions) (*rpc.Conversation, error) {
			require.Equal(t, options, opts)
			c := someConversation(string(key))
			return &c, nil
		},
		messages: func(_ context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
			require.Equal(t, messagesReq, req)
			return page, nil
		},
		tail: func(_ context.Context, req *rpc.TailRequest) (*rpc.Page, error) {
			require.Equal(t, tailReq, req)
			return &rpc.Page{}, nil
		},
		list: func(_ context.Context, req *rpc.ListRequest) (*rpc.ListReply, error) {
			require.Equal(t, listReq, req)
			return list, nil
		},
	})
	ctx := within10s(t)
	gotConversation, err := client.Conversation(ctx, "k", options)
	require.NoError(t, err)
	require.Equal(t, someConversation("k"), *gotConversation)
	gotPage, err := client.Messages(ctx, messagesReq)
	require.NoError(t, err)
	require.Equal(t, page, gotPage)
	gotPage, err = client.Tail(ctx, tailReq)
	require.NoError(t, err)
	require.Equal(t, &rpc.Page{}, gotPage)
	gotList, err := client.List(ctx, listReq)
	require.NoError(t, err)
	require.Equal(t, list, gotList)
}

// The largest that package rpc allows fits through, both ways.
func TestLargestMessages(t *testing.T) {
	t.Parallel()
	biggest := &rpc.AppendRequest{
		Key: rpc.Key(strings.Repeat("k", rpc.MaxKeyBytes)), IdempotencyKey: strings.Repeat("i", rpc.MaxIdempotencyKeyBytes),
		Messages: repeat(rpc.MaxAppendMessages, rpc.MaxAppendBytes/rpc.MaxAppendMessages),
	}
	for i := range biggest.Messages {
		biggest.Messages[i].ID = strings.Repeat("m", rpc.MaxMessageIDBytes)
		biggest.Messages[i].Digest = [32]byte{1}
		biggest.Messages[i].TokenCount = 1 << 63
	}
	page := &rpc.Page{Messages: make([]rpc.Message, rpc.MaxPageMessages)}
	for i := range page.Messages {
		page.Messages[i] = rpc.Message{Seq: 1 << 63, Version: 1 << 63, JSON: bytes.Repeat([]byte("j"), rpc.MaxPageBytes/rpc.MaxPageMessages)}
	}
	page.Messages[0].JSON = bytes.Repeat([]byte("j"), rpc.MaxMessageBytes)
	list := &rpc.ListReply{Conversations: make([]rpc.Conversation, maxListConversations)}
	for i := range list.Conversations {
		list.Conversations[i] = someConversation(strings.Repeat("k", rpc.MaxKeyBytes))
		list.Conversations[i].Metadata = bytes.Repeat([]byte("m"), rpc.MaxMetadataBytes)
	}
	client := pair(t, &stubNode{
		append: func(_ context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
			return &rpc.AppendReply{Messages: make([]rpc.Appended, len(req.Messages))}, nil
		},
		messages: func(context.Context, *rpc.MessagesRequest) (*rpc.Page, error) { return page, nil },
		list:     func(context.Context, *rpc.ListRequest) (*rpc.ListReply, error) { return list, nil },
	})
	reply, err := client.Append(within10s(t), biggest)
	require.NoError(t, err)
	require.Len(t, reply.Messages, rpc.MaxAppendMessages)
	got, err := client.Messages(within10s(t), &rpc.MessagesRequest{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, page, got)
	gotList, err := client.List(within10s(t), &rpc.ListRequest{Limit: maxListConversations})
	require.NoError(t, err)
	require.Len(t, gotList.Conversations, maxListConversations)
}

// What breaks the bounds is refused before it is sent.
func TestClientChecksBounds(t *testing.T) {
	t.Parallel()
	client := dial(t, serve(t, "", &stubNode{}, ServerOptions{}).address, Options{})
	ctx := within10s(t)
	_, err := client.Append(ctx, &rpc.AppendRequest{Key: "k"})
	require.ErrorIs(t, err, ErrInvalidRequest)
	_, err = client.Put(ctx, &rpc.PutRequest{})
	require.ErrorIs(t, err, rpc.ErrInvalidID)
	require.ErrorIs(t, client.Tombstone(ctx, ""), rpc.ErrInvalidID)
	_, err = client.Conversation(ctx, "k", rpc.ReadOptions{Consistency: 9})
	require.ErrorIs(t, err, ErrInvalidRequest)
	_, err = client.Messages(ctx, &rpc.MessagesRequest{})
	require.ErrorIs(t, err, rpc.ErrInvalidID)
	_, err = client.Tail(ctx, &rpc.TailRequest{})
	require.ErrorIs(t, err, rpc.ErrInvalidID)
	for _, req := range []*rpc.ListRequest{
		{Limit: maxListConversations + 1}, {Groups: make([]rpc.Group, rpc.Groups+1)},
		{Prefix: strings.Repeat("p", rpc.MaxKeyBytes+1)}, {Consistency: 9},
	} {
		_, err = client.List(ctx, req)
		require.ErrorIs(t, err, ErrInvalidRequest)
	}
	require.Zero(t, client.Stats().Requests)
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, opts := range []Options{
		{Streams: -1}, {Streams: maxStreams + 1}, {MaxQueued: -1}, {MaxQueuedBytes: -1}, {ConnectWait: -1}, {BackoffMin: time.Hour},
	} {
		_, err := Dial(connect(t, "127.0.0.1:1"), opts)
		require.Error(t, err)
	}
}

// A thousand callers at once, each with its own patience, over few streams:
// each gets its own answer or the truth about having none. The node says who
// asked, how often it was asked, and answers in any order.
func TestConcurrentAppendsGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	const callers, rounds = 1000, 5
	node := newRecorder()
	record := node.append
	node.append = func(ctx context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
		_, _ = record(ctx, req)
		var caller, round uint64
		if _, err := fmt.Sscanf(string(req.Messages[0].Content), "%d/%d", &caller, &round); err != nil {
			return nil, err
		}
		select {
		case <-time.After(rand.N(5 * time.Millisecond)):
		case <-ctx.Done():
			return nil, fmt.Errorf("stopped: %w", rpc.ErrOutcomeUnknown)
		}
		if caller%10 == 3 {
			return nil, &rpc.VersionConflictError{Current: caller}
		}
		return &rpc.AppendReply{Seq: caller, Version: round, Messages: []rpc.Appended{{Seq: caller}}}, nil
	}
	server := serve(t, "", node, ServerOptions{})
	client := dial(t, server.address, Options{Streams: 3})
	waitUp(t, client)

	var wg sync.WaitGroup
	for caller := range uint64(callers) {
		wg.Go(func() {
			for round := range uint64(rounds) {
				timeout := patience
				if caller%4 == 0 {
					timeout = rand.N(5 * time.Millisecond)
				}
				callAs(t, client, caller, round, timeout)
			}
		})
	}
	wg.Wait()
	node.seen.Range(func(key, count any) bool {
		require.EqualValues(t, 1, count.(*atomic.Int64).Load(), "append %s reached the node more than once", key)
		return true
	})
	require.Eventually(t, func() bool {
		s := client.Stats()
		return s.InFlight == 0 && s.Queued == 0
	}, patience, time.Millisecond, "nothing stays behind of those that gave up")
	for _, l := range client.lanes {
		require.Empty(t, l.calls)
	}
	require.Eventually(t, func() bool { return server.writeBytes.Load() == 0 }, patience, time.Millisecond)
}

// callAs appends as one caller and checks the answer.
func callAs(t *testing.T, client *Client, caller, round uint64, timeout time.Duration) {
	key := fmt.Sprintf("%d/%d", caller, round)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	reply, err := client.Append(ctx, appendOf(key, key))
	conflict, conflicted := errors.AsType[*rpc.VersionConflictError](err)
	switch {
	case err == nil:
		if reply.Seq != caller || reply.Version != round || reply.Messages[0].Seq != caller {
			t.Errorf("caller %d round %d got %+v", caller, round, reply)
		}
	case conflicted:
		if conflict.Current != caller {
			t.Errorf("caller %d got %v", caller, err)
		}
	case timeout == patience:
		t.Errorf("caller %d had time: %v", caller, err)
	case !errors.Is(err, rpc.ErrUnavailable) && !errors.Is(err, rpc.ErrOutcomeUnknown):
		t.Errorf("caller %d: %v", caller, err)
	}
}

// The caller may use its memory again as soon as the call has returned, also
// when it returned early.
func TestRequestIsCopied(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	got := make(chan string, 1)
	node := &stubNode{append: func(_ context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
		<-release
		got <- string(req.Messages[0].Content)
		return &rpc.AppendReply{}, nil
	}}
	client := pair(t, node)
	waitUp(t, client)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	req := appendOf("k", "as it was")
	_, err := client.Append(ctx, req)
	require.Error(t, err)
	copy(req.Messages[0].Content, "xxxxxxxxx")
	if errors.Is(err, rpc.ErrOutcomeUnknown) {
		close(release)
		require.Equal(t, "as it was", <-got)
	}
}

// The node gets the caller's deadline, or a little less so that its answer
// arrives in time.
func TestDeadlineTravels(t *testing.T) {
	t.Parallel()
	deadlines := make(chan time.Time, 1)
	tell := func(ctx context.Context) {
		d, ok := ctx.Deadline()
		require.True(t, ok, "the server bounds every request")
		deadlines <- d
	}
	client := pair(t, &stubNode{
		append: func(ctx context.Context, _ *rpc.AppendRequest) (*rpc.AppendReply, error) {
			tell(ctx)
			return &rpc.AppendReply{}, nil
		},
		messages: func(ctx context.Context, _ *rpc.MessagesRequest) (*rpc.Page, error) {
			tell(ctx)
			return &rpc.Page{}, nil
		},
	})
	waitUp(t, client)
	calls := []func(context.Context) error{
		func(ctx context.Context) error { _, err := client.Append(ctx, appendOf("k", "x")); return err },
		func(ctx context.Context) error {
			_, err := client.Messages(ctx, &rpc.MessagesRequest{Key: "k"})
			return err
		},
	}
	for _, call := range calls {
		for _, timeout := range []time.Duration{time.Second, time.Minute} {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			want, _ := ctx.Deadline()
			require.NoError(t, call(ctx))
			got := <-deadlines
			// The hop itself took some of it, on the server's clock.
			require.WithinRange(t, got, want.Add(-timeout/2), want.Add(timeout/4))
			cancel()
		}
		require.NoError(t, call(context.Background()))
		<-deadlines
	}
}

// A min_seq that is not reached is told as such, not as a broken connection.
func TestMinSeqTimeoutArrives(t *testing.T) {
	t.Parallel()
	client := pair(t, &stubNode{
		messages: func(ctx context.Context, _ *rpc.MessagesRequest) (*rpc.Page, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("group 1: %w", rpc.ErrMinSeqTimeout)
		},
		append: func(ctx context.Context, _ *rpc.AppendRequest) (*rpc.AppendReply, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("never proposed: %w", rpc.ErrUnavailable)
		},
	})
	waitUp(t, client)
	// Until one comes early enough on a machine that is busy.
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
		defer cancel()
		_, err := client.Messages(ctx, &rpc.MessagesRequest{Key: "k", ReadOptions: rpc.ReadOptions{MinSeq: 9}})
		return errors.Is(err, rpc.ErrMinSeqTimeout)
	}, patience, time.Millisecond)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
		defer cancel()
		_, err := client.Append(ctx, appendOf("k", "x"))
		return errors.Is(err, rpc.ErrUnavailable) && !errors.Is(err, rpc.ErrOutcomeUnknown)
	}, patience, time.Millisecond)
}

func TestRetryWait(t *testing.T) {
	t.Parallel()
	w := retryWait{min: 10 * time.Millisecond, max: 50 * time.Millisecond}
	for _, want := range []time.Duration{10, 20, 40, 50, 50} {
		got := w.next()
		require.GreaterOrEqual(t, got, want*time.Millisecond/2)
		require.LessOrEqual(t, got, want*time.Millisecond)
	}
	w.reset()
	require.LessOrEqual(t, w.next(), 10*time.Millisecond)
}
