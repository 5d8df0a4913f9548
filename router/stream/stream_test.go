package stream

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream/streamtest"
)

func TestWhereToBegin(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 10, 100)
	log.Create("empty")
	h := testHub(t, log)
	for name, tc := range map[string]struct {
		key    rpc.Key
		from   uint64
		seqs   []uint64
		caught uint64
		resume uint64
	}{
		"everything":   {"c", 1, run(1, 10), 10, 11},
		"some":         {"c", 8, run(8, 10), 10, 11},
		"from now on":  {"c", 0, nil, 10, 11},
		"at the end":   {"c", 11, nil, 10, 11},
		"beyond":       {"c", 15, nil, 10, 15},
		"nothing yet":  {"empty", 1, nil, 0, 1},
		"not existing": {"nope", 0, nil, 0, 1},
	} {
		c := newClient(t, h)
		got := c.until(c.join(tc.key, tc.from), caughtUp)
		require.Equal(t, tc.seqs, got.seqs, name)
		require.Equal(t, []uint64{tc.caught}, got.caughtUp, name)
		require.Equal(t, tc.resume, got.resume, name)
		require.Equal(t, "joined", got.order[0], name)
		require.Equal(t, "caught_up", got.order[len(got.order)-1], name)
		require.Equal(t, tc.key != "nope", got.state.Exists, name)
	}
	// Beyond the end waits for it.
	c := newClient(t, h)
	cursor := c.join("c", 12)
	c.until(cursor, caughtUp)
	log.Append("c", 1, 100)
	log.Append("c", 2, 100)
	require.Equal(t, run(12, 13), c.until(cursor, messages(2)).seqs)
}

func TestOneSubscriptionHoweverManyFollow(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 3, 100)
	h := testHub(t, log, func(c *Config) { c.Linger = 20 * time.Millisecond })
	var clients []*client
	var cursors []*Cursor
	for range 100 {
		c := newClient(t, h)
		clients = append(clients, c)
		cursors = append(cursors, c.join("c", 1))
	}
	for i, c := range clients {
		c.until(cursors[i], caughtUp)
	}
	log.Append("c", 5, 100)
	for i, c := range clients {
		require.Equal(t, run(1, 8), c.until(cursors[i], messages(8)).seqs)
	}
	open, subscribed, reads := log.Counts()
	require.Equal(t, []int{1, 1}, []int{open, subscribed})
	require.Less(t, reads, 10, "clients share what is read")
	require.Equal(t, 1, h.Topics())
	for i, c := range clients {
		c.do(cursors[i].Leave)
	}
	require.Eventually(t, func() bool { open, _, _ := log.Counts(); return open == 0 && h.Topics() == 0 }, patience, time.Millisecond)
}

func TestTombstone(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 2, 100)
	h := testHub(t, log)
	c := newClient(t, h)
	live := c.join("c", 1)
	c.until(live, caughtUp)
	log.Append("c", 1, 100)
	log.Tombstone("c")
	got := c.until(live, tombstoned)
	require.Equal(t, []string{"joined", "message", "caught_up", "message", "tombstone"}, got.order)
	late := c.join("c", 2)
	got = c.until(late, tombstoned)
	require.Equal(t, []string{"joined", "message", "caught_up", "tombstone"}, got.order)
	require.True(t, got.state.Tombstoned)
	require.Equal(t, []string{"joined", "caught_up", "tombstone"}, c.until(c.join("c", 0), tombstoned).order)
}

func TestGap(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 20, 100)
	log.Trim("c", 15)
	h := testHub(t, log)
	c := newClient(t, h)
	got := c.until(c.join("c", 3), caughtUp)
	require.Equal(t, [][2]uint64{{3, 15}}, got.gaps)
	require.Equal(t, run(15, 20), got.seqs)
	require.Equal(t, []string{"joined", "gap", "message", "caught_up"}, got.order)
	// All of it gone.
	log.Trim("c", 21)
	h.sweep(time.Now().Add(time.Hour))
	got = c.until(c.join("c", 1), caughtUp)
	require.Equal(t, [][2]uint64{{1, 21}}, got.gaps)
	require.Empty(t, got.seqs)
}

