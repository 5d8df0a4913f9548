package transport

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// stranger opens a raw connection to a node's listener, past the preamble.
func stranger(t *testing.T, to *node, as string, lane Lane) net.Conn {
	nc, err := net.Dial("tcp", to.addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	_, err = nc.Write(append([]byte{byte(lane), byte(len(as))}, as...))
	require.NoError(t, err)
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	return nc
}

func helloFrame(version byte, lane Lane, from, to string) []byte {
	e := encoder{}
	_ = e.frame(kindHello, 0, 0, &hello{version: version, lane: lane, from: []byte(from), to: []byte(to)}, helloLimit)
	return e.buf
}

// requestFrame is a frame from node x.
func requestFrame(k kind, group uint16, m any) []byte {
	e := encoder{own: []byte("x")}
	_ = e.frame(k, group, 1, m, 1<<20)
	return e.buf
}

// requireClosed reads until the node has closed the connection.
func requireClosed(t *testing.T, nc net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, nc)
	var timeout net.Error
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "the connection is still open")
}

func TestStrangersAreTurnedAway(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		as    string
		lane  Lane
		hello []byte
		log   string
	}{
		"nothing sensible":  {"x", LaneAppend, []byte("GET / HTTP/1.1\r\nHost: fastpaca\r\n\r\n"), "frame version"},
		"zeroes":            {"x", LaneAppend, make([]byte, 100), "frame version 0"},
		"request first":     {"x", LaneAppend, requestFrame(kindAppend, 0, appendRequest("x", 1, 1)), "before the hello"},
		"frame of another":  {"x", LaneAppend, rawFrame(kindHello, 0, 0, []byte("other protocol")), "not a hello"},
		"long hello":        {"x", LaneAppend, rawFrame(kindHello, 0, 0, make([]byte, helloLimit+1)), "limit"},
		"other version":     {"x", LaneAppend, helloFrame(helloVersion+1, LaneAppend, "x", "a"), "peer speaks version"},
		"other lane":        {"x", LaneAppend, helloFrame(helloVersion, LaneElection, "x", "a"), "peer opened lane"},
		"other name":        {"x", LaneAppend, helloFrame(helloVersion, LaneAppend, "y", "a"), "peer says it is node"},
		"wanted other node": {"x", LaneAppend, helloFrame(helloVersion, LaneAppend, "x", "b"), "peer wants node"},
		"same name as this": {"a", LaneAppend, helloFrame(helloVersion, LaneAppend, "a", "a"), "this node's id"},
		"unknown lane":      {"x", Lane(7), helloFrame(helloVersion, Lane(7), "x", "a"), "lane(7)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs := &logBuffer{}
			a := newNetwork(t).start("a", func(c *Config) { c.Logger = logs.logger() })
			nc := stranger(t, a, tc.as, tc.lane)
			_, err := nc.Write(tc.hello)
			require.NoError(t, err)
			requireClosed(t, nc)
			eventually(t, func() bool { return logs.contains(tc.log) }, "a log line that says "+tc.log)
			require.Zero(t, a.Stats().Connections)
		})
	}
}

func TestStrangerThatSaysNothingIsTurnedAway(t *testing.T) {
	t.Parallel()
	a := newNetwork(t).start("a", func(c *Config) { c.Timeouts.Dial = 20 * time.Millisecond })
	requireClosed(t, stranger(t, a, "x", LaneElection))
}

