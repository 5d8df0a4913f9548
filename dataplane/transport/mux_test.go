package transport

//lint:file-ignore SA1019 hashicorp/raft still sends its deprecated fields and falls back on them.

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) contains(s string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.buf.String(), s)
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// appendTo makes one append call.
func appendTo(v *View, target raft.ServerAddress) error {
	return v.AppendEntries("", target, appendRequest("a", 1, 100), new(raft.AppendEntriesResponse))
}

// pending returns how many calls wait on a node's connections.
func (nd *node) pending() int {
	n := 0
	for _, c := range nd.connections(nil) {
		n += c.calls.live()
	}
	return n
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	for name, conf := range map[string]Config{
		"no id":          {Logger: logger},
		"long id":        {NodeID: strings.Repeat("x", maxNodeID+1), Logger: logger},
		"no logger":      {NodeID: "a"},
		"groups":         {NodeID: "a", Logger: logger, Groups: 1<<16 + 1},
		"small frame":    {NodeID: "a", Logger: logger, Limits: Limits{FrameBytes: 100}},
		"negative limit": {NodeID: "a", Logger: logger, Limits: Limits{Calls: -1}},
		"long gathering": {NodeID: "a", Logger: logger, Timeouts: Timeouts{Gather: time.Second}},
		"timeout":        {NodeID: "a", Logger: logger, Timeouts: Timeouts{Vote: -1}},
	} {
		_, err := New(conf)
		require.Error(t, err, name)
	}
	m, err := New(Config{NodeID: "a", Logger: logger})
	require.NoError(t, err, "an id and a logger suffice")
	v := m.Group(0)
	require.ErrorIs(t, appendTo(v, "b"), ErrUnknownPeer)
	m.SetAddress("b", "127.0.0.1:1")
	require.ErrorIs(t, appendTo(v, "b"), ErrUnreachable, "no way to dial")
	require.NoError(t, m.Close())
	require.NoError(t, m.Close(), "closing twice is fine")
}

// hashicorp/raft issue 695: a handler that runs beside the main loop breaks
// safety. Heartbeats arrive on Consumer like everything else.
func TestHeartbeatHandlerIsNeverCalled(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	from, to := a.Group(1), b.Group(1)
	var handled atomic.Int32
	to.SetHeartbeatHandler(func(raft.RPC) { handled.Add(1) })
	heartbeat := &raft.AppendEntriesRequest{RPCHeader: testHeader("a"), Leader: []byte("a"), Term: 3}
	require.True(t, isHeartbeat(heartbeat))
	for range 20 {
		got := answerNext(to, &raft.AppendEntriesResponse{Success: true}, nil)
		require.NoError(t, from.AppendEntries("b", "b", heartbeat, new(raft.AppendEntriesResponse)))
		require.Equal(t, heartbeat, receive(t, got, "heartbeat").Command)
	}
	require.Zero(t, handled.Load())
	stats := a.Stats()
	require.NotZero(t, stats.Election.FramesOut, "heartbeats go on the election lane")
	require.Zero(t, stats.Append.FramesOut)
}

func TestPipelinesAreNotSupported(t *testing.T) {
	t.Parallel()
	_, a, _ := pairOf(t, nil)
	_, err := a.Group(0).AppendEntriesPipeline("b", "b")
	require.Equal(t, raft.ErrPipelineReplicationNotSupported, err, "raft compares with ==")
}

func TestGroupNotServed(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, func(c *Config) { c.Groups = 8 })
	require.ErrorIs(t, appendTo(a.Group(5), "b"), ErrUnknownGroup)

	beyond := a.Group(8)
	require.ErrorIs(t, appendTo(beyond, "b"), ErrClosed)
	beyond.Campaign()
	require.NoError(t, beyond.Close())
	require.Equal(t, uint64(1), b.Stats().Refused)
}

// A group's instance restarts in place: its view is closed and replaced, and
// no other group notices.
func TestViewsAreReplaced(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	from, other := a.Group(1), a.Group(2)
	first, bystander := b.Group(1), b.Group(2)
	var echoes sync.WaitGroup
	echoes.Go(func() { serve(bystander) })
	echoes.Go(func() { serve(first) })
	require.NoError(t, appendTo(from, "b"))
	require.NoError(t, appendTo(other, "b"))
	dials := a.Stats().Dials

	require.NoError(t, first.Close())
	require.ErrorIs(t, appendTo(from, "b"), ErrUnknownGroup)
	require.NoError(t, appendTo(other, "b"))

	second := b.Group(1)
	echoes.Go(func() { serve(second) })
	require.NoError(t, appendTo(from, "b"))

	third := b.Group(1) // without closing the second
	require.ErrorIs(t, appendTo(second, "a"), ErrClosed)
	echoes.Go(func() { serve(third) })
	require.NoError(t, appendTo(from, "b"))
	require.NoError(t, appendTo(other, "b"))
	require.Equal(t, dials, a.Stats().Dials, "connections stay")
	require.Equal(t, second.Close(), nil)
	require.NoError(t, appendTo(from, "b"), "closing an old view leaves the new one alone")
	b.stop()
	echoes.Wait()
}

