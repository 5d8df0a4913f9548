package rpc

import (
	"context"
	"io"
)

// MaxRestoreBytes bounds the rows of one RestoreRequest. No row is longer.
const MaxRestoreBytes = 8 << 20

// GroupState is what the state of a group amounts to, at one applied index.
type GroupState struct {
	Group         Group
	Applied       uint64 // index of the newest entry in it
	Conversations uint64
	Messages      uint64 // in the hot log
	Rows, Bytes   uint64 // as a backup streams them
	Epoch         uint64 // highest archiver lease epoch seen
	// Restoring: a restore has begun and not ended. The group refuses other
	// writes until then.
	Restoring bool
}

// RestoreRequest is one step of restoring a group: some rows of a backup, which
// package state makes and understands. Steps follow each other by the number of
// rows that the group holds, so that one that is repeated happens once.
type RestoreRequest struct {
	Group Group
	// After is how many rows the group holds before the step; 0 for the first,
	// which a group takes only while it holds nothing.
	After uint64
	// Numbers is how many conversations the group had ever created; the same in
	// all steps.
	Numbers uint64
	// Rows are whole rows, at most MaxRestoreBytes.
	Rows []byte
	// Total, in the last step only, is what the group must amount to after it:
	// Conversations, Messages, Rows and Bytes.
	Total *GroupState
}

// RestoreReply answers a step.
type RestoreReply struct {
	// Taken: the rows are part of the group, committed at a quorum.
	Taken bool
	// Refused says why they are not. Nothing was changed.
	Refused string
	// State is the group's after the step, or as it is.
	State GroupState
}

// Backup reads and fills whole groups, for operators. Methods are those of the
// group's leader; others return a NotLeaderError.
type Backup interface {
	// GroupState tells what the group holds.
	GroupState(ctx context.Context, group Group) (*GroupState, error)
	// Export writes the group's state at one applied index to w, as the stream
	// that package state describes: it carries checksums, a hash of the whole,
	// and says what it is of. It ends when ctx does, when w fails, and when the
	// node stops; a stream without its end is no backup.
	Export(ctx context.Context, group Group, w io.Writer) error
	// Restore takes one step. After ErrOutcomeUnknown, and any failure on the
	// way, repeating the step is safe: it is refused if it happened, and State
	// tells.
	Restore(ctx context.Context, req *RestoreRequest) (*RestoreReply, error)
}
