package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// DialFunc opens a connection to a node for one lane. It returns after both
// ends have proven who they are, and with everything sent that the listener
// needs to hand the connection to Mux.Serve of the other node. The address is
// what SetAddress was told last.
type DialFunc func(ctx context.Context, nodeID, address string, lane Lane) (net.Conn, error)

// Config configures a Mux. Only NodeID and Logger are required.
type Config struct {
	// Dial reaches other nodes. Without it the node stays alone and every call
	// to a peer fails with ErrUnreachable, unless the peer connects here.
	Dial DialFunc
	// Groups is how many groups there may be, numbered from 0. Defaults to 256.
	Groups int
	Limits Limits
	Logger *slog.Logger
	// NodeID is this node's Raft server id and address, 1 to 255 bytes.
	NodeID   string
	Observer Observer
	// TakeOver, when not nil, is asked before a peer's request to take over
	// leadership reaches Raft; an error refuses it. It must not block.
	TakeOver func() error
	Timeouts Timeouts
}

// Limits bounds what the transport holds and sends. Zero fields get defaults.
type Limits struct {
	// AppendBytes is where an AppendEntries with many entries is split into
	// several requests: Raft bounds their number, not their size. A single
	// larger entry travels alone. Defaults to 1 MiB.
	AppendBytes int
	// Calls is how many calls may wait for an answer on one connection. Defaults
	// to 4,096.
	Calls int
	// FrameBytes bounds one frame, and so one log entry. Defaults to 32 MiB.
	FrameBytes int
	// GroupQueue is how many requests may wait for one group's Raft instance.
	// Defaults to 32.
	GroupQueue int
	// GroupQueueBytes bounds their size; one larger request is admitted when it
	// is the only one. Defaults to 8 MiB.
	GroupQueueBytes int
	// InboundSnapshots and OutboundSnapshots bound the snapshots in transfer in
	// each direction. Both default to 2.
	InboundSnapshots  int
	OutboundSnapshots int
	// Peers bounds the nodes known. Defaults to 1,024.
	Peers int
	// QueueBytes bounds what waits to be written to one connection; one larger
	// frame is admitted when nothing else waits. Defaults to 16 MiB.
	QueueBytes int
	// SnapshotRate is the slowest transfer put up with, in bytes per second.
	// Defaults to 1 MiB/s.
	SnapshotRate int
}

// Timeouts bounds waiting. Zero fields get defaults.
type Timeouts struct {
	// Append is how long an AppendEntries with content may take, waiting for a
	// connection included. Generous, because the peer waits for its disk.
	// Defaults to 10 s.
	Append time.Duration
	// Backoff is the pause after the first failed attempt to connect; it doubles
	// up to BackoffMax, with jitter. Default to 50 ms and 1 s.
	Backoff    time.Duration
	BackoffMax time.Duration
	// Dial bounds one attempt to connect, the greeting included. Defaults to 2 s.
	Dial time.Duration
	// Gather is how long the election lane gathers heartbeats and the answers to
	// them before it writes; at most a tenth of Heartbeat. With groups that send
	// their heartbeats at the same moment an idle cluster saves most of its writes;
	// Raft.VerifyLeader takes twice that longer. Defaults to 0: nothing waits.
	Gather time.Duration
	// Heartbeat is how long a heartbeat may take. Should be about Raft's
	// HeartbeatTimeout. Defaults to 1 s.
	Heartbeat time.Duration
	// Silence is how long a peer that owes answers may stay silent before its
	// connection is given up. It is asked for a sign of life halfway. Defaults
	// to 2 s.
	Silence time.Duration
	// Snapshot bounds a snapshot transfer, installing included, beside the time
	// its size allows (Limits.SnapshotRate). Defaults to 1 min.
	Snapshot time.Duration
	// SnapshotStall is how long a transfer may make no progress. Defaults to 30 s.
	SnapshotStall time.Duration
	// SnapshotWait is how long a snapshot waits for its turn to be sent. Defaults
	// to 5 s.
	SnapshotWait time.Duration
	// Vote is how long a vote, a pre-vote or a request to take over leadership may
	// take. Should be about Raft's ElectionTimeout. Defaults to 1 s.
	Vote time.Duration
	// Write is how long the kernel may take no byte of a write. Defaults to 5 s.
	Write time.Duration
}

const (
	// maxNodeID bounds a node id.
	maxNodeID = 255
	// spareSilences is after how many times Timeouts.Silence an unused second
	// connection of a lane is closed.
	spareSilences = 2
	// maxTick bounds the interval in which deadlines are checked. It is the
	// precision of every deadline of a call.
	maxTick = 100 * time.Millisecond
	minTick = time.Millisecond
)

func (c *Config) withDefaults() {
	or(&c.Groups, 256)

	l := &c.Limits
	or(&l.AppendBytes, 1<<20)
	or(&l.Calls, 4096)
	or(&l.FrameBytes, 32<<20)
	or(&l.GroupQueue, 32)
	or(&l.GroupQueueBytes, 8<<20)
	or(&l.InboundSnapshots, 2)
	or(&l.OutboundSnapshots, 2)
	or(&l.Peers, 1024)
	or(&l.QueueBytes, 16<<20)
	or(&l.SnapshotRate, 1<<20)

	t := &c.Timeouts
	or(&t.Append, 10*time.Second)
	or(&t.Backoff, 50*time.Millisecond)
	or(&t.BackoffMax, time.Second)
	or(&t.Dial, 2*time.Second)
	or(&t.Heartbeat, time.Second)
	or(&t.Silence, 2*time.Second)
	or(&t.Snapshot, time.Minute)
	or(&t.SnapshotStall, 30*time.Second)
	or(&t.SnapshotWait, 5*time.Second)
	or(&t.Vote, time.Second)
	or(&t.Write, 5*time.Second)
}

func or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate reports everything wrong with a configuration that has its defaults.
func (c *Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(len(c.NodeID) > 0 && len(c.NodeID) <= maxNodeID, "NodeID must have 1 to %d bytes", maxNodeID)
	check(c.Logger != nil, "Logger must be set")
	check(c.Groups > 0 && c.Groups <= 1<<16, "Groups must be 1 to 65536")
	l := c.Limits
	for _, n := range []int{l.AppendBytes, l.Calls, l.GroupQueue, l.GroupQueueBytes, l.InboundSnapshots,
		l.OutboundSnapshots, l.Peers, l.QueueBytes, l.SnapshotRate} {
		check(n > 0, "a limit is negative")
	}
	check(l.FrameBytes >= minFrameLimit && l.FrameBytes <= maxFrameLimit,
		"Limits.FrameBytes must be %d to %d", minFrameLimit, maxFrameLimit)
	t := c.Timeouts
	for _, d := range []time.Duration{t.Append, t.Backoff, t.BackoffMax, t.Dial, t.Heartbeat, t.Silence,
		t.Snapshot, t.SnapshotStall, t.SnapshotWait, t.Vote, t.Write} {
		check(d >= minTick, "a timeout is shorter than %v", minTick)
	}
	check(t.Gather >= 0 && t.Gather <= t.Heartbeat/10, "Timeouts.Gather must be at most a tenth of Timeouts.Heartbeat")
	return errors.Join(errs...)
}

// tick is the interval in which deadlines are checked.
func (t *Timeouts) tick() time.Duration {
	shortest := min(t.Append, t.Heartbeat, t.Vote, t.Silence/2)
	return max(min(shortest/8, maxTick), minTick)
}
