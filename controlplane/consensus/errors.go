package consensus

import (
	"errors"
	"fmt"
)

// Each sentinel is one decision a caller can take; test with errors.Is.
var (
	// ErrNotLeader: this member does not lead; nothing was proposed. The
	// error is a *NotLeaderError that says who does, when known.
	ErrNotLeader = errors.New("not the control leader")
	// ErrOutcomeUnknown: the command was handed to Raft but may or may not
	// commit. Propose it again only if applying it twice is harmless.
	ErrOutcomeUnknown = errors.New("outcome of the proposal is unknown")
	// ErrOverloaded: too many proposals wait, or Raft did not take this one in
	// time; nothing was proposed.
	ErrOverloaded = errors.New("control log is overloaded")
	// ErrTooLarge: the command exceeds MaxCommandBytes; nothing was proposed.
	ErrTooLarge = errors.New("control command is too large")
	// ErrClosed: the member is shut or shutting down.
	ErrClosed = errors.New("control member is closed")

	// ErrLocked: another process uses the data directory.
	ErrLocked = errors.New("control data directory is in use by another process")
	// ErrCorrupt: stored bytes failed a check. Nothing of them was used.
	ErrCorrupt = errors.New("control data is corrupt")
	// ErrWrongDirectory: the data directory belongs to another member, to
	// another set of members or to another format.
	ErrWrongDirectory = errors.New("data directory does not belong to this control member")
	// ErrStorage: the store cannot write. Errors about space pass by
	// themselves; others last until the process is restarted.
	ErrStorage = errors.New("control store cannot write")
)

// NotLeaderError reports that this member does not lead. ID and Address are
// those of the member it believes does, or empty.
type NotLeaderError struct {
	ID      string
	Address string
}

func (e *NotLeaderError) Error() string {
	if e.ID == "" {
		return ErrNotLeader.Error() + ", leader unknown"
	}
	return fmt.Sprintf("%v, try %s at %s", ErrNotLeader, e.ID, e.Address)
}

// Is makes a NotLeaderError an ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }
