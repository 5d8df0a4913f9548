package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// everything grants every lease to whoever asks.
type everything struct{}

func (everything) Lease(context.Context, *controlrpc.LeaseRequest) (*controlrpc.LeaseReply, error) {
	reply := &controlrpc.LeaseReply{TTL: 10 * time.Second}
	for g := range rpc.Groups {
		reply.Leases = append(reply.Leases, controlrpc.Lease{Group: uint16(g), Epoch: 1})
	}
	return reply, nil
}

func openArchived(t *testing.T, dir, url string, keep uint64) *Node {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	store, err := archive.Open(archive.Config{URL: url, Migrate: true, Logger: log})
	require.NoError(t, err)
	t.Cleanup(store.Close)
	conf := DefaultConfig()
	conf.ID, conf.Dir, conf.Control, conf.Logger = "n1", dir, &control{}, log
	conf.Archive = &ArchiveConfig{Store: store, Leases: everything{}, Interval: 20 * time.Millisecond, BatchRows: 500, TailKeep: keep}
	n, err := Open(conf)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	ready(t, n)
	return n
}

func fill(t *testing.T, n *Node, key rpc.Key, count int) {
	t.Helper()
	for i := range count {
		_, err := n.Append(t.Context(), &rpc.AppendRequest{Key: key, Messages: []rpc.NewMessage{
			{Content: fmt.Appendf(nil, `"role":"user","parts":[{"type":"text","text":"%d"}],"metadata":{},"token_count":0`, i)}}})
		require.NoError(t, err)
	}
}

func archivedUpTo(t *testing.T, n *Node, key rpc.Key, seq uint64) rpc.Conversation {
	t.Helper()
	var conv *rpc.Conversation
	require.Eventually(t, func() bool {
		var err error
		conv, err = n.Conversation(t.Context(), key, rpc.ReadOptions{})
		return err == nil && conv.ArchivedSeq == seq
	}, 30*time.Second, 2*time.Millisecond)
	return *conv
}

func seqs(page *rpc.Page) []uint64 {
	var out []uint64
	for _, m := range page.Messages {
		out = append(out, m.Seq)
	}
	return out
}

func between(low, high uint64) []uint64 {
	var out []uint64
	for seq := low; seq <= high; seq++ {
		out = append(out, seq)
	}
	return out
}

// C19: with the archive on and trimmed, reads return what they returned before,
// byte for byte, wherever the boundary lies. With the archive down they say so
// for what is only there, and hot reads go on.
func TestReadsThroughTheArchive(t *testing.T) {
	t.Parallel()
	server := archivetest.Start(t)
	url := server.NewDatabase(t)
	dir := t.TempDir()
	n := openArchived(t, dir, url, 5)
	ctx := t.Context()
	const key rpc.Key = "chat-123"
	_, err := n.Put(ctx, &rpc.PutRequest{Key: key})
	require.NoError(t, err)
	fill(t, n, key, 30)
	conv := archivedUpTo(t, n, key, 30)
	require.Equal(t, uint64(26), conv.FirstSeq)

	messages := func(from uint64, limit int) ([]uint64, error) {
		page, err := n.Messages(ctx, &rpc.MessagesRequest{Key: key, From: from, Limit: limit})
		if err != nil {
			return nil, err
		}
		require.Equal(t, uint64(30), page.LastSeq)
		return seqs(page), nil
	}
	tail := func(before, offset uint64, limit int) ([]uint64, error) {
		page, err := n.Tail(ctx, &rpc.TailRequest{Key: key, Before: before, Offset: offset, Limit: limit})
		if err != nil {
			return nil, err
		}
		require.Equal(t, uint64(30), page.LastSeq)
		return seqs(page), nil
	}
	for _, c := range []struct {
		from  uint64
		limit int
		want  []uint64
	}{
		{1, 100, between(1, 30)}, {0, 100, between(1, 30)}, {1, 25, between(1, 25)}, {1, 26, between(1, 26)}, {3, 4, between(3, 6)},
		{25, 1, between(25, 25)}, {25, 2, between(25, 26)}, {26, 9, between(26, 30)}, {31, 9, nil}, {20, 1000, between(20, 30)},
	} {
		got, err := messages(c.from, c.limit)
		require.NoError(t, err)
		require.Equal(t, c.want, got, "from %d limit %d", c.from, c.limit)
	}
	for _, c := range []struct {
		before, offset uint64
		limit          int
		want           []uint64
	}{
		{0, 0, 100, between(1, 30)}, {0, 0, 5, between(26, 30)}, {0, 0, 6, between(25, 30)}, {0, 10, 5, between(16, 20)},
		{27, 0, 3, between(24, 26)}, {26, 0, 3, between(23, 25)}, {4, 0, 100, between(1, 3)}, {1, 0, 5, nil}, {0, 29, 5, between(1, 1)}, {0, 30, 5, nil},
	} {
		got, err := tail(c.before, c.offset, c.limit)
		require.NoError(t, err)
		require.Equal(t, c.want, got, "before %d offset %d limit %d", c.before, c.offset, c.limit)
	}

	// The whole of it hashes to the conversation's head.
	page, err := n.Messages(ctx, &rpc.MessagesRequest{Key: key, From: 1, Limit: 100})
	require.NoError(t, err)
	require.Equal(t, conv.Head, headOf(page.Messages))

	server.Kill()
	for _, call := range []func() ([]uint64, error){
		func() ([]uint64, error) { return messages(1, 100) }, func() ([]uint64, error) { return tail(0, 0, 6) },
	} {
		_, err := call()
		require.ErrorIs(t, err, rpc.ErrArchiveUnavailable)
	}
	got, err := messages(26, 100)
	require.NoError(t, err)
	require.Equal(t, between(26, 30), got)
	got, err = tail(0, 0, 5)
	require.NoError(t, err)
	require.Equal(t, between(26, 30), got)
	fill(t, n, key, 1) // and writes go on

	// A node that was not told of the archive says so, and skips nothing.
	require.NoError(t, n.Close())
	plain := open(t, dir, &control{})
	ready(t, plain)
	_, err = plain.Messages(ctx, &rpc.MessagesRequest{Key: key, From: 1, Limit: 5})
	require.ErrorIs(t, err, rpc.ErrArchiveUnavailable)
	require.ErrorContains(t, err, "--archive-url")
	hot, err := plain.Messages(ctx, &rpc.MessagesRequest{Key: key, From: 26, Limit: 50})
	require.NoError(t, err)
	require.Len(t, hot.Messages, 6)
}

