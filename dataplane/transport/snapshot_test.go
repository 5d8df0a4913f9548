package transport

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func snapshotRequest(size int64) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{
		RPCHeader: testHeader("a"), SnapshotVersion: 1, Term: 3, Leader: []byte("a"), LastLogIndex: 9, LastLogTerm: 2,
		Configuration: configurationBytes(), ConfigurationIndex: 1, Size: size,
	}
}

// install sends size bytes to node b in the background.
func install(v *View, data io.Reader, size int64) <-chan error {
	outcome := make(chan error, 1)
	go func() {
		outcome <- v.InstallSnapshot("b", "b", snapshotRequest(size), new(raft.InstallSnapshotResponse), data)
	}()
	return outcome
}

// readAll reads a snapshot as Raft does: behind a wrapper.
func readAll(r io.Reader) ([]byte, error) { return io.ReadAll(struct{ io.Reader }{r}) }

func zeroes(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// gate is a reader that waits.
type gate struct {
	started chan struct{}
	open    chan struct{}
	src     io.Reader
	once    atomic.Bool
}

func newGate(src io.Reader) *gate {
	return &gate{started: make(chan struct{}), open: make(chan struct{}), src: src}
}

func (g *gate) Read(p []byte) (int, error) {
	if g.once.CompareAndSwap(false, true) {
		close(g.started)
	}
	<-g.open
	return g.src.Read(p)
}

// The number of snapshots in transfer is bounded at both ends; one too many is
// refused and succeeds later.
func TestSnapshotsAreBounded(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]Limits{
		"outbound": {OutboundSnapshots: 2, InboundSnapshots: 99},
		"inbound":  {OutboundSnapshots: 99, InboundSnapshots: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, a, b := pairOf(t, func(c *Config) {
				c.Limits = limits
				c.Timeouts.SnapshotWait = 20 * time.Millisecond
			})
			const size = 1000
			var outcomes []<-chan error
			var rpcs []raft.RPC
			for g := range uint16(2) {
				to := b.Group(g)
				outcomes = append(outcomes, install(a.Group(g), zeroes(size), size))
				rpcs = append(rpcs, receive(t, to.Consumer(), "snapshot"))
			}
			third := b.Group(2)
			from := a.Group(2)
			require.ErrorIs(t, receive(t, install(from, zeroes(size), size), "refusal"), ErrSnapshotLimit)
			require.Equal(t, 2, a.Stats().OutboundSnapshots)
			require.Equal(t, 2, b.Stats().InboundSnapshots)

			for i, rpc := range rpcs {
				got, err := readAll(rpc.Reader)
				require.NoError(t, err)
				require.Len(t, got, size)
				rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
				require.NoError(t, receive(t, outcomes[i], "end of a snapshot"))
			}
			eventually(t, func() bool { return b.Stats().InboundSnapshots == 0 }, "room")
			last := install(from, zeroes(size), size)
			rpc := receive(t, third.Consumer(), "snapshot")
			_, err := readAll(rpc.Reader)
			require.NoError(t, err)
			rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
			require.NoError(t, receive(t, last, "end of the snapshot"))
		})
	}
}

// A snapshot on its way does not hold up appends and heartbeats of other
// groups, nor is a second one of the same group admitted.
func TestSnapshotsHaveTheirOwnLane(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	data := newGate(zeroes(1 << 20))
	to := b.Group(1)
	outcome := install(a.Group(1), data, 1<<20)
	rpc := receive(t, to.Consumer(), "snapshot")
	read := make(chan error, 1)
	go func() { _, err := readAll(rpc.Reader); read <- err }()
	receive(t, data.started, "transfer")

	other := b.Group(2)
	for range 100 {
		got := answerNext(other, &raft.AppendEntriesResponse{}, nil)
		require.NoError(t, appendTo(a.Group(2), "b"))
		receive(t, got, "append")
	}
	require.ErrorIs(t, receive(t, install(a.Group(3), zeroes(1), 1), "refusal"), ErrUnknownGroup)
	second := snapshotRequest(0)
	require.ErrorIs(t, a.Group(1).sendSnapshot("b", second, new(raft.InstallSnapshotResponse), zeroes(0)), ErrSnapshotLimit)

	close(data.open)
	require.Error(t, receive(t, outcome, "end of the snapshot"), "its view was replaced")
	require.Error(t, receive(t, read, "end of the stream"))
}

