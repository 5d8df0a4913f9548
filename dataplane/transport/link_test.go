package transport

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestCloseAnswersThoseWhoWaitForAConnection(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	a := n.start("a", nil)
	a.SetAddress("b", "127.0.0.1:1")
	n.partition("a", "b")
	outcome := make(chan error, 2)
	v, w := a.Group(0), a.Group(1)
	go func() { outcome <- appendTo(v, "b") }()
	eventually(t, func() bool { return n.dials(LaneAppend) > 2 }, "repeated attempts")
	require.NoError(t, v.Close())
	require.ErrorIs(t, receive(t, outcome, "end of the view's call"), ErrClosed)
	go func() { outcome <- appendTo(w, "b") }()
	a.SetAddress("b", "")
	require.ErrorIs(t, receive(t, outcome, "end of the call"), ErrUnknownPeer)
	a.stop()
}

// What was asked of a lost connection fails at once. Only an append is sent
// again, once the network heals, like those that came meanwhile.
func TestConnectionLossAndHealing(t *testing.T) {
	t.Parallel()
	n, a, b := pairOf(t, nil)
	from, to, other := a.Group(1), b.Group(1), b.Group(2)
	beaten, lost, later := heartbeat(a.Group(2)), make(chan error, 1), make(chan error, 1)
	receive(t, other.Consumer(), "heartbeat")
	go func() { lost <- appendTo(from, "b") }()
	rpc := receive(t, to.Consumer(), "request")
	n.partition("a", "b")
	require.ErrorIs(t, receive(t, beaten, "end of the heartbeat"), ErrConnectionLost)
	rpc.Respond(&raft.AppendEntriesResponse{}, nil) // to nobody

	attempts := n.dials(LaneAppend)
	go func() { later <- appendTo(from, "b") }()
	eventually(t, func() bool { return n.dials(LaneAppend) > attempts+2 }, "attempts to reconnect")
	require.Empty(t, lost)
	n.heal("a", "b")
	for range 2 {
		answer(t, to, &raft.AppendEntriesResponse{}, nil)
	}
	require.NoError(t, receive(t, lost, "end of the call that was sent twice"))
	require.NoError(t, receive(t, later, "end of the call"))
}

// An append whose connections end again and again is left to Raft.
func TestAppendIsSentTwiceAtMost(t *testing.T) {
	t.Parallel()
	n, a, b := pairOf(t, nil)
	to := b.Group(1)
	lost := make(chan error, 1)
	go func() { lost <- appendTo(a.Group(1), "b") }()
	for range maxSends {
		receive(t, to.Consumer(), "request")
		n.partition("a", "b")
		n.heal("a", "b")
	}
	require.ErrorIs(t, receive(t, lost, "end of the call"), ErrConnectionLost)
}

func TestUnreachablePeer(t *testing.T) {
	t.Parallel()
	n, a, _ := pairOf(t, func(c *Config) {
		c.Timeouts.Append = 50 * time.Millisecond
		c.Timeouts.Heartbeat = 50 * time.Millisecond
	})
	n.partition("a", "b")
	err := appendTo(a.Group(1), "b")
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorIs(t, err, errCut, "the cause is told")
	// Nobody waits: nobody dials.
	eventually(t, func() bool { l, _ := a.link("b", LaneAppend); l.mu.Lock(); defer l.mu.Unlock(); return !l.dialing }, "rest")
}

// The kernel of a stopped process still accepts connections.
func TestPeerThatDoesNotGreet(t *testing.T) {
	t.Parallel()
	a := newNetwork(t).start("a", func(c *Config) {
		c.Timeouts.Append = 500 * time.Millisecond
		c.Timeouts.Dial = 100 * time.Millisecond
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	a.SetAddress("b", ln.Addr().String())
	require.ErrorIs(t, appendTo(a.Group(1), "b"), ErrUnreachable)
	require.Error(t, a.Group(1).InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{}, new(raft.InstallSnapshotResponse), nil))
}

func TestUnreachablePeerDoesNotSlowOthers(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	a, b := n.start("a", nil), n.start("b", nil)
	a.SetAddress("b", b.addr)
	a.SetAddress("c", "127.0.0.1:1")
	n.partition("a", "c")
	v := a.Group(1)
	server := b.Group(1)
	var work sync.WaitGroup
	work.Go(func() { serve(server) })
	for range 10 {
		work.Go(func() { _ = appendTo(v, "c") })
	}
	eventually(t, func() bool { return n.dials(LaneAppend) > 3 }, "attempts to reach c")
	for range 100 {
		require.NoError(t, appendTo(v, "b"))
	}
	a.stop()
	b.stop()
	work.Wait()
}

func TestAddressChange(t *testing.T) {
	t.Parallel()
	n, a, b := pairOf(t, nil)
	v := a.Group(1)
	server := b.Group(1)
	var work sync.WaitGroup
	work.Go(func() { serve(server) })
	require.NoError(t, appendTo(v, "b"))
	// The node comes back elsewhere.
	b.stop()
	work.Wait()
	eventually(t, func() bool { return a.Stats().Connections == 0 }, "loss of the connection")
	outcome := make(chan error, 1)
	attempts := n.dials(LaneAppend)
	go func() { outcome <- appendTo(v, "b") }()
	eventually(t, func() bool { return n.dials(LaneAppend) > attempts+1 }, "attempts at the old address")
	again := n.start("b", nil)
	view := again.Group(1)
	work.Go(func() { serve(view) })
	a.SetAddress("b", again.addr)
	require.NoError(t, receive(t, outcome, "end of the call"))
	again.stop()
	work.Wait()
}

// Both sides dial at the same time and settle on one connection; the spare one
// is closed.
func TestBothSidesSettleOnOneConnection(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, func(c *Config) { c.Timeouts.Silence = time.Second })
	va, vb := a.Group(1), b.Group(2)
	sa, sb := a.Group(2), b.Group(1)
	var work sync.WaitGroup
	for _, s := range []*View{sa, sb} {
		work.Go(func() { serve(s) })
	}
	var calls sync.WaitGroup
	for range 10 {
		calls.Go(func() { require.NoError(t, appendTo(va, "b")) })
		calls.Go(func() { require.NoError(t, appendTo(vb, "a")) })
	}
	calls.Wait()
	eventually(t, func() bool {
		for _, nd := range []*node{a, b} {
			if nd.Stats().Connections != 1 || !nd.connections(nil)[0].carriesAll() {
				return false
			}
		}
		return true
	}, "one connection")
	require.NoError(t, appendTo(va, "b"))
	require.NoError(t, appendTo(vb, "a"))
	a.stop()
	b.stop()
	work.Wait()
}

