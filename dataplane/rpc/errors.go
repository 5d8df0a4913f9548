package rpc

import (
	"errors"
	"fmt"
)

// Each sentinel is one decision a caller can take. Errors are wrapped with the
// operation; test with errors.Is and errors.As.
var (
	// ErrInvalidID: the conversation id can never be valid. Do not retry.
	ErrInvalidID = errors.New("invalid conversation id")
	// ErrNotFound: the conversation was never created.
	ErrNotFound = errors.New("conversation not found")
	// ErrTombstoned: the conversation is closed for writing.
	ErrTombstoned = errors.New("conversation is tombstoned")
	// ErrIdempotencyConflict: the idempotency key was used with another body.
	ErrIdempotencyConflict = errors.New("idempotency key was used with another body")
	// ErrUnavailable: no leader or no quorum right now; nothing was proposed.
	// Safe to retry.
	ErrUnavailable = errors.New("group has no leader")
	// ErrOverloaded: a bounded queue is full; nothing was proposed.
	ErrOverloaded = errors.New("group is overloaded")
	// ErrOutcomeUnknown: the command was proposed but may or may not commit.
	// Retry only with message ids or an idempotency key.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrStorageFull: the disk of the data node has no room; nothing was
	// proposed. Writes work again by themselves when space returns.
	ErrStorageFull = errors.New("storage is full or read-only")
	// ErrCorrupt: stored bytes failed their checksum and were not served.
	ErrCorrupt = errors.New("stored data is corrupt")
	// ErrEpochFenced: an archive acknowledgement carried an epoch lower than
	// one the group has already seen.
	ErrEpochFenced = errors.New("archiver lease epoch is fenced")
	// ErrArchiveUnavailable: what is wanted is only in the archive, which this
	// node cannot read now. Retry.
	ErrArchiveUnavailable = errors.New("archive is unavailable")
	// ErrClosed: the node or group is shutting down; nothing was proposed.
	ErrClosed = errors.New("data node is shutting down")
	// ErrMinSeqTimeout: the requested sequence was not visible in time.
	ErrMinSeqTimeout = errors.New("requested sequence is not visible yet")
)

// VersionConflictError reports that if_version did not match.
type VersionConflictError struct{ Current uint64 }

func (e *VersionConflictError) Error() string {
	return fmt.Sprintf("version mismatch (current: %d)", e.Current)
}

// CursorExpiredError reports that a read wanted messages below what both the
// hot log and the archive hold. Earliest is the lowest sequence still held.
type CursorExpiredError struct{ Earliest uint64 }

func (e *CursorExpiredError) Error() string {
	return fmt.Sprintf("messages below sequence %d are no longer held", e.Earliest)
}

// NotLeaderError reports that this node does not lead the group. Leader is the
// node id it believes does, or empty. Nothing was proposed; errors.Is matches
// ErrUnavailable.
type NotLeaderError struct {
	Group  Group
	Leader string
}

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return fmt.Sprintf("group %d: not the leader, leader unknown", e.Group)
	}
	return fmt.Sprintf("group %d: not the leader, try node %s", e.Group, e.Leader)
}

// Is makes a NotLeaderError an ErrUnavailable for callers that cannot redirect.
func (e *NotLeaderError) Is(target error) bool { return target == ErrUnavailable }
