package archiver

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Postgres is killed in the middle of batches, started again, and paused, while
// appends go on: they never wait for it, and in the end everything is there
// once.
func TestPostgresKilledAndPaused(t *testing.T) {
	t.Parallel()
	server := archivetest.Start(t)
	url := server.NewDatabase(t)
	c := newCluster(t, groupsOf(3)...)
	c.grant("n1")
	n := c.start("n1", url, func(o *Options) { o.BatchRows = 20 })
	keys := keysOf(c, 9)
	for _, key := range keys {
		c.put(key, `{}`)
	}
	round := func(each int) {
		for _, key := range keys {
			c.append(key, each)
		}
	}
	round(10)
	eventually(t, "archiving began", func() bool { return n.Status().Totals.Messages > 0 })
	for range 3 {
		round(15)
		server.Kill()
		round(15)
		eventually(t, "the failure is seen", func() bool { return n.Status().Error != "" })
		for _, key := range keys {
			conv, err := c.of(key).machine.Conversation(key)
			require.NoError(t, err)
			require.LessOrEqual(t, conv.FirstSeq, conv.ArchivedSeq+1)
		}
		server.Restart(t)
	}
	c.settled(url, keys...)
	server.Pause()
	round(10)
	server.Resume()
	c.settled(url, keys...)
	eventually(t, "well again", func() bool { return n.Status().Error == "" && n.Status().Pending() == 0 })
}

// The commit is durable, but its answer never comes: the same rows are written
// again, and nothing is there twice.
func TestAnswerLostAfterCommit(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.put(chat, `{}`)
	c.append(chat, 50)
	c.grant("n1")
	n := c.start("n1", url, func(o *Options) { o.BatchRows = 20 })
	var lost atomic.Int64
	n.store.around(nil, func() error {
		if lost.Add(1) <= 3 {
			return errInjected
		}
		return nil
	})
	c.settled(url, chat)
	require.GreaterOrEqual(t, lost.Load(), int64(3))
	require.Equal(t, int64(50), archivetest.Query[int64](t, url, "SELECT count(*) FROM messages"))
}

func TestConnectionsExhausted(t *testing.T) {
	t.Parallel()
	server := archivetest.Start(t, "max_connections=6", "superuser_reserved_connections=1")
	url := server.NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.put(chat, `{}`)
	c.append(chat, 20)
	c.grant("n1")
	release := archivetest.Exhaust(t, url)
	n := c.start("n1", url)
	eventually(t, "refused", func() bool { return n.Status().Error != "" })
	require.Contains(t, n.Status().Error, "too many clients")
	release()
	c.settled(url, chat)
}

// The archiver ends between the write and the acknowledgement. Its successor
// writes the same rows, acknowledges them, and nothing is trimmed before.
func TestKilledBetweenWriteAndAck(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.put(chat, `{}`)
	c.append(chat, 30)
	c.grant("n1")
	reached := make(chan struct{}, 8)
	c.of(chat).onAck(func(ctx context.Context) error {
		reached <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	first := c.start("n1", url)
	<-reached
	require.Equal(t, int64(30), archivetest.Query[int64](t, url, "SELECT count(*) FROM messages"))
	first.Close()
	require.Zero(t, c.archivedSeq(chat))
	conv, err := c.of(chat).machine.Conversation(chat)
	require.NoError(t, err)
	require.Equal(t, uint64(1), conv.FirstSeq)

	c.of(chat).onAck(nil)
	c.append(chat, 5)
	c.grant("n2")
	c.start("n2", url)
	c.settled(url, chat)
	require.Equal(t, int64(35), archivetest.Query[int64](t, url, "SELECT count(*) FROM messages"))
}

// Two holders at once: the first is paused after its write while it trusts its
// lease, the second takes over and goes on, the first resumes. Its
// acknowledgement is refused, watermarks only rise, and it works on under its
// next lease.
func TestPausedHolderResumes(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.ttl = time.Hour // the first never stops to trust by itself
	c.put(chat, `{}`)
	c.append(chat, 10)
	c.grant("n1")
	written, resume := make(chan struct{}), make(chan struct{})
	first := c.start("n1", url)
	var once atomic.Bool
	first.store.around(nil, func() error {
		if once.CompareAndSwap(false, true) {
			close(written)
			<-resume
		}
		return nil
	})
	select {
	case <-written:
	case <-time.After(patience):
		// Its first batch came before the hook: give it another.
		t.Fatal("the first holder wrote nothing")
	}
	first.leases.frozen.Store(true)
	c.append(chat, 10)
	c.grant("n2")
	second := c.start("n2", url)
	c.settled(url, chat)
	require.Equal(t, uint64(20), c.archivedSeq(chat))
	close(resume)
	eventually(t, "the first learns that it lost", func() bool { return len(first.Status().Groups) == 0 })
	require.Equal(t, uint64(20), c.archivedSeq(chat))
	c.append(chat, 10)
	c.settled(url, chat)
	for _, ack := range c.of(chat).acknowledged() {
		require.Equal(t, uint64(2), ack.Epoch)
	}
	second.Close()

	c.grant("n1")
	first.leases.frozen.Store(false)
	c.append(chat, 1)
	c.settled(url, chat)
}

// The lease moves while batches are under way, again and again.
func TestLeaseMovesUnderLoad(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, groupsOf(2)...)
	c.ttl = 150 * time.Millisecond
	c.grant("n1")
	small := func(o *Options) { o.BatchRows, o.Interval = 10, 10*time.Millisecond }
	nodes := []*node{c.start("n1", url, small), c.start("n2", url, small)}
	keys := keysOf(c, 4)
	for _, key := range keys {
		c.put(key, `{}`)
	}
	highest := make(map[rpc.Key]uint64)
	for i := range 12 {
		for _, key := range keys {
			c.append(key, 9)
			archived := c.archivedSeq(key)
			require.GreaterOrEqual(t, archived, highest[key])
			highest[key] = archived
		}
		if i%3 == 0 {
			next := nodes[(i/3+1)%2]
			c.grant(next.opts.Node)
			eventually(t, "lease moved", func() bool { return len(next.Status().Groups) == 2 })
		}
	}
	c.settled(url, keys...)
}

// An acknowledgement that the group does not take is repeated.
func TestGroupRefusesAcks(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.put(chat, `{}`)
	c.append(chat, 10)
	c.grant("n1")
	var refused atomic.Int64
	c.of(chat).onAck(func(context.Context) error {
		for _, err := range []error{rpc.ErrOverloaded, rpc.ErrOutcomeUnknown, &rpc.NotLeaderError{}, rpc.ErrStorageFull} {
			if n := refused.Add(1); n <= 4 {
				return err
			}
		}
		return nil
	})
	c.start("n1", url)
	c.settled(url, chat)
	require.Equal(t, int64(10), archivetest.Query[int64](t, url, "SELECT count(*) FROM messages"))
}

// A conversation that the archive holds differently is set aside and named; the
// others go on, and nothing is overwritten or trimmed.
func TestDivergedConversationIsSetAside(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, groupsOf(2)...)
	keys := keysOf(c, 6)
	for _, key := range keys {
		c.put(key, `{}`)
		c.append(key, 5)
	}
	c.grant("n1")
	first := c.start("n1", url)
	c.settled(url, keys...)
	first.Close()

	bad := keys[2]
	archivetest.Shared(t).Exec(t, url,
		"INSERT INTO messages SELECT conversation_id, 6, version, message_id, role, parts, metadata, token_count, inserted_at, exact, hash, body FROM messages WHERE conversation_id = '"+string(bad)+"' AND seq = 5")
	for _, key := range keys {
		c.append(key, 5)
	}
	second := c.start("n1", url)
	var good []rpc.Key
	for _, key := range keys {
		if key != bad {
			good = append(good, key)
		}
	}
	c.settled(url, good...)
	eventually(t, "problem", func() bool { return len(second.Status().Problems) == 1 })
	p := second.Status().Problems[0]
	require.Equal(t, string(bad), p.Conversation)
	require.Equal(t, bad.Group(), p.Group)
	require.Contains(t, p.Error, "[6]")
	require.Equal(t, uint64(5), c.archivedSeq(bad))
	require.Equal(t, uint64(5), second.Status().Pending())
}

