package transport

import "fmt"

// Lane separates traffic that must not wait for each other. Every lane of a
// pair of nodes has connections of its own.
type Lane uint8

const (
	// LaneElection carries heartbeats, votes and leadership transfers: small
	// frames that decide who leads.
	LaneElection Lane = iota
	// LaneAppend carries log entries.
	LaneAppend
	// LaneSnapshot carries one snapshot per connection.
	LaneSnapshot
)

// streamLanes are the lanes with a lasting connection.
const streamLanes = 2

var laneNames = [...]string{LaneElection: "election", LaneAppend: "append", LaneSnapshot: "snapshot"}

// String returns the lane's name for logs and metrics.
func (l Lane) String() string {
	if int(l) < len(laneNames) {
		return laneNames[l]
	}
	return fmt.Sprintf("lane(%d)", uint8(l))
}

// carries reports whether a request may travel on the lane.
func (l Lane) carries(k kind) bool {
	switch l {
	case LaneElection:
		return k == kindAppend || k == kindVote || k == kindPreVote || k == kindTimeoutNow
	case LaneAppend:
		return k == kindAppend
	case LaneSnapshot:
		return k == kindSnapshot
	}
	return false
}

// frameLimit bounds the lane's frames, beside Limits.FrameBytes.
func (l Lane) frameLimit() int {
	switch l {
	case LaneElection:
		return 64 << 10
	case LaneSnapshot:
		return 4 << 20 // a request with the longest fields; data comes in smaller pieces
	}
	return maxFrameLimit
}
