package transport

import (
	"errors"
	"fmt"
)

// Sentinels of this package, each wrapped with the operation and the peer. Raft
// treats all of them alike, as a call that may or may not have had its effect;
// they differ for those who read logs, metrics and tests.
var (
	// ErrClosed: the view or the whole Mux is closed.
	ErrClosed = errors.New("raft transport is closed")
	// ErrUnknownPeer: no address is known for the node.
	ErrUnknownPeer = errors.New("address of the node is not known")
	// ErrUnreachable: no connection to the node could be had in time. Nothing
	// was sent.
	ErrUnreachable = errors.New("node is unreachable")
	// ErrConnectionLost: the connection ended before the answer came.
	ErrConnectionLost = errors.New("connection lost")
	// ErrTimeout: the node did not answer in time.
	ErrTimeout = errors.New("no answer in time")
	// ErrOverloaded: the queue towards the node is full. Nothing was sent.
	ErrOverloaded = errors.New("queue towards the node is full")
	// ErrTooLarge: the message exceeds what a frame may hold. Nothing was sent.
	ErrTooLarge = errors.New("message is too large")
	// ErrUnknownGroup: the node has no open view of the group.
	ErrUnknownGroup = errors.New("node does not serve the group")
	// ErrGroupBusy: the group's queue on the node is full.
	ErrGroupBusy = errors.New("queue of the group is full")
	// ErrGroupClosed: the view on the node was closed before Raft answered.
	ErrGroupClosed = errors.New("group was closed on the node")
	// ErrSnapshotLimit: as many snapshots as allowed are already in transfer,
	// here or on the node.
	ErrSnapshotLimit = errors.New("too many snapshots in transfer")
	// ErrSnapshotSize: the snapshot's data is not as long as declared.
	ErrSnapshotSize = errors.New("snapshot is not as long as declared")
	// ErrProtocol: the node sent bytes that are not this protocol, or not from
	// whom they should be. Its connection is closed.
	ErrProtocol = errors.New("protocol violation")
)

// RemoteError is an error that Raft itself returned on the peer.
type RemoteError struct{ Text string }

// Error returns the peer's text unchanged: hashicorp/raft looks into the text
// of a refused pre-vote.
func (e *RemoteError) Error() string { return e.Text }

// refusal is the first byte of an error reply.
type refusal uint8

const (
	refusedByRaft refusal = iota // text follows
	refusedUnknownGroup
	refusedGroupBusy
	refusedGroupClosed
	refusedSnapshotLimit
)

// maxErrorText bounds the text of an error reply.
const maxErrorText = 1 << 10

func (r refusal) err(text string) error {
	switch r {
	case refusedByRaft:
		return &RemoteError{Text: text}
	case refusedUnknownGroup:
		return ErrUnknownGroup
	case refusedGroupBusy:
		return ErrGroupBusy
	case refusedGroupClosed:
		return ErrGroupClosed
	case refusedSnapshotLimit:
		return ErrSnapshotLimit
	}
	return fmt.Errorf("%w: unknown refusal %d", ErrProtocol, r)
}

// failure is the body of an error reply.
type failure struct {
	reason refusal
	text   string
}
