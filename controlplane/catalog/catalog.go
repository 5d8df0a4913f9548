package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
)

const (
	snapshotMagic = "FPCATLG1"
	// snapshotHeader is magic, required version and length of the payload.
	snapshotHeader = len(snapshotMagic) + 1 + 8
	// MaxSnapshotBytes bounds an encoded state.
	MaxSnapshotBytes = 32 << 20
)

// Catalog holds the current state for its readers and is the state machine that
// the members replicate. Apply, Capture and Restore are called by one goroutine
// at a time, the rest by any.
type Catalog struct {
	current atomic.Pointer[moment]
}

// moment is a state for as long as it is the current one.
type moment struct {
	state *State
	// err is why the catalog stopped here, or nil.
	err error
	// over is closed when another moment follows.
	over chan struct{}
}

// New returns an empty catalog.
func New() *Catalog {
	c := &Catalog{}
	c.current.Store(&moment{state: &State{}, over: make(chan struct{})})
	return c
}

// State returns the current state.
func (c *Catalog) State() *State { return c.current.Load().state }

// Watch returns the current state and a channel that is closed once there is
// another.
func (c *Catalog) Watch() (*State, <-chan struct{}) {
	now := c.current.Load()
	return now.state, now.over
}

// Err returns why the catalog stopped applying commands, wrapping ErrCorrupt or
// ErrUnsupported, or nil. A catalog that stopped knows nothing of what was
// committed since and must not be acted upon.
func (c *Catalog) Err() error { return c.current.Load().err }

func (c *Catalog) set(state *State, err error) {
	old := c.current.Swap(&moment{state: state, err: err, over: make(chan struct{})})
	close(old.over)
}

// Apply executes a committed command and returns a Result. Once a command could
// not be understood all later ones are refused too: a member that skipped one
// would differ from the others.
func (c *Catalog) Apply(index uint64, command []byte) any {
	now := c.current.Load()
	if now.err != nil {
		return Result{Err: now.err}
	}
	state, result, err := Apply(now.state, index, command)
	if err != nil {
		c.set(now.state, err)
		return Result{Err: err}
	}
	if state != now.state {
		c.set(state, nil)
	}
	return result
}

// Capture returns a function that writes the state as it is now. A catalog that
// stopped cannot be captured: a snapshot would claim commands it lacks.
func (c *Catalog) Capture() (func(w io.Writer) error, error) {
	now := c.current.Load()
	if now.err != nil {
		return nil, fmt.Errorf("capture catalog: %w", now.err)
	}
	return func(w io.Writer) error { return now.state.write(w) }, nil
}

// Restore replaces the state with a captured one. On an error the catalog is as
// it was.
func (c *Catalog) Restore(r io.Reader) error {
	state, err := read(r)
	if err != nil {
		return fmt.Errorf("restore catalog: %w", err)
	}
	c.set(state, nil)
	return nil
}

// write encodes the state: magic, required version, payload length, payload as
// JSON, and the SHA-256 of all of it.
func (s *State) write(w io.Writer) error {
	payload, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode catalog: %w", err)
	}
	if len(payload) > MaxSnapshotBytes {
		return fmt.Errorf("encode catalog: %d bytes are too many", len(payload))
	}
	data := make([]byte, 0, snapshotHeader+len(payload)+sha256.Size)
	data = append(data, snapshotMagic...)
	data = append(data, s.requires())
	data = binary.BigEndian.AppendUint64(data, uint64(len(payload)))
	data = append(data, payload...)
	sum := sha256.Sum256(data)
	if _, err := w.Write(append(data, sum[:]...)); err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	return nil
}

// read is the inverse of write.
func read(r io.Reader) (*State, error) {
	limit := int64(snapshotHeader + MaxSnapshotBytes + sha256.Size)
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit || len(data) < snapshotHeader+sha256.Size || string(data[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: not a catalog", ErrCorrupt)
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(want[:], sum) {
		return nil, fmt.Errorf("%w: checksum does not match", ErrCorrupt)
	}
	payload := body[snapshotHeader:]
	if binary.BigEndian.Uint64(body[len(snapshotMagic)+1:]) != uint64(len(payload)) {
		return nil, fmt.Errorf("%w: length does not match", ErrCorrupt)
	}
	if requires := body[len(snapshotMagic)]; requires > Version {
		return nil, fmt.Errorf("%w: snapshot of version %d", ErrUnsupported, requires)
	}
	state := &State{}
	if err := json.Unmarshal(payload, state); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := state.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return state, nil
}