func TestNewsWithoutMessagesIsReadFromTheLog(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Create("c")
	h := testHub(t, log)
	c := newClient(t, h)
	cursor := c.join("c", 1)
	c.until(cursor, caughtUp)
	log.Append("c", 3, 100)
	log.Withhold(true)
	log.Append("c", 3, 100)
	log.Withhold(false)
	log.Append("c", 3, 100)
	require.Equal(t, run(1, 9), c.until(cursor, messages(9)).seqs)
}

// What a new leader tells again of what the old one told neither moves the end
// back nor empties the ring; what it leaves out does.
func TestNewsToldAgain(t *testing.T) {
	t.Parallel()
	top := &topic{hub: testHub(t, streamtest.New())}
	news := func(from, to uint64) rpc.News {
		n := rpc.News{LastSeq: to}
		for seq := from; seq <= to; seq++ {
			n.Messages = append(n.Messages, rpc.Message{Seq: seq, Version: seq, JSON: streamtest.JSON(seq, 100)})
		}
		return n
	}
	for _, tc := range []struct {
		from, to     uint64
		first, last  uint64 // of the ring
		stateVersion uint64
	}{{1, 10, 1, 10, 10}, {4, 6, 1, 10, 10}, {10, 10, 1, 10, 10}, {8, 12, 1, 12, 12}, {15, 16, 15, 16, 16}, {3, 4, 15, 16, 16}} {
		top.inform(news(tc.from, tc.to))
		require.Equal(t, State{Exists: true, LastSeq: tc.last, Version: tc.stateVersion}, top.state, "%+v", tc)
		require.Equal(t, tc.first, top.ring.first(), "%+v", tc)
		require.Len(t, top.ring.frames, int(tc.last-tc.first)+1, "%+v", tc)
	}
}

func TestSubscriptionsThatEndAreOpenedAnew(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 2, 100)
	h := testHub(t, log)
	c := newClient(t, h)
	cursor := c.join("c", 1)
	c.until(cursor, caughtUp)
	for i := range 5 {
		log.Fail(i)
		log.Break(&rpc.NotLeaderError{})
		log.Append("c", 2, 100) // told to nobody
		n := 4 + 2*i
		require.Equal(t, run(1, uint64(n)), c.until(cursor, messages(n)).seqs)
	}
	require.Len(t, c.until(cursor, caughtUp).caughtUp, 1)
}

func TestASlowClientCostsItsCursor(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Create("c")
	h := testHub(t, log, func(c *Config) { c.RingMessages = 8 })
	slow, quick := newClient(t, h), newClient(t, h)
	a, b := slow.join("c", 1), quick.join("c", 1)
	slow.until(a, caughtUp)
	quick.until(b, caughtUp)
	slow.stop()
	for range 100 {
		log.Append("c", 1, 100)
	}
	require.Equal(t, run(1, 100), quick.until(b, messages(100)).seqs)
	slow.resume()
	require.Equal(t, run(1, 100), slow.until(a, messages(100)).seqs)
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 300, 2000)
	log.LimitPages(10)
	h := testHub(t, log, func(c *Config) { c.RingBudget, c.PageBudget = 4000, 50_000 })
	var clients []*client
	var cursors []*Cursor
	for i := range 20 {
		c := newClient(t, h)
		clients = append(clients, c)
		cursors = append(cursors, c.join("c", uint64(1+10*i)))
	}
	for range 20 {
		log.Append("c", 1, 2000)
		require.LessOrEqual(t, h.ringBytes.Load(), int64(4000))
		require.LessOrEqual(t, h.pages.size(), int64(50_000+16*22_000), "reads under way come on top")
	}
	for i, c := range clients {
		first := uint64(1 + 10*i)
		require.Equal(t, run(first, 320), c.until(cursors[i], messages(int(321-first))).seqs)
	}
	h.sweep(time.Now().Add(time.Hour))
	require.Zero(t, h.pages.size())
	require.Zero(t, h.ringBytes.Load())
}

