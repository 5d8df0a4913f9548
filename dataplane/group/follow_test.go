package group

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/feed/feedtest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// listener remembers what it was told.
type listener struct {
	mu   sync.Mutex // guards what follows
	news []rpc.News
	ends []error
}

func (l *listener) Deliver(n rpc.News) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.news = append(l.news, n)
}

func (l *listener) End(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, err)
}

func (l *listener) ended() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ends
}

func TestSubscribeAtTheLeaderOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	leader := c.leader()
	var l listener
	reply, stop, err := leader.group.Subscribe("chat", &l)
	require.NoError(t, err)
	defer stop()
	require.Equal(t, &rpc.SubscribeReply{}, reply)
	c.put(leader, "chat")
	c.mustAppend(leader, "chat", "one")
	// The append was answered after it was applied, and so after it was told.
	require.Len(t, l.news, 1)
	require.Contains(t, string(l.news[0].Messages[0].JSON), "one")

	reply, again, err := leader.group.Subscribe("chat", &listener{})
	require.NoError(t, err)
	again()
	require.Equal(t, &rpc.SubscribeReply{Exists: true, LastSeq: 1, Version: 1}, reply)

	follower := c.others(leader)[0]
	c.eventually(func() bool { return follower.group.Leader() == leader.id }, "the follower knows its leader")
	_, _, err = follower.group.Subscribe("chat", &listener{})
	var notLeader *rpc.NotLeaderError
	require.ErrorAs(t, err, &notLeader)
	require.Equal(t, leader.id, notLeader.Leader)
}

func TestTransferEndsSubscriptionsWithAHint(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	leader := c.leader()
	var l listener
	_, _, err := leader.group.Subscribe("chat", &l)
	require.NoError(t, err)
	to := c.others(leader)[1]
	require.NoError(t, leader.group.TransferLeadership(to.id))
	c.eventually(func() bool { return len(l.ended()) == 1 }, "the subscription ends")
	var notLeader *rpc.NotLeaderError
	require.ErrorAs(t, l.ended()[0], &notLeader)
	require.Equal(t, &rpc.NotLeaderError{Group: testGroup, Leader: to.id}, notLeader)
	c.eventually(func() bool { return to.group.Leading() }, "the other leads")
	_, _, err = to.group.Subscribe("chat", &l)
	require.NoError(t, err)
}

func TestRestartAndCloseEndSubscriptions(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	var l listener
	_, _, err := r.group.Subscribe("chat", &l)
	require.NoError(t, err)
	require.NoError(t, r.group.Restart(t.Context()))
	c.eventually(func() bool { return len(l.ended()) == 1 }, "the subscription ends")
	require.ErrorIs(t, l.ended()[0], rpc.ErrUnavailable)
	r.group.Campaign()
	c.leader()

	_, _, err = r.group.Subscribe("chat", &l)
	require.NoError(t, err)
	g := r.group
	c.stop(r)
	require.Len(t, l.ended(), 2)
	require.ErrorIs(t, l.ended()[1], rpc.ErrClosed)
	_, _, err = g.Subscribe("chat", &l)
	require.ErrorIs(t, err, rpc.ErrClosed)
	_, err = g.Hash(t.Context())
	require.ErrorIs(t, err, rpc.ErrClosed)
}

// A leader that is cut off tells its subscribers, once it knows.
func TestPartitionEndsSubscriptions(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	leader := c.leader()
	var l listener
	_, _, err := leader.group.Subscribe("chat", &l)
	require.NoError(t, err)
	leader.cut.set(true)
	c.eventually(func() bool { return len(l.ended()) == 1 }, "the subscription ends")
	require.ErrorIs(t, l.ended()[0], rpc.ErrUnavailable)
	_, _, err = leader.group.Subscribe("chat", &l)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
}