// Somebody keeps only what is recent in Postgres: older cursors are told where
// history begins, and a tail ends there.
func TestHistoryThatWasDeleted(t *testing.T) {
	t.Parallel()
	server := archivetest.Start(t)
	url := server.NewDatabase(t)
	n := openArchived(t, t.TempDir(), url, 0)
	const key rpc.Key = "chat-123"
	_, err := n.Put(t.Context(), &rpc.PutRequest{Key: key})
	require.NoError(t, err)
	fill(t, n, key, 20)
	require.Equal(t, uint64(21), archivedUpTo(t, n, key, 20).FirstSeq)
	server.Exec(t, url, "DELETE FROM messages WHERE seq < 8")
	_, err = n.Messages(t.Context(), &rpc.MessagesRequest{Key: key, From: 3, Limit: 10})
	var expired *rpc.CursorExpiredError
	require.ErrorAs(t, err, &expired)
	require.Equal(t, uint64(8), expired.Earliest)
	_, err = n.Messages(t.Context(), &rpc.MessagesRequest{Key: key, From: 3, Limit: 2})
	require.ErrorAs(t, err, &expired)
	require.Equal(t, uint64(8), expired.Earliest)
	page, err := n.Messages(t.Context(), &rpc.MessagesRequest{Key: key, From: 8, Limit: 100})
	require.NoError(t, err)
	require.Equal(t, between(8, 20), seqs(page))
	page, err = n.Tail(t.Context(), &rpc.TailRequest{Key: key, Limit: 100})
	require.NoError(t, err)
	require.Equal(t, between(8, 20), seqs(page))
	page, err = n.Tail(t.Context(), &rpc.TailRequest{Key: key, Limit: 3, Before: 5})
	require.NoError(t, err)
	require.Empty(t, page.Messages)

	server.Exec(t, url, "DELETE FROM messages WHERE seq = 12")
	_, err = n.Messages(t.Context(), &rpc.MessagesRequest{Key: key, From: 12, Limit: 1})
	require.ErrorIs(t, err, rpc.ErrCorrupt)
	server.Exec(t, url, "DELETE FROM messages")
	_, err = n.Messages(t.Context(), &rpc.MessagesRequest{Key: key, From: 3, Limit: 10})
	require.ErrorAs(t, err, &expired)
	require.Equal(t, uint64(21), expired.Earliest)
}

// Readers that follow an archived conversation while it grows and is trimmed
// see every sequence once.
func TestReadersWhileTrimming(t *testing.T) {
	t.Parallel()
	n := openArchived(t, t.TempDir(), archivetest.Start(t).NewDatabase(t), 0)
	const key rpc.Key = "chat-123"
	_, err := n.Put(t.Context(), &rpc.PutRequest{Key: key})
	require.NoError(t, err)
	const total = 400
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		next := uint64(1)
		for next <= total {
			page, err := n.Messages(context.Background(), &rpc.MessagesRequest{Key: key, From: next, Limit: 7})
			if err != nil {
				failed <- err
				return
			}
			for _, m := range page.Messages {
				if m.Seq != next {
					failed <- errors.New("a reader saw a hole or a repeat")
					return
				}
				next++
			}
		}
	}()
	fill(t, n, key, total)
	require.NoError(t, <-failed)
}

func headOf(messages []rpc.Message) (head [32]byte) {
	for _, m := range messages {
		head = state.Chain(head, m.Seq, m.JSON)
	}
	return head
}
