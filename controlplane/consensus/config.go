package consensus

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// MaxCommandBytes bounds one command.
	MaxCommandBytes = 1 << 20
	// maxIDBytes bounds a member's id.
	maxIDBytes = 64
	// maxPending bounds the proposals that wait at once.
	maxPending = 128
	// enqueueTimeout bounds how long a proposal waits until raft takes it.
	enqueueTimeout = 5 * time.Second

	// heartbeatTimeoutDefault is also the election timeout and the leader's
	// lease. The three are equal because heartbeats wait for the disk here.
	heartbeatTimeoutDefault = time.Second
	// commitTimeout is how late an idle follower may learn what was committed.
	commitTimeout = 250 * time.Millisecond
	// snapshotThresholdDefault is how many entries are written between two
	// snapshots, and how many older ones are kept for members that fall behind.
	snapshotThresholdDefault = 1024
	snapshotInterval         = 30 * time.Second
	maxAppendEntries         = 64
)

// StateMachine is what the members replicate. Raft calls Apply, Capture and
// Restore from one goroutine; readers of the state synchronise on their own.
type StateMachine interface {
	// Apply executes a committed command and returns what Propose answers. It
	// must depend on the state and its arguments only. Indexes ascend, except
	// that a restart of raft may show commands again that the state already
	// holds; they must change nothing.
	Apply(index uint64, command []byte) any
	// Capture returns a function that writes the state as it is now; it may be
	// called while later commands are applied. An error means that the state
	// must not be captured, and keeps the log.
	Capture() (func(w io.Writer) error, error)
	// Restore replaces the state with what a captured one wrote, or leaves it
	// alone and returns an error.
	Restore(r io.Reader) error
}

// Config says how a member runs. The zero value of an optional field stands for
// its default.
type Config struct {
	// ID names this member among Peers. Required, and fixed for the life of
	// the data directory.
	ID string
	// Dir is the member's data directory; it is made when missing. Required.
	Dir string
	// Peers maps the id of every member, this one included, to its address.
	// Ids are fixed once the member first ran, addresses may change. Empty
	// stands for this member alone.
	Peers map[string]string
	// Stream carries Raft between members: required with more than one peer,
	// and absent with one. A successful Open takes it over, Close closes it.
	Stream Stream
	// Machine is the replicated state. Required.
	Machine StateMachine
	// Logger receives what is worth knowing. Required.
	Logger *slog.Logger
	// HeartbeatTimeout is how long a follower hears nothing before it stands
	// for election. Defaults to 1s.
	HeartbeatTimeout time.Duration
	// SnapshotThreshold is how many entries are written between snapshots.
	// Defaults to 1024.
	SnapshotThreshold uint64

	// wrapBackend lets tests stand between the store and bbolt.
	wrapBackend func(backend) backend
}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var problems []error
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(format, args...))
	}
	if c.ID == "" {
		complain("id is empty")
	} else if !validID(c.ID) {
		complain("id %q is not 1 to %d bytes without spaces, '/', ',' and '='", c.ID, maxIDBytes)
	}
	if c.Dir == "" {
		complain("data directory is empty")
	}
	if c.Machine == nil {
		complain("state machine is missing")
	}
	if c.Logger == nil {
		complain("logger is missing")
	}
	if _, own := c.Peers[c.ID]; len(c.Peers) > 0 && !own {
		complain("peers do not name this member %q", c.ID)
	}
	if n := len(c.Peers); n > 1 && n != 3 && n != 5 {
		complain("peers are %d members, want 1, 3 or 5", n)
	}
	addresses := make(map[string]string)
	for _, id := range sortedKeys(c.Peers) {
		address := c.Peers[id]
		if !validID(id) {
			complain("peer id %q is not 1 to %d bytes without spaces, '/', ',' and '='", id, maxIDBytes)
		}
		if other, used := addresses[address]; used {
			complain("peers %s and %s have the same address %q", other, id, address)
		}
		addresses[address] = id
		if address == "" && len(c.Peers) > 1 {
			complain("peer %s has no address", id)
		}
	}
	if (len(c.Peers) > 1) != (c.Stream != nil) {
		complain("a stream is needed with several peers and only then")
	}
	if c.HeartbeatTimeout < 0 {
		complain("heartbeat timeout is negative")
	}
	return errors.Join(problems...)
}

// validID accepts ids that can stand in a list of peers and in a log line.
func validID(id string) bool {
	if id == "" || len(id) > maxIDBytes || !utf8.ValidString(id) {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("/,=", r) })
}

// withDefaults returns a copy with the optional fields filled in.
func (c Config) withDefaults() Config {
	if len(c.Peers) == 0 {
		c.Peers = map[string]string{c.ID: ""}
	}
	if c.HeartbeatTimeout == 0 {
		c.HeartbeatTimeout = heartbeatTimeoutDefault
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = snapshotThresholdDefault
	}
	return c
}
