package transport

//lint:file-ignore SA1019 hashicorp/raft still sends its deprecated fields and falls back on them.

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func heartbeat(v *View) <-chan error {
	outcome := make(chan error, 1)
	req := &raft.AppendEntriesRequest{RPCHeader: testHeader("a"), Leader: []byte("a"), Term: 3}
	go func() { outcome <- v.AppendEntries("b", "b", req, new(raft.AppendEntriesResponse)) }()
	return outcome
}

// gatherFor lets heartbeats and their answers wait so long.
func gatherFor(d time.Duration) func(*Config) {
	return func(c *Config) { c.Timeouts.Gather, c.Timeouts.Heartbeat, c.Timeouts.Vote = d, 100*d, 100*d }
}

func TestHeartbeatsTravelTogether(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, gatherFor(300*time.Millisecond))
	var echoes sync.WaitGroup
	var views []*View
	for g := range uint16(20) {
		server := b.Group(g)
		echoes.Go(func() { serve(server) })
		views = append(views, a.Group(g))
	}
	require.NoError(t, receive(t, heartbeat(views[0]), "end of a heartbeat"))
	before := a.Stats().Election
	var outcomes []<-chan error
	for _, v := range views {
		outcomes = append(outcomes, heartbeat(v))
	}
	for _, outcome := range outcomes {
		require.NoError(t, receive(t, outcome, "end of a heartbeat"))
	}
	after := a.Stats().Election
	require.Equal(t, uint64(len(views)), after.FramesOut-before.FramesOut)
	require.Less(t, after.Flushes-before.Flushes, uint64(len(views))/2)
	b.stop()
	echoes.Wait()
}

// What decides an election waits for nothing, and takes along what does.
func TestVotesAreNotGathered(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, gatherFor(time.Hour))
	voting, beating := b.Group(1), b.Group(2)
	var echoes sync.WaitGroup
	echoes.Go(func() { serve(beating) })
	held := heartbeat(a.Group(2))
	eventually(t, a.gathers, "the heartbeat to wait")
	require.Zero(t, a.Stats().Election.FramesOut)
	got := answerNext(voting, &raft.RequestVoteResponse{RPCHeader: testHeader("b"), Granted: true}, nil)
	var resp raft.RequestVoteResponse
	require.NoError(t, a.Group(1).RequestVote("b", "b", &raft.RequestVoteRequest{RPCHeader: testHeader("a"), Term: 3}, &resp))
	require.True(t, resp.Granted)
	receive(t, got, "vote")
	eventually(t, func() bool { return a.Stats().Election.FramesOut == 2 }, "the heartbeat, which went along, to be counted")
	b.stop() // where its answer may wait
	receive(t, held, "end of the heartbeat")
	echoes.Wait()
}

// gathers reports whether a frame of the election lane waits for others.
func (nd *node) gathers() bool {
	for _, c := range nd.connections(nil) {
		c.out.mu.Lock()
		waits := c.out.gather && c.out.frames > 0
		c.out.mu.Unlock()
		if waits {
			return true
		}
	}
	return false
}
