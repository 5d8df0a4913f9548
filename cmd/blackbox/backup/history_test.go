package backup

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/streams"
)

// told is what a client reads of a conversation, as bytes.
type told struct {
	conversation string // the resource
	log          []client.Message
}

// conversations fills a cluster with some of each kind and returns their ids.
func conversations(t *testing.T, c *client.Client) []string {
	t.Helper()
	var ids []string
	ctx := t.Context()
	for i := range 40 {
		id := fmt.Sprintf("history/%d ü", i)
		ids = append(ids, id)
		metadata := fmt.Sprintf(`{"metadata":{"long":"%s","n":%d}}`, strings.Repeat("x", i*20), i)
		put, err := c.Do(ctx, http.MethodPut, client.Path(id), []byte(metadata))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, put.Status, put)
		for n := range 1 + i%8 {
			_, err := c.Append(ctx, id, client.TextBody(fmt.Sprint("m", n), strings.Repeat("text ", 1+i*n)), key(n))
			require.NoError(t, err)
		}
		if i%5 == 0 { // a revision
			_, err := c.Append(ctx, id, client.TextBody("m0", "revised"))
			require.NoError(t, err)
		}
		if i%9 == 4 {
			reply, err := c.Do(ctx, http.MethodDelete, client.Path(id), nil)
			require.NoError(t, err)
			require.Less(t, reply.Status, 300, reply)
		}
	}
	require.NoError(t, c.Create(ctx, "large"))
	ids = append(ids, "large")
	for range 3 {
		_, err := c.Append(ctx, "large", client.TextBody("", strings.Repeat("0123456789", 20_000)))
		require.NoError(t, err)
	}
	return ids
}

func key(n int) client.Header {
	return client.Header{Name: "Idempotency-Key", Value: fmt.Sprint("key-", n)}
}

// read reads conversations whole and verifies their hash chains.
func read(t *testing.T, c *client.Client, ids []string) map[string]told {
	t.Helper()
	all := map[string]told{}
	for _, id := range ids {
		_, log, err := c.Verified(t.Context(), id)
		require.NoError(t, err)
		reply, err := c.Do(t.Context(), http.MethodGet, client.Path(id), nil)
		require.NoError(t, err)
		all[id] = told{string(reply.Body), log}
	}
	return all
}

// settled waits until everything is archived, where there is an archive, so that
// resources change no more.
func settled(t *testing.T, c *client.Client, ids []string) {
	t.Helper()
	for _, id := range ids {
		within(t, func() error {
			got, err := c.Conversation(t.Context(), id)
			if err == nil && got.ArchivedSeq != got.LastSeq {
				err = fmt.Errorf("%s is archived to %d of %d", id, got.ArchivedSeq, got.LastSeq)
			}
			return err
		})
	}
}

// followed reads a conversation as a stream that resumes after a sequence.
func followed(t *testing.T, c *cluster.Cluster, id string, after uint64, count int) []string {
	t.Helper()
	s, err := streams.Open(t.Context(), streams.SSE, c.Routers[0].URL(), id, streams.Options{Resume: &after})
	require.NoError(t, err)
	defer s.Close()
	var got []string
	for len(got) < count {
		e, err := s.Next(t.Context())
		require.NoError(t, err)
		if e.Type == "message" {
			got = append(got, string(e.Message))
		}
	}
	return got
}

// goesOn makes sure that conversations know what happened before: ids, keys,
// tombstones, sequences.
func goesOn(t *testing.T, c *client.Client, ids []string) {
	t.Helper()
	for i, id := range ids[:40] {
		before, err := c.Conversation(t.Context(), id)
		require.NoError(t, err)
		again, err := c.Append(t.Context(), id, client.TextBody("m0", "text "), key(0))
		require.NoError(t, err, "a retry is answered as the first time, even when closed")
		require.EqualValues(t, 1, again.Seq)
		fresh, err := c.Append(t.Context(), id, client.TextBody("fresh", "after the restore"))
		if before.Tombstoned {
			var refused *client.StatusError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, http.StatusGone, refused.Reply.Status)
			require.Equal(t, 4, i%9)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, before.LastSeq+1, fresh.Seq)
		duplicate, err := c.Append(t.Context(), id, client.TextBody("fresh", "after the restore"))
		require.NoError(t, err)
		require.True(t, duplicate.Duplicate)
		require.Equal(t, fresh.Seq, duplicate.Seq)
	}
}

// load is writers that append to conversations of their own until stopped, each
// message until it is acknowledged.
type load struct {
	ids  []string
	done []atomic.Int64 // messages acknowledged
	stop atomic.Bool
	wg   sync.WaitGroup
}

func startLoad(t *testing.T, c *client.Client) *load {
	t.Helper()
	l := &load{done: make([]atomic.Int64, 6)}
	for i := range l.done {
		id := fmt.Sprint("live-", i)
		l.ids = append(l.ids, id)
		require.NoError(t, c.Create(t.Context(), id))
		l.wg.Go(func() {
			for n := int64(1); !l.stop.Load() && t.Context().Err() == nil; {
				text := fmt.Sprintf("%s says %d", id, n)
				_, err := c.Append(t.Context(), id, client.TextBody(text, text))
				var status *client.StatusError
				switch {
				case err == nil:
					l.done[i].Store(n)
					n++
				case errors.As(err, &status) && status.Reply.Status < 500 && status.Reply.Status != http.StatusTooManyRequests:
					t.Error(err)
					return
				}
				select {
				case <-time.After(5 * time.Millisecond):
				case <-t.Context().Done():
				}
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop.Store(true)
	l.wg.Wait()
}

// acknowledged are the messages per conversation that are acknowledged now.
func (l *load) acknowledged() []int64 {
	out := make([]int64, len(l.done))
	for i := range out {
		out[i] = l.done[i].Load()
	}
	return out
}

// await waits until every writer has had n more acknowledged.
func (l *load) await(t *testing.T, n int64) {
	t.Helper()
	before := l.acknowledged()
	within(t, func() error {
		for i, now := range l.acknowledged() {
			if now < before[i]+n {
				return fmt.Errorf("%s has %d, had %d", l.ids[i], now, before[i])
			}
		}
		return nil
	})
}
