package group

import (
	"time"

	"github.com/hashicorp/raft"
)

// Log retention. A snapshot only writes metadata, so taking one is cheap; what
// it buys is a shorter log. trailingEntries is how far a follower may fall
// behind and still catch up without a snapshot: derived, not exposed.
const (
	snapshotThreshold = 1024
	trailingEntries   = snapshotThreshold + snapshotThreshold/4
	snapshotInterval  = 10 * time.Second // raft draws between one and two of these
	maxAppendEntries  = 64
)

func (g *Group) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(g.opts.NodeID)
	c.HeartbeatTimeout = g.opts.Timing.Heartbeat
	c.ElectionTimeout = g.opts.Timing.Election
	c.LeaderLeaseTimeout = g.opts.Timing.Heartbeat
	c.CommitTimeout = g.opts.Timing.Commit
	c.MaxAppendEntries = maxAppendEntries
	c.SnapshotInterval = snapshotInterval
	c.SnapshotThreshold = snapshotThreshold
	c.TrailingLogs = trailingEntries
	c.NoSnapshotRestoreOnStart = true
	c.NoLegacyTelemetry = true
	c.ShutdownOnRemove = false
	c.NotifyCh = g.notify
	c.Logger = g.opts.RaftLogger.With("group", g.opts.Group)
	return c
}