// After a proper hello, whatever breaks the protocol ends its connection, with
// a log line, and nothing else: the node goes on serving.
func TestOffendersLoseTheirConnection(t *testing.T) {
	t.Parallel()
	gap := &raft.AppendEntriesRequest{PrevLogEntry: 5, Entries: []*raft.Log{{Index: 9}}}
	for name, tc := range map[string]struct {
		lane  Lane
		bytes []byte
	}{
		"garbage":               {LaneAppend, []byte("garbage garbage garbage garbage")},
		"huge frame":            {LaneElection, rawFrame(kindAppend, 1, 1, make([]byte, LaneElection.frameLimit()+1))},
		"unknown kind":          {LaneAppend, rawFrame(kind(0x77), 1, 1, nil)},
		"second hello":          {LaneAppend, helloFrame(helloVersion, LaneAppend, "x", "a")},
		"vote among appends":    {LaneAppend, requestFrame(kindVote, 1, &raft.RequestVoteRequest{})},
		"snapshot in a stream":  {LaneAppend, requestFrame(kindSnapshot, 1, &raft.InstallSnapshotRequest{})},
		"entries with a gap":    {LaneAppend, requestFrame(kindAppend, 1, gap)},
		"cut request":           {LaneElection, rawFrame(kindVote, 1, 1, []byte{1})},
		"append for a snapshot": {LaneSnapshot, requestFrame(kindAppend, 1, appendRequest("x", 1, 1))},
		"cut snapshot request":  {LaneSnapshot, rawFrame(kindSnapshot, 1, 1, []byte{0})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs := &logBuffer{}
			n := newNetwork(t)
			a, b := n.start("a", func(c *Config) { c.Logger = logs.logger() }), n.start("b", nil)
			view := a.Group(1)
			var work sync.WaitGroup
			work.Go(func() { serve(view) })
			nc := stranger(t, a, "x", tc.lane)
			_, err := nc.Write(append(helloFrame(helloVersion, tc.lane, "x", "a"), tc.bytes...))
			require.NoError(t, err)
			requireClosed(t, nc)
			eventually(t, func() bool { return logs.contains("protocol violation") }, "a log line")
			require.NoError(t, appendTo(b.Group(1), "a"))
			a.stop()
			work.Wait()
		})
	}
}

// A peer that answers a call with something else ends the call and its
// connection.
func TestWrongReplyEndsTheConnection(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string][]byte{
		"of another kind": rawFrame(kindVoteReply, 1, 0, []byte{0, 0, 0, 0, 0, 0}),
		"cut":             rawFrame(kindAppendReply, 1, 0, []byte{0}),
		"unknown refusal": rawFrame(kindError, 1, 0, []byte{250}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newNetwork(t).start("a", nil)
			nc := stranger(t, a, "x", LaneAppend)
			_, err := nc.Write(helloFrame(helloVersion, LaneAppend, "x", "a"))
			require.NoError(t, err)
			eventually(t, func() bool { return a.Stats().Connections == 1 }, "the connection")
			outcome := make(chan error, 1)
			v := a.Group(1)
			go func() { outcome <- appendTo(v, "x") }()
			eventually(t, func() bool { return a.pending() == 1 }, "the call")
			_, err = nc.Write(reply)
			require.NoError(t, err)
			require.ErrorIs(t, receive(t, outcome, "end of the call"), ErrProtocol)
			if name != "unknown refusal" {
				requireClosed(t, nc)
			}
		})
	}
}

func TestRepliesToNobodyAreDropped(t *testing.T) {
	t.Parallel()
	a := newNetwork(t).start("a", nil)
	nc := stranger(t, a, "x", LaneAppend)
	stream := helloFrame(helloVersion, LaneAppend, "x", "a")
	for _, id := range []uint64{0, 1, 1 << 40, 1<<64 - 1} {
		stream = append(stream, rawFrame(kindAppendReply, 1, id, nil)...)
	}
	_, err := nc.Write(append(stream, rawFrame(kindPing, 0, 0, nil)...))
	require.NoError(t, err)
	r := newFrameReader(nc, 1024)
	for _, want := range []kind{kindHello, kindPong} {
		f, err := r.next()
		require.NoError(t, err)
		require.Equal(t, want, f.kind)
	}
}