// A Postgres that was set back, as by a failover that lost commits, gets again
// what is still hot; what is not is reported, and nothing more is archived over
// the hole.
func TestArchiveSetBack(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, groupsOf(2)...)
	keys := keysOf(c, 2)
	c.grant("n1")
	first := c.start("n1", url, func(o *Options) { o.TailKeep = 4 })
	for _, key := range keys {
		c.put(key, `{}`)
		c.append(key, 10)
	}
	c.settled(url, keys...)
	first.Close()
	back := func(key rpc.Key, to string) {
		archivetest.Shared(t).Exec(t, url, "DELETE FROM messages WHERE conversation_id = '"+string(key)+"' AND seq > "+to,
			"UPDATE conversations SET archived_seq = "+to+", head = (SELECT hash FROM messages WHERE conversation_id = '"+string(key)+"' AND seq = "+to+
				") WHERE id = '"+string(key)+"'")
	}
	back(keys[0], "8")
	back(keys[1], "3")
	second := c.start("n1", url)
	eventually(t, "the lost one is named", func() bool { return len(second.Status().Problems) == 1 })
	require.Contains(t, second.Status().Problems[0].Error, "lost messages 4 to 6")
	eventually(t, "the other is whole again", func() bool {
		return archivetest.Query[int64](t, url, "SELECT count(*) FROM messages WHERE conversation_id = $1", string(keys[0])) == 10
	})
	c.append(keys[0], 1)
	c.append(keys[1], 1)
	c.settled(url, keys[0])
	require.Equal(t, uint64(10), c.archivedSeq(keys[1]))
}

// An archive that cannot be used keeps nobody from anything, holds no lease,
// and says why.
func TestUnusableArchive(t *testing.T) {
	t.Parallel()
	server := archivetest.Shared(t)
	foreign := server.NewDatabase(t)
	server.Exec(t, foreign, "CREATE TABLE messages (id int)")
	for url, want := range map[string]error{
		foreign: archive.ErrForeignSchema, "postgres://nobody@localhost:1/none": rpc.ErrArchiveUnavailable,
	} {
		c := newCluster(t, chat.Group())
		c.grant("n1")
		n := c.start("n1", url)
		c.put(chat, `{}`)
		c.append(chat, 5)
		eventually(t, "status", func() bool { return n.Status().Error != "" })
		require.Contains(t, n.Status().Error, want.Error())
		require.False(t, n.Status().Ready)
		require.Zero(t, n.leases.calls.Load())
		n.Close()
		require.Zero(t, n.leases.released.Load())
	}
}

// The group fences epochs by itself: what an older holder says is refused even
// if nothing else would stop it.
func TestOldEpochIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, chat.Group())
	c.put(chat, `{}`)
	c.append(chat, 10)
	ack := func(epoch, seq uint64) error {
		return c.of(chat).ArchiveAck(t.Context(), &state.ArchiveAck{Epoch: epoch, Watermarks: []state.Watermark{{Key: chat, Seq: seq}}})
	}
	require.NoError(t, ack(2, 3))
	require.True(t, errors.Is(ack(1, 9), rpc.ErrEpochFenced))
	require.Equal(t, uint64(3), c.archivedSeq(chat))
	require.NoError(t, ack(2, 4))
}
