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

// rareBeat is a beat that does not come during a test.
func rareBeat(c *Config) { c.Timeouts.Beat, c.Timeouts.Heartbeat = time.Hour, 4*time.Hour }

func (b *beat) waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next != nil
}

func TestBeatGathersHeartbeats(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, rareBeat)
	var echoes sync.WaitGroup
	var outcomes []<-chan error
	for g := range uint16(20) {
		server := b.Group(g)
		echoes.Go(func() { serve(server) })
		outcomes = append(outcomes, heartbeat(a.Group(g)))
	}
	eventually(t, a.beat.waiting, "heartbeats to wait")
	require.ErrorIs(t, appendTo(a.Group(30), "b"), ErrUnknownGroup, "appends do not wait")
	a.beat.strike()
	for _, outcome := range outcomes {
		eventually(t, func() bool { // some may have come after the beat
			if a.beat.waiting() {
				a.beat.strike()
			}
			return len(outcome) == 1
		}, "end of a heartbeat")
		require.NoError(t, <-outcome)
	}
	b.stop()
	echoes.Wait()
}

func TestBeatComesByItself(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, func(c *Config) { c.Timeouts.Beat = time.Millisecond })
	to := b.Group(1)
	for range 3 {
		got := answerNext(to, &raft.AppendEntriesResponse{Success: true}, nil)
		require.NoError(t, receive(t, heartbeat(a.Group(1)), "end of a heartbeat"))
		receive(t, got, "heartbeat")
	}
}

// VerifyLeader waits for a heartbeat, which then must not wait for the beat.
func TestExpediteSkipsTheBeat(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, rareBeat)
	from, to, other := a.Group(1), b.Group(1), a.Group(2)
	var echoes sync.WaitGroup
	echoes.Go(func() { serve(to) })

	held := heartbeat(from)
	heldToo := heartbeat(other)
	eventually(t, a.beat.waiting, "the heartbeats to wait")
	eventually(t, func() bool { from.Expedite(); return len(held) == 1 }, "the held heartbeat")
	require.NoError(t, <-held)
	from.Expedite()
	require.NoError(t, receive(t, heartbeat(from), "the next heartbeat"))
	require.Empty(t, heldToo, "another group's heartbeat waits on")

	require.NoError(t, other.Close())
	require.ErrorIs(t, receive(t, heldToo, "end of the call"), ErrClosed)
	b.stop()
	echoes.Wait()
}

func TestExpediteWithoutBeatDoesNothing(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	from, to := a.Group(1), b.Group(1)
	from.Expedite()
	got := answerNext(to, &raft.AppendEntriesResponse{}, nil)
	require.NoError(t, receive(t, heartbeat(from), "end of a heartbeat"))
	receive(t, got, "heartbeat")
	require.False(t, a.beat.waiting())
}