func TestSnapshotSizeMustMatch(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	from, to := a.Group(1), b.Group(1)
	for name, tc := range map[string]struct {
		data     io.Reader
		size     int64
		complete bool
	}{
		"short":    {zeroes(999), 1000, false},
		"long":     {zeroes(1001), 1000, false},
		"failing":  {io.MultiReader(zeroes(500), iotestErr{}), 1000, false},
		"as it is": {zeroes(1000), 1000, true},
	} {
		eventually(t, func() bool { return b.Stats().InboundSnapshots == 0 }, "room")
		outcome := install(from, tc.data, tc.size)
		rpc := receive(t, to.Consumer(), "snapshot")
		got, err := readAll(rpc.Reader)
		if tc.complete {
			require.NoError(t, err, name)
			require.Len(t, got, int(tc.size), name)
			rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
			require.NoError(t, receive(t, outcome, "end"), name)
			continue
		}
		require.Error(t, err, "%s: an incomplete snapshot must not look complete", name)
		_, again := rpc.Reader.Read(make([]byte, 1))
		require.Equal(t, err, again, name)
		rpc.Respond(nil, err)
		require.ErrorIs(t, receive(t, outcome, "end"), ErrSnapshotSize, name)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, errors.New("disk broke") }

// Raft throws away a snapshot of an old term by copying it to io.Discard on its
// main loop. Nothing is transferred for that.
func TestUnwantedSnapshotIsNotTransferred(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	from, to := a.Group(1), b.Group(1)
	const size = 1 << 30
	outcome := install(from, zeroes(size), size)
	rpc := receive(t, to.Consumer(), "snapshot")
	_, err := io.Copy(io.Discard, rpc.Reader)
	require.NoError(t, err)
	rpc.Respond(&raft.InstallSnapshotResponse{Term: 99}, nil)
	require.NoError(t, receive(t, outcome, "end"))
	require.Less(t, a.Stats().Snapshot.BytesOut, uint64(10_000))
}

// Raft gives up in the middle: what is on its way is not waited for by Raft, and
// the sender learns the reason.
func TestSnapshotGivenUpHalfway(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	from, to := a.Group(1), b.Group(1)
	const size = 1 << 30
	outcome := install(from, zeroes(size), size)
	rpc := receive(t, to.Consumer(), "snapshot")
	_, err := io.CopyN(io.Discard, struct{ io.Reader }{rpc.Reader}, 1<<20)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, rpc.Reader)
	require.NoError(t, err)
	rpc.Respond(nil, errors.New("sink is full"))
	require.ErrorContains(t, receive(t, outcome, "end"), "sink is full")
	require.Less(t, a.Stats().Snapshot.BytesOut, uint64(size/2))
}

func TestSnapshotCopiesToOtherWriters(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, nil)
	to := b.Group(1)
	outcome := install(a.Group(1), zeroes(600_000), 600_000)
	rpc := receive(t, to.Consumer(), "snapshot")
	var sink bytes.Buffer
	n, err := io.Copy(&sink, rpc.Reader)
	require.NoError(t, err)
	require.Equal(t, int64(600_000), n)
	rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
	require.NoError(t, receive(t, outcome, "end"))
}

// Whoever closes, the other end does not wait, and Raft's read ends.
func TestSnapshotEndsWithItsViews(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end  func(from, to *View, a, b *node)
		want error
	}{
		"sending view":   {func(from, _ *View, _, _ *node) { _ = from.Close() }, ErrClosed},
		"sending node":   {func(_, _ *View, a, _ *node) { a.stop() }, ErrClosed},
		"receiving view": {func(_, to *View, _, _ *node) { _ = to.Close() }, nil},
		"receiving node": {func(_, _ *View, _, b *node) { b.stop() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, a, b := pairOf(t, nil)
			from, to := a.Group(1), b.Group(1)
			outcome := install(from, zeroes(1<<40), 1<<40)
			rpc := receive(t, to.Consumer(), "snapshot")
			read := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, struct{ io.Reader }{rpc.Reader})
				rpc.Respond(nil, err)
				read <- err
			}()
			eventually(t, func() bool { return b.Stats().Snapshot.BytesIn > 1<<20 }, "transfer")
			tc.end(from, to, a, b)
			err := receive(t, outcome, "end of the call")
			require.Error(t, err)
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
			}
			require.Error(t, receive(t, read, "end of the stream"))
			eventually(t, func() bool { return b.Stats().InboundSnapshots == 0 && a.Stats().OutboundSnapshots == 0 }, "room")
		})
	}
}

