package transport

import (
	"sync/atomic"
	"time"
)

// Observer is told what happens, as it happens. Its functions may be nil; they
// are called from the hot path, concurrently, and must not block.
type Observer struct {
	// Flush is called after each write to a peer, with the frames and bytes that
	// went together.
	Flush func(peer string, lane Lane, frames, bytes int)
	// RoundTrip is called when a call to a peer ends. The operation is "append",
	// "vote", "pre-vote", "timeout-now" or "snapshot"; append on the election
	// lane is a heartbeat.
	RoundTrip func(peer string, lane Lane, operation string, took time.Duration, err error)
}

// LaneStats counts what one lane has carried since the Mux was made.
type LaneStats struct {
	BytesIn, BytesOut uint64
	FramesOut         uint64
	Flushes           uint64 // writes; FramesOut/Flushes is how well frames coalesce
	Reads             uint64
}

// Stats counts what a Mux has done since it was made, and what it is doing.
type Stats struct {
	Election, Append, Snapshot LaneStats

	Connections    int    // of the lasting lanes
	Dials          uint64 // attempts to connect
	DialFailures   uint64
	DroppedReplies uint64 // answers a peer did not read
	Refused        uint64 // requests of peers that were not given to Raft
	Timeouts       uint64 // calls to peers that ended without an answer

	InboundSnapshots, OutboundSnapshots int // in transfer now
}

type laneCounters struct {
	bytesIn, bytesOut, framesOut, flushes, reads atomic.Uint64
}

func (c *laneCounters) load() LaneStats {
	return LaneStats{
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		FramesOut: c.framesOut.Load(), Flushes: c.flushes.Load(), Reads: c.reads.Load(),
	}
}

type counters struct {
	lanes                                                  [streamLanes + 1]laneCounters
	dials, dialFailures, droppedReplies, refused, timeouts atomic.Uint64
}

// Stats returns the counters. They are read one by one, not at one instant.
func (m *Mux) Stats() Stats {
	s := &m.stats
	m.mu.Lock()
	connections := len(m.conns)
	m.mu.Unlock()
	return Stats{
		Election:          s.lanes[LaneElection].load(),
		Append:            s.lanes[LaneAppend].load(),
		Snapshot:          s.lanes[LaneSnapshot].load(),
		Connections:       connections,
		Dials:             s.dials.Load(),
		DialFailures:      s.dialFailures.Load(),
		DroppedReplies:    s.droppedReplies.Load(),
		Refused:           s.refused.Load(),
		Timeouts:          s.timeouts.Load(),
		InboundSnapshots:  len(m.inbound),
		OutboundSnapshots: len(m.outbound),
	}
}
