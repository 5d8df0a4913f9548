package state

import (
	"errors"
	"fmt"
)

var (
	// ErrBadCommand is the outcome of an entry that is not a command. It
	// changes nothing, on every replica.
	ErrBadCommand = errors.New("entry is not a valid command")
	// ErrNewerCommand stops a replica whose build is too old for an entry of
	// its group. The entry is not applied; a newer build continues with it.
	ErrNewerCommand = errors.New("command version is newer than this build")
)

// command is a decoded command. Its slices alias the entry; the arrays behind
// ops, messages and watermarks are reused by the next decode.
type command struct {
	at         int64 // Unix microseconds
	ops        []operation
	messages   []message
	watermarks []watermark
	restore    restore // for opRestore
}

type operation struct {
	kind         byte
	hasIfVersion bool
	setMetadata  bool
	key          []byte
	metadata     []byte
	ifVersion    uint64
	idemKey      []byte
	idemDigest   *[32]byte
	epoch, keep  uint64
	from, to     int // its part of messages or watermarks
}

type message struct {
	id      []byte
	digest  *[32]byte // only with an id
	tokens  uint64
	content []byte
}

type watermark struct {
	key []byte
	seq uint64
}

// decode reads a command. The error matches ErrNewerCommand or ErrBadCommand.
func (c *command) decode(data []byte) error {
	c.ops, c.messages, c.watermarks = c.ops[:0], c.messages[:0], c.watermarks[:0]
	d := decoder{in: data}
	switch version := d.byte(); {
	case version > restoreVersion:
		return fmt.Errorf("%w: version %d", ErrNewerCommand, version)
	case version == restoreVersion:
		c.restore.decode(&d)
		c.ops = append(c.ops, operation{kind: opRestore})
		if !d.done() {
			return ErrBadCommand
		}
		return nil
	case version != commandVersion:
		return ErrBadCommand
	}
	at := d.uvarint()
	if at > maxStamp {
		return ErrBadCommand
	}
	c.at = int64(at)
	for n := d.count(1, maxCommandOps); n > 0 && !d.bad; n-- {
		c.operation(&d)
	}
	if !d.done() {
		return ErrBadCommand
	}
	return nil
}

func (c *command) operation(d *decoder) {
	op := operation{kind: d.byte()}
	if op.kind >= opKinds {
		d.bad = true
		return
	}
	switch op.kind {
	case opAppend:
		op.key = d.bounded(1, maxKeyBytes)
		c.appendBody(d, &op)
	case opPut:
		op.key = d.bounded(1, maxKeyBytes)
		op.metadata = d.bounded(0, maxMetadataBytes)
		op.setMetadata = len(op.metadata) > 0
	case opTombstone:
		op.key = d.bounded(1, maxKeyBytes)
	case opArchive:
		op.epoch, op.keep = d.uvarint(), d.uvarint()
		op.from = len(c.watermarks)
		for n := d.count(0, maxWatermarks); n > 0 && !d.bad; n-- {
			c.watermarks = append(c.watermarks, watermark{key: d.bounded(1, maxKeyBytes), seq: d.uvarint()})
		}
		op.to = len(c.watermarks)
	}
	c.ops = append(c.ops, op)
}

func (c *command) appendBody(d *decoder, op *operation) {
	flags := d.byte()
	if flags > appendIfVersion|appendIdempotency {
		d.bad = true
		return
	}
	if flags&appendIfVersion != 0 {
		op.hasIfVersion, op.ifVersion = true, d.uvarint()
	}
	if flags&appendIdempotency != 0 {
		op.idemKey, op.idemDigest = d.bounded(1, maxIdemKeyBytes), d.digest()
	}
	op.from = len(c.messages)
	for n := d.count(1, maxAppendMessages); n > 0 && !d.bad; n-- {
		m := message{id: d.bounded(0, maxIDBytes)}
		if len(m.id) > 0 {
			m.digest = d.digest()
		}
		m.tokens, m.content = d.uvarint(), d.bounded(1, maxContentBytes)
		c.messages = append(c.messages, m)
	}
	op.to = len(c.messages)
}

// forget lets go of the entry, and of the arrays when a large one grew them.
func (c *command) forget() {
	if cap(c.ops) > maxSpare || cap(c.messages) > 4*maxSpare || cap(c.watermarks) > 4*maxSpare {
		*c = command{}
		return
	}
	c.restore = restore{}
	clear(c.ops[:cap(c.ops)])
	clear(c.messages[:cap(c.messages)])
	clear(c.watermarks[:cap(c.watermarks)])
}