// A group that does not take its requests fills its own queue and no more.
func TestStalledGroupDoesNotStallOthers(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, func(c *Config) { c.Limits.GroupQueue = 4 })
	stalled, lively := a.Group(1), a.Group(2)
	_ = b.Group(1) // nobody receives
	server := b.Group(2)
	var work sync.WaitGroup
	work.Go(func() { serve(server) })

	outcomes := make(chan error, 10)
	for range 10 {
		work.Go(func() { outcomes <- appendTo(stalled, "b") })
	}
	for range 6 {
		require.ErrorIs(t, receive(t, outcomes, "refusal"), ErrGroupBusy)
	}
	for range 200 {
		require.NoError(t, appendTo(lively, "b"))
	}
	require.Equal(t, 4, a.pending())
	require.NoError(t, stalled.Close())
	for range 4 {
		require.ErrorIs(t, receive(t, outcomes, "end of a call"), ErrClosed)
	}
	require.NoError(t, appendTo(lively, "b"))
	b.stop()
	work.Wait()
}

func TestRemoteViewCloseAnswersItsCallers(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	from, to := a.Group(1), b.Group(1)
	outcome := make(chan error, 1)
	go func() { outcome <- appendTo(from, "b") }()
	receive(t, to.Consumer(), "request") // taken, never answered
	require.NoError(t, to.Close())
	require.ErrorIs(t, receive(t, outcome, "end of the call"), ErrGroupClosed)
}

func TestCloseAnswersEveryCaller(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(a, b *node){
		"own node":  func(a, _ *node) { a.stop() },
		"peer":      func(_, b *node) { b.stop() },
		"forgotten": func(a, _ *node) { a.SetAddress("b", "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, a, b := pairOf(t, nil)
			const calls = 50
			outcomes := make(chan error, 2*calls)
			for g := range uint16(calls) {
				v := a.Group(g)
				_ = b.Group(g)
				go func() { outcomes <- appendTo(v, "b") }()
				go func() {
					outcomes <- v.RequestVote("b", "b", &raft.RequestVoteRequest{}, new(raft.RequestVoteResponse))
				}()
			}
			eventually(t, func() bool { return a.pending() == 2*calls }, "all calls under way")
			end(a, b)
			for range 2 * calls {
				require.Error(t, receive(t, outcomes, "end of a call"))
			}
			require.ErrorIs(t, func() error { a.stop(); return appendTo(a.Group(0), "b") }(), ErrClosed)
		})
	}
}

func TestLargeAppendsAreSplit(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, func(c *Config) { c.Limits.AppendBytes = 1000 })
	from, to := a.Group(1), b.Group(1)
	args := appendRequest("a", 10, 400) // 2 fit into a part
	args.LeaderCommitIndex = 1004
	for i, l := range args.Entries {
		l.Term = uint64(i + 1)
	}
	call := func() (<-chan error, *raft.AppendEntriesResponse) {
		outcome, resp := make(chan error, 1), new(raft.AppendEntriesResponse)
		go func() { outcome <- from.AppendEntries("", "b", args, resp) }()
		return outcome, resp
	}

	outcome, resp := call()
	prev, prevTerm := args.PrevLogEntry, args.PrevLogTerm
	for range 5 {
		rpc := receive(t, to.Consumer(), "part")
		part := rpc.Command.(*raft.AppendEntriesRequest)
		require.Len(t, part.Entries, 2)
		require.Equal(t, prev, part.PrevLogEntry)
		require.Equal(t, prevTerm, part.PrevLogTerm)
		require.Equal(t, args.Term, part.Term)
		last := part.Entries[1]
		require.Equal(t, min(last.Index, args.LeaderCommitIndex), part.LeaderCommitIndex)
		prev, prevTerm = last.Index, last.Term
		rpc.Respond(&raft.AppendEntriesResponse{Success: true, Term: args.Term, LastLog: last.Index}, nil)
	}
	require.NoError(t, receive(t, outcome, "end of the call"))
	require.True(t, resp.Success)
	require.Equal(t, uint64(1010), resp.LastLog)

	// The first answer that is no success ends it.
	outcome, resp = call()
	answer(t, to, &raft.AppendEntriesResponse{Success: true, Term: args.Term}, nil)
	answer(t, to, &raft.AppendEntriesResponse{Term: args.Term + 1, LastLog: 5}, nil)
	require.NoError(t, receive(t, outcome, "end of the call"))
	require.Equal(t, raft.AppendEntriesResponse{Term: args.Term + 1, LastLog: 5}, *resp)

	outcome, _ = call()
	answer(t, to, nil, errors.New("disk full"))
	require.ErrorContains(t, receive(t, outcome, "end of the call"), "disk full")
}