func TestTooManyTopics(t *testing.T) {
	t.Parallel()
	h := testHub(t, streamtest.New(), func(c *Config) { c.MaxTopics = 1 })
	c := newClient(t, h)
	c.join("a", 0)
	c.do(func() {
		_, err := c.session.Join("b", 0)
		require.ErrorIs(t, err, rpc.ErrOverloaded)
	})
	_, _, err := h.Await(context.Background(), "b")
	require.ErrorIs(t, err, rpc.ErrOverloaded)
}

func TestAwait(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	h := testHub(t, log)
	_, _, err := h.Await(context.Background(), "c")
	require.ErrorIs(t, err, rpc.ErrNotFound)
	log.Create("c") // no news
	state, release, err := h.Await(context.Background(), "c")
	require.NoError(t, err)
	require.True(t, state.Exists)
	release()

	resume := log.Stall()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, _, err = h.Await(ctx, "d")
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	resume()
	h.Close()
	_, _, err = h.Await(context.Background(), "c")
	require.ErrorIs(t, err, rpc.ErrClosed)
}

func TestAJoinThatWaitsTooLongFails(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	defer log.Stall()()
	h := testHub(t, log, func(c *Config) { c.JoinTimeout = time.Millisecond })
	c := newClient(t, h)
	cursor := c.join("c", 1)
	require.Equal(t, []string{"failed"}, c.until(cursor, func(d *told) bool { return d.failed }).order)
}

func TestJoinBeforeTheConversationExists(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	h := testHub(t, log)
	c := newClient(t, h)
	cursor := c.join("c", 0)
	require.Equal(t, State{}, c.until(cursor, caughtUp).state)
	log.Append("c", 2, 100)
	require.Equal(t, run(1, 2), c.until(cursor, messages(2)).seqs)
	other := newClient(t, h)
	require.Equal(t, State{Exists: true, LastSeq: 2, Version: 1}, other.until(other.join("c", 0), caughtUp).state)
}

func TestLargeMessagesTakeShortPages(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 30, 200_000)
	h := testHub(t, log)
	c := newClient(t, h)
	require.Equal(t, run(1, 30), c.until(c.join("c", 1), caughtUp).seqs)
	_, _, reads := log.Counts()
	require.Greater(t, reads, 20)
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := NewHub(Config{PageReads: -1})
	require.ErrorContains(t, err, "required")
	require.ErrorContains(t, err, "PageReads")
}

// What is stopped is not called again, whatever is ready.
func TestStop(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 1000, 100)
	h := testHub(t, log)
	calls, called := 0, make(chan struct{}, 100)
	var s *Session
	var cursor *Cursor
	s = h.NewSession(func() {
		calls++
		if cursor == nil {
			cursor, _ = s.Join("c", 1)
			return
		}
		s.Stop()
		called <- struct{}{}
	})
	s.Poke()
	<-called
	s.Poke()
	s.Close()
	require.Equal(t, 2, calls)
	cursor.Leave()
}

// Groups that cannot be called do not hold up the others.
func TestFailingGroupsHaveWorkersOfTheirOwn(t *testing.T) {
	t.Parallel()
	var l lanes
	l.init(2)
	defer l.close()
	release := make(chan struct{})
	l.tell(1, true)
	for range 10 {
		l.do(1, func() { <-release })
	}
	done := make(chan struct{})
	l.do(2, func() { close(done) })
	<-done
	close(release)
	l.tell(1, false)
	again := make(chan struct{})
	l.do(1, func() { close(again) })
	<-again
}