func (c *conn) carriesAll() bool { return c.link.current() == c }

// A peer that stops reading, as a stopped process does, fills the queue towards
// it. Further calls fail at once.
func TestFullQueueFailsFast(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	a := n.start("a", func(c *Config) {
		c.Limits.QueueBytes = 1 << 20
		c.Timeouts = Timeouts{Append: time.Hour, Silence: time.Hour, Write: time.Hour}
	})
	a.SetAddress("b", greetOnly(t, a, "b").Addr().String())
	outcomes := make(chan error, 64)
	for g := range uint16(cap(outcomes)) {
		v := a.Group(g)
		go func() {
			outcomes <- v.AppendEntries("", "b", appendRequest("a", 1, 500_000), new(raft.AppendEntriesResponse))
		}()
	}
	require.ErrorIs(t, receive(t, outcomes, "end of a call"), ErrOverloaded)
	eventually(t, func() bool { return a.pending()+len(outcomes) == cap(outcomes)-1 }, "every call to be queued or refused")
	a.stop()
	for range cap(outcomes) - 1 {
		require.Error(t, receive(t, outcomes, "end of a call"))
	}
}

// A peer that gives no sign of life loses its connection, and the calls on it
// end long before their deadline.
func TestSilentPeerIsGivenUp(t *testing.T) {
	t.Parallel()
	logs := &logBuffer{}
	n := newNetwork(t)
	a := n.start("a", func(c *Config) {
		c.Logger = logs.logger()
		c.Timeouts.Silence = 40 * time.Millisecond
		c.Timeouts.Append = time.Hour
	})
	a.SetAddress("b", greetOnly(t, a, "b").Addr().String())
	err := appendTo(a.Group(1), "b")
	require.ErrorIs(t, err, ErrConnectionLost)
	require.ErrorIs(t, err, errSilent)
	eventually(t, func() bool { return logs.contains("peer is silent") }, "a log line")
}

func TestStuckWriteIsGivenUp(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	a := n.start("a", func(c *Config) {
		c.Timeouts.Silence = time.Hour
		c.Timeouts.Append = time.Hour
		c.Timeouts.Write = 40 * time.Millisecond
	})
	ln := greetOnly(t, a, "b")
	a.SetAddress("b", ln.Addr().String())
	err := a.Group(0).AppendEntries("", "b", appendRequest("a", 1, 30<<20), new(raft.AppendEntriesResponse))
	require.ErrorIs(t, err, ErrConnectionLost)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}

// A group that does not answer costs its caller the deadline, not the
// connection: the peer's process lives and says so.
func TestSlowGroupKeepsTheConnection(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, func(c *Config) {
		c.Timeouts.Append = 3 * time.Second
		c.Timeouts.Silence = 2 * time.Second
	})
	from := a.Group(1)
	to := b.Group(1)
	sent := a.Stats().Append.FramesOut
	require.ErrorIs(t, appendTo(from, "b"), ErrTimeout)
	require.Greater(t, a.Stats().Append.FramesOut, sent+1, "a ping asked for a sign of life")
	eventually(t, func() bool { return a.Stats().Timeouts == 1 }, "the timeout to be counted")
	// The late answer is dropped, the next call gets its own.
	answer(t, to, &raft.AppendEntriesResponse{Term: 1}, nil)
	var resp raft.AppendEntriesResponse
	outcome := make(chan error, 1)
	go func() { outcome <- from.AppendEntries("", "b", appendRequest("a", 1, 1), &resp) }()
	answer(t, to, &raft.AppendEntriesResponse{Term: 2}, nil)
	require.NoError(t, receive(t, outcome, "end of the call"))
	require.Equal(t, uint64(2), resp.Term)
	require.Equal(t, uint64(1), a.Stats().Dials)
}

// greetOnly is a node that completes the hello and then does nothing.
func greetOnly(t *testing.T, as *node, id string) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	peer := &Mux{conf: Config{NodeID: id, Limits: as.conf.Limits, Timeouts: Timeouts{Dial: patience}}, self: []byte(id)}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	work.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer nc.Close()
				if lane, from, err := readPreamble(nc); err == nil {
					_, _ = peer.welcome(nc, from, lane)
				}
				<-ctx.Done()
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = ln.Close()
		as.stop()
		work.Wait()
	})
	return ln
}
