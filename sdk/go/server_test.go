package fastpaca_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/sdk/go"
	"github.com/fastpaca/fastpaca/sdk/go/internal/process"
)

func closeIdle() { http.DefaultTransport.(*http.Transport).CloseIdleConnections() }

func clientOf(t *testing.T, s *process.Server, opts ...fastpaca.Option) *fastpaca.Client {
	t.Helper()
	client, err := fastpaca.New(s.URL(), opts...)
	require.NoError(t, err)
	return client
}

func TestRealOddIDs(t *testing.T) {
	t.Parallel()
	client := clientOf(t, server)
	for i, id := range []string{"a/b", "/", "..", ".", "../../x", "🦙", "a b+c", "100%", "%2F", "a?b#c", "a:b", "\n", strings.Repeat("é", 256)} {
		conv := client.Conversation(id)
		info, err := conv.Put(t.Context(), map[string]int{"i": i})
		require.NoError(t, err, "%q", id)
		require.Equal(t, id, info.ID)
		_, err = conv.Append(t.Context(), fastpaca.TextMessage("user", id))
		require.NoError(t, err, "%q", id)
		got, err := conv.Tail(t.Context(), 1)
		require.NoError(t, err, "%q", id)
		require.Equal(t, id, got[0].Text())
		require.NoError(t, conv.Tombstone(t.Context()))
		for m, err := range conv.Subscribe(t.Context(), 1) {
			require.NoError(t, err, "%q", id)
			require.Equal(t, id, m.Text())
		}
		_, err = conv.Append(t.Context(), fastpaca.TextMessage("user", "more"))
		require.ErrorIs(t, err, fastpaca.ErrTombstoned)
	}
}

func TestRealBytes(t *testing.T) {
	t.Parallel()
	conv := clientOf(t, server).Conversation("bytes")
	_, err := conv.Put(t.Context(), nil)
	require.NoError(t, err)
	part := fastpaca.Part(`{ "type":"x", "z":12345678901234567890, "a":1e400, "h":"<&>", "s":"\u00e9" }`)
	_, err = conv.Append(t.Context(), fastpaca.NewMessage{Role: "user", Parts: []fastpaca.Part{part}})
	require.NoError(t, err)
	messages, err := conv.Tail(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, part.String(), messages[0].Parts[0].String())
	require.Contains(t, string(messages[0].Raw()), part.String())
	for m := range conv.Subscribe(t.Context(), 1) {
		require.Equal(t, messages[0], m)
		break
	}
}

func TestRealIdempotencyKeys(t *testing.T) {
	t.Parallel()
	conv := clientOf(t, server).Conversation("keys")
	_, err := conv.Put(t.Context(), nil)
	require.NoError(t, err)
	first, err := conv.Append(t.Context(), fastpaca.TextMessage("user", "a"), fastpaca.IdempotencyKey("k"))
	require.NoError(t, err)
	again, err := conv.Append(t.Context(), fastpaca.TextMessage("user", "a"), fastpaca.IdempotencyKey("k"))
	require.NoError(t, err)
	require.True(t, again.Duplicate)
	require.Equal(t, first.Seq, again.Seq)
	_, err = conv.Append(t.Context(), fastpaca.TextMessage("user", "b"), fastpaca.IdempotencyKey("k"))
	var failed *fastpaca.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, fastpaca.CodeIdempotencyConflict, failed.Code)
}

func TestRealListing(t *testing.T) {
	t.Parallel()
	client := clientOf(t, server)
	for i := range 5 {
		_, err := client.Conversation(fmt.Sprintf("listed/%d", i)).Put(t.Context(), nil)
		require.NoError(t, err)
	}
	var ids []string
	for info, err := range client.Conversations(t.Context(), "listed/") {
		require.NoError(t, err)
		ids = append(ids, info.ID)
	}
	require.Equal(t, []string{"listed/0", "listed/1", "listed/2", "listed/3", "listed/4"}, ids)
	page, err := client.List(t.Context(), fastpaca.ListQuery{Prefix: "listed/", Limit: 2})
	require.NoError(t, err)
	require.NotEmpty(t, page.Next)
}

func TestRealSubscriptionFromNow(t *testing.T) {
	t.Parallel()
	conv := clientOf(t, server).Conversation("now")
	_, err := conv.Put(t.Context(), nil)
	require.NoError(t, err)
	_, err = conv.Append(t.Context(), fastpaca.TextMessage("user", "before"))
	require.NoError(t, err)
	for e, err := range conv.Events(t.Context(), fastpaca.FromNow) {
		require.NoError(t, err)
		switch e.Type {
		case fastpaca.EventCaughtUp:
			require.EqualValues(t, 1, e.Seq)
			_, err := conv.Append(t.Context(), fastpaca.TextMessage("user", "after"))
			require.NoError(t, err)
			continue
		case fastpaca.EventMessage:
			require.EqualValues(t, 2, e.Seq)
			require.Equal(t, "after", e.Message.Text())
		default:
			t.Fatalf("unexpected %s", e.Type)
		}
		break
	}
	for _, err := range clientOf(t, server).Conversation("never").Subscribe(t.Context(), fastpaca.FromNow) {
		require.ErrorIs(t, err, fastpaca.ErrNotFound)
	}
}

// Appends go on through crashes and restarts, and a subscriber sees each of
// them once, in order.
func TestRealServerRestarts(t *testing.T) {
	t.Parallel()
	own, err := process.Start()
	require.NoError(t, err)
	t.Cleanup(own.Close)
	patient := fastpaca.WithRetry(fastpaca.Retry{Attempts: 1000, MinWait: 5 * time.Millisecond, MaxWait: 2 * time.Second})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	conv := clientOf(t, own, patient, fastpaca.WithHTTPClient(&http.Client{Transport: transport})).Conversation("restarts")
	_, err = conv.Put(t.Context(), nil)
	require.NoError(t, err)

	const total = 60
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	window := make(chan struct{}, 5) // so that the reader is never far behind
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range total {
			select {
			case window <- struct{}{}:
			case <-ctx.Done():
				return
			}
			done, err := conv.Append(ctx, fastpaca.TextMessage("user", fmt.Sprint(i+1)))
			if err != nil || done.Seq != int64(i+1) {
				t.Errorf("append %d: %+v, %v", i+1, done, err)
				cancel()
				return
			}
		}
	})
	restarts := map[int64]func(){20: own.Kill, 40: own.Stop}
	next, reconnects := int64(1), 0
	for e, err := range conv.Events(ctx, 1) {
		require.NoError(t, err)
		if e.Type == fastpaca.EventReconnecting {
			reconnects++
		}
		if e.Type != fastpaca.EventMessage {
			continue
		}
		require.Equal(t, next, e.Seq)
		require.Equal(t, fmt.Sprint(next), e.Message.Text())
		if stop := restarts[next]; stop != nil {
			stop()
			require.NoError(t, own.Run())
		}
		<-window
		if next++; next > total {
			break
		}
	}
	wg.Wait()
	require.EqualValues(t, total+1, next)
	require.GreaterOrEqual(t, reconnects, 2)
	require.False(t, errors.Is(ctx.Err(), context.DeadlineExceeded))
}