func TestTooLargeEntry(t *testing.T) {
	t.Parallel()
	_, a, _ := pairOf(t, func(c *Config) { c.Limits.FrameBytes = minFrameLimit })
	v := a.Group(1)
	require.ErrorIs(t, v.AppendEntries("", "b", appendRequest("a", 1, minFrameLimit), new(raft.AppendEntriesResponse)), ErrTooLarge)
	require.Zero(t, a.pending())
}

// A node may refuse what peers want to hand over, and only that; what it asks of
// itself still goes.
func TestTakeOverCanBeRefused(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	full.Store(true)
	_, a, b := pairOf(t, func(c *Config) {
		c.TakeOver = func() error {
			if full.Load() {
				return errors.New("no room here")
			}
			return nil
		}
	})
	from, to := a.Group(1), b.Group(1)
	takeOver := func() error {
		return from.TimeoutNow("b", "b", &raft.TimeoutNowRequest{RPCHeader: testHeader("a")}, new(raft.TimeoutNowResponse))
	}
	require.ErrorContains(t, takeOver(), "no room here")
	require.Empty(t, to.Consumer())
	answerNext(to, &raft.RequestVoteResponse{RPCHeader: testHeader("b")}, nil)
	require.NoError(t, from.RequestVote("b", "b", &raft.RequestVoteRequest{RPCHeader: testHeader("a")}, new(raft.RequestVoteResponse)))
	to.Campaign()
	campaign := receive(t, to.Consumer(), "campaign")
	campaign.Respond(&raft.TimeoutNowResponse{}, nil)

	full.Store(false)
	answerNext(to, &raft.TimeoutNowResponse{RPCHeader: testHeader("b")}, nil)
	require.NoError(t, takeOver())
}

func TestCampaignReachesTheLocalConsumer(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	v := n.start("a", func(c *Config) { c.Limits.GroupQueue = 1 }).Group(1)
	for range 10 {
		v.Campaign() // never blocks, whoever receives
	}
	rpc := receive(t, v.Consumer(), "campaign")
	req := rpc.Command.(*raft.TimeoutNowRequest)
	require.Equal(t, raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("a"), Addr: []byte("a")}, req.RPCHeader)
	rpc.Respond(&raft.TimeoutNowResponse{}, nil)
	require.NoError(t, v.Close())
	v.Campaign()
}

func TestObserverAndStats(t *testing.T) {
	t.Parallel()
	var flushes, trips, failures atomic.Int32
	_, a, b := pairOf(t, func(c *Config) {
		c.Observer = Observer{
			Flush: func(peer string, lane Lane, frames, size int) {
				if lane == LaneAppend && frames > 0 && size > headerLen && peer != c.NodeID {
					flushes.Add(1)
				}
			},
			RoundTrip: func(peer string, lane Lane, operation string, took time.Duration, err error) {
				if peer == "b" && lane == LaneAppend && operation == "append" && took > 0 {
					trips.Add(1)
				}
				if err != nil {
					failures.Add(1)
				}
			},
		}
	})
	from, to := a.Group(1), b.Group(1)
	answerNext(to, &raft.AppendEntriesResponse{}, nil)
	require.NoError(t, appendTo(from, "b"))
	answerNext(to, nil, errors.New("no"))
	require.Error(t, appendTo(from, "b"))
	require.Equal(t, int32(2), trips.Load())
	require.Equal(t, int32(1), failures.Load())
	eventually(t, func() bool { return flushes.Load() == 4 }, "both sides' flushes")
	sa, sb := a.Stats().Append, b.Stats().Append
	require.Equal(t, uint64(2), sa.FramesOut)
	require.Equal(t, sa.BytesOut, sb.BytesIn)
	require.NotZero(t, sb.Reads)
}

func TestLaneNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, "election append snapshot lane(9)",
		strings.Join([]string{LaneElection.String(), LaneAppend.String(), LaneSnapshot.String(), Lane(9).String()}, " "))
	require.False(t, Lane(9).carries(kindAppend))
	require.Equal(t, "kind(0x40)", kind(0x40).String())
}