func TestReplicasTellTheSameHash(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	leader := c.leader()
	c.put(leader, "chat")
	for i := range 20 {
		c.mustAppend(leader, "chat", fmt.Sprint(i))
	}
	c.converged()
	seen := map[uint64][32]byte{}
	for _, r := range c.replicas {
		h, err := r.group.Hash(t.Context())
		require.NoError(t, err)
		require.Equal(t, testGroup, h.Group)
		if other, ok := seen[h.Applied]; ok {
			require.Equal(t, other, h.Hash)
		}
		seen[h.Applied] = h.Hash
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := leader.group.Hash(ctx)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
}

// source is a replica as receivers see it.
type source struct{ *Group }

func (s source) Subscribe(_ context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	return s.Group.Subscribe(key, to)
}

// Receivers follow conversations through appends, leadership transfers and a
// partition, joining at random moments, some of them slow. Each must receive every
// message once and in order, with the bytes that the log holds.
func TestReceiversFollowTheLeader(t *testing.T) {
	t.Parallel()
	const receivers, conversations, rounds = 9, 3, 6
	c := newCluster(t, 3, 3)
	key := func(n int) rpc.Key { return rpc.Key(fmt.Sprintf("conversation-%d", n)) }
	for i := range conversations {
		c.put(c.leader(), key(i))
	}
	groups := make([]*Group, len(c.replicas))
	for i, r := range c.replicas {
		groups[i] = r.group
	}
	find := func() feedtest.Source {
		for _, i := range rand.Perm(len(groups)) {
			if groups[i].Leading() {
				return source{groups[i]}
			}
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var following, appending sync.WaitGroup
	var all []*feedtest.Receiver
	join := func() {
		r := &feedtest.Receiver{Key: key(len(all) % conversations), Find: find}
		if len(all)%3 == 2 {
			r.Ignore = func() bool { return rand.IntN(2) > 0 }
		}
		all = append(all, r)
		following.Go(func() { r.Run(ctx) })
	}
	stopAppends := make(chan struct{})
	for i := range conversations {
		appending.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stopAppends:
					return
				default:
				}
				// Appends of unknown outcome may be stored: the log has the last word.
				at := groups[rand.IntN(len(groups))]
				if at.Leading() {
					_, _ = at.Append(ctx, &rpc.AppendRequest{Key: key(i), Messages: []rpc.NewMessage{message("", fmt.Sprint(n))}})
				}
			}
		})
	}
	grow := func() {
		from := uint64(0)
		for _, r := range all {
			from += r.Cursor()
		}
		c.eventually(func() bool {
			now := uint64(0)
			for _, r := range all {
				now += r.Cursor()
			}
			return now > from+20
		}, "receivers move on")
	}
	for round := range rounds {
		for range receivers / 3 {
			if len(all) < receivers {
				join()
			}
		}
		grow()
		leader := c.leader()
		if round == rounds/2 {
			leader.cut.set(true)
			c.eventually(func() bool { return !leader.group.Leading() }, "the leader is deposed")
			leader.cut.set(false)
		} else {
			_ = leader.group.TransferLeadership(c.others(leader)[round%2].id)
		}
		c.leader()
	}
	grow()
	close(stopAppends)
	appending.Wait()
	c.converged()
	c.verify(all)
	cancel()
	following.Wait()
}

// verify waits until the receivers have everything, and compares it with the log.
func (c *cluster) verify(all []*feedtest.Receiver) {
	c.t.Helper()
	ends, live := 0, 0
	for i, r := range all {
		var page *rpc.Page
		c.eventually(func() bool {
			var err error
			page, err = c.leader().group.Messages(c.t.Context(), &rpc.MessagesRequest{Key: r.Key, From: 1, Limit: 1})
			return err == nil && r.Cursor() == page.LastSeq
		}, fmt.Sprintf("receiver %d catches up", i))
		messages, n, ended, broken := r.Received()
		require.Empty(c.t, broken, "receiver %d", i)
		ends, live = ends+len(ended), live+n
		for at := 0; at < len(messages); {
			page, err := c.leader().group.machine.Messages(r.Key, uint64(at)+1, 1000, 0)
			require.NoError(c.t, err)
			for _, m := range page.Messages {
				require.Equal(c.t, string(m.JSON), string(messages[at]))
				at++
			}
		}
	}
	require.Positive(c.t, ends)
	require.Positive(c.t, live)
	c.t.Logf("%d subscriptions ended, %d messages came as news", ends, live)
}