// A node that dials again has lost its old connection.
func TestNewConnectionReplacesTheOld(t *testing.T) {
	t.Parallel()
	a := newNetwork(t).start("a", nil)
	first := stranger(t, a, "x", LaneAppend)
	_, err := first.Write(helloFrame(helloVersion, LaneAppend, "x", "a"))
	require.NoError(t, err)
	eventually(t, func() bool { return a.Stats().Connections == 1 }, "the first connection")
	second := stranger(t, a, "x", LaneAppend)
	_, err = second.Write(helloFrame(helloVersion, LaneAppend, "x", "a"))
	require.NoError(t, err)
	requireClosed(t, first)
	require.Equal(t, 1, a.Stats().Connections)
}

func TestPeersAreBounded(t *testing.T) {
	t.Parallel()
	a := newNetwork(t).start("a", func(c *Config) { c.Limits.Peers = 1 })
	a.SetAddress("b", "127.0.0.1:1")
	a.SetAddress("c", "127.0.0.1:1")
	require.ErrorIs(t, appendTo(a.Group(0), "c"), ErrUnknownPeer)
	nc := stranger(t, a, "x", LaneAppend)
	_, err := nc.Write(helloFrame(helloVersion, LaneAppend, "x", "a"))
	require.NoError(t, err)
	requireClosed(t, nc)
	a.SetAddress("b", "")
	a.SetAddress("c", "127.0.0.1:1")
	_, err = a.link("c", LaneAppend)
	require.NoError(t, err)
}

// A dialer that reaches another node than it meant gets no connection: that
// node's answers would count as the meant one's.
func TestDialingTheWrongNode(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	a, c := n.start("a", func(c *Config) { c.Timeouts.Append = 100 * time.Millisecond }), n.start("c", nil)
	a.SetAddress("b", c.addr)
	require.ErrorIs(t, appendTo(a.Group(1), "b"), ErrUnreachable)
	require.Error(t, a.Group(1).InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{}, new(raft.InstallSnapshotResponse), nil))
	require.Zero(t, a.Stats().Connections)
}

// FuzzPeer feeds a node what an authenticated but hostile peer may send.
func FuzzPeer(f *testing.F) {
	f.Add(byte(LaneAppend), requestFrame(kindAppend, 1, appendRequest("x", 2, 20)))
	f.Add(byte(LaneElection), requestFrame(kindVote, 1, &raft.RequestVoteRequest{Term: 9}))
	f.Add(byte(LaneElection), append(rawFrame(kindPing, 0, 0, nil), requestFrame(kindTimeoutNow, 2, &raft.TimeoutNowRequest{})...))
	f.Add(byte(LaneSnapshot), append(requestFrame(kindSnapshot, 1, &raft.InstallSnapshotRequest{Size: 3}), rawFrame(kindSnapshotData, 1, 0, []byte("abc"))...))
	m, err := New(Config{NodeID: "a", Logger: (&logBuffer{}).logger(), Timeouts: Timeouts{SnapshotStall: time.Second}})
	require.NoError(f, err)
	v := m.Group(1)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			select {
			case rpc := <-v.Consumer():
				if rpc.Reader != nil {
					_, _ = io.Copy(io.Discard, struct{ io.Reader }{rpc.Reader})
				}
				rpc.Respond(nil, errors.New("no"))
			case <-v.ctx.Done():
				return
			}
		}
	})
	f.Cleanup(func() {
		_ = m.Close()
		work.Wait()
	})
	f.Fuzz(func(_ *testing.T, lane byte, stream []byte) {
		ours, theirs := net.Pipe()
		var served sync.WaitGroup
		served.Go(func() { m.Serve(theirs, Lane(lane), "x") })
		served.Go(func() { _, _ = io.Copy(io.Discard, ours) })
		_, _ = ours.Write(helloFrame(helloVersion, Lane(lane), "x", "a"))
		_, _ = ours.Write(stream)
		_ = ours.Close()
		served.Wait()
	})
}