// No byte within the stall timeout ends a transfer, from either side.
func TestStalledSnapshot(t *testing.T) {
	t.Parallel()
	short := func(c *Config) { c.Timeouts.SnapshotStall = time.Second }
	t.Run("sender", func(t *testing.T) {
		t.Parallel()
		_, a, b := pairOf(t, short)
		to := b.Group(1)
		data := newGate(zeroes(10))
		outcome := install(a.Group(1), data, 10)
		rpc := receive(t, to.Consumer(), "snapshot")
		_, err := readAll(rpc.Reader)
		require.ErrorIs(t, err, ErrConnectionLost)
		rpc.Respond(nil, err)
		close(data.open)
		require.Error(t, receive(t, outcome, "end"))
	})
	t.Run("receiver", func(t *testing.T) {
		t.Parallel()
		_, a, b := pairOf(t, short)
		to := b.Group(1)
		outcome := install(a.Group(1), zeroes(1<<30), 1<<30)
		rpc := receive(t, to.Consumer(), "snapshot")
		_, err := rpc.Reader.Read(make([]byte, 1))
		require.NoError(t, err)
		require.ErrorIs(t, receive(t, outcome, "end"), ErrConnectionLost)
		_, err = readAll(rpc.Reader)
		require.Error(t, err)
		rpc.Respond(nil, err)
	})
	t.Run("process", func(t *testing.T) {
		t.Parallel()
		a := newNetwork(t).start("a", short)
		a.SetAddress("b", greetOnly(t, a, "b").Addr().String())
		require.ErrorIs(t, receive(t, install(a.Group(1), zeroes(1), 1), "end"), ErrConnectionLost)
	})
}

// A slow installation is no stall: the receiver says that it is at it.
func TestSlowInstallation(t *testing.T) {
	t.Parallel()
	_, a, b := pairOf(t, func(c *Config) { c.Timeouts.SnapshotStall = 2 * time.Second })
	to := b.Group(1)
	outcome := install(a.Group(1), zeroes(5), 5)
	rpc := receive(t, to.Consumer(), "snapshot")
	_, err := readAll(rpc.Reader)
	require.NoError(t, err)
	heard := a.Stats().Snapshot.Reads
	eventually(t, func() bool { return a.Stats().Snapshot.Reads > heard+5 }, "signs of life for longer than a stall")
	rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
	require.NoError(t, receive(t, outcome, "end"))
}

// Signs of life do not help beyond the time that the size allows, which both
// ends keep.
func TestEndlessInstallation(t *testing.T) {
	t.Parallel()
	for keeper, want := range map[string]error{"a": ErrTimeout, "b": ErrGroupBusy} {
		t.Run(keeper, func(t *testing.T) {
			t.Parallel()
			_, a, b := pairOf(t, func(c *Config) {
				c.Timeouts.SnapshotStall = time.Second
				if c.NodeID == keeper {
					c.Timeouts.Snapshot = 500 * time.Millisecond
				}
			})
			_ = b.Group(1) // nobody receives
			require.ErrorIs(t, receive(t, install(a.Group(1), zeroes(5), 5), "end"), want)
			eventually(t, func() bool { return b.Stats().InboundSnapshots == 0 }, "room at the receiver")
		})
	}
}

func TestSnapshotTimeGrowsWithSize(t *testing.T) {
	t.Parallel()
	m := newNetwork(t).start("a", func(c *Config) {
		c.Timeouts.Snapshot = time.Minute
		c.Limits.SnapshotRate = 1000
	})
	require.Equal(t, time.Minute, m.snapshotTime(0))
	require.Equal(t, time.Minute+2*time.Second, m.snapshotTime(2000))
}

func TestSnapshotWithoutAWay(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	a := n.start("a", func(c *Config) { c.Dial = nil })
	v := a.Group(1)
	require.ErrorIs(t, receive(t, install(v, zeroes(1), 1), "end"), ErrUnknownPeer)
	a.SetAddress("b", "127.0.0.1:1")
	require.ErrorIs(t, receive(t, install(v, zeroes(1), 1), "end"), ErrUnreachable)
	require.NoError(t, v.Close())
	require.ErrorIs(t, receive(t, install(v, zeroes(1), 1), "end"), ErrClosed)
}
