package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// A restore fills a group that holds nothing with the rows of another one's
// state, as it was streamed. It goes through the log like every write, one run
// of rows to an entry, so that it is as durable and as equal on all replicas as
// any. Rows are stored byte for byte: sequences, hashes, times, ids and
// watermarks are what they were.
//
// What such an entry holds, after its version:
//
//	after    uvarint, rows that the group holds before it
//	numbers  uvarint, number of the conversation created last
//	last     0, or 1 and the uvarints of what the group amounts to afterwards:
//	         conversations, messages, rows, bytes
//	rows     uvarint length; rows as in a snapshot stream
//
// It is a command of its own version that holds no other op: an op finds the
// rows that an earlier one stored only in storage, so the entry must be a batch
// of its own, and replicas may put any others together.

// restoreVersion is the version of a command that restores, the newest that this
// build applies.
const restoreVersion = 2

// opRestore is the only op of such a command.
const opRestore byte = 0x80

// maxRestoreBytes bounds the rows of one command. It is frozen with the version.
const maxRestoreBytes = maxRowBytes + 1<<20

const _ = uint(maxRestoreBytes - rpc.MaxRestoreBytes)

// errRestoring is the outcome of every write to a group that is being restored.
var errRestoring = fmt.Errorf("a restore is under way: %w", rpc.ErrUnavailable)

// restore is a decoded command that restores.
type restore struct {
	after, numbers uint64
	last           bool
	total          meta // when last
	rows           []byte
}

// EncodeRestore appends a command that takes one step of a restore to dst. Its
// one outcome is an *rpc.RestoreReply.
func EncodeRestore(dst []byte, req *rpc.RestoreRequest) ([]byte, error) {
	if len(req.Rows) > maxRestoreBytes {
		return dst, fmt.Errorf("%w: %d bytes of rows", ErrInvalidOp, len(req.Rows))
	}
	dst = append(slices.Grow(dst, len(req.Rows)+64), restoreVersion)
	dst = binary.AppendUvarint(dst, req.After)
	dst = binary.AppendUvarint(dst, req.Numbers)
	if t := req.Total; t == nil {
		dst = append(dst, 0)
	} else {
		dst = append(dst, 1)
		for _, v := range []uint64{t.Conversations, t.Messages, t.Rows, t.Bytes} {
			dst = binary.AppendUvarint(dst, v)
		}
	}
	return appendBytes(dst, req.Rows), nil
}

// restores reports whether an entry's data is a command that restores.
func restores(data []byte) bool { return len(data) > 0 && data[0] == restoreVersion }

func (r *restore) decode(d *decoder) {
	*r = restore{after: d.uvarint(), numbers: d.uvarint()}
	switch d.byte() {
	case 0:
	case 1:
		r.last = true
		r.total = meta{conversations: d.uvarint(), messages: d.uvarint(), rows: d.uvarint(), bytes: d.uvarint()}
	default:
		d.bad = true
	}
	r.rows = d.bounded(0, maxRestoreBytes)
}

// restore adds rows to a group that holds nothing but the rows of the same
// restore. It is the first and only one to write to the batch.
func (a *applier) restore(r *restore) (Outcome, error) {
	refuse := func(why string) (Outcome, error) {
		return Outcome{Reply: &rpc.RestoreReply{Refused: why, State: a.meta.state(a.m.group, a.index)}}, nil
	}
	switch m := &a.meta; {
	case !m.restoring && m.rows > 0 && r.after == 0:
		return refuse("the group holds conversations")
	case m.rows != r.after, !m.restoring && m.rows > 0:
		return refuse("the group holds other rows than those before")
	case m.restoring && m.nextConversation != r.numbers:
		return refuse("another restore is under way")
	}
	next := a.meta
	next.restoring, next.nextConversation = !r.last, r.numbers
	if !countRows(r.rows, &next) {
		return refuse("the rows are malformed")
	}
	if got := (meta{conversations: next.conversations, messages: next.messages, rows: next.rows, bytes: next.bytes}); r.last && got != r.total {
		return refuse("the rows do not add up to what they should")
	}
	for rest := r.rows; len(rest) > 0; {
		row, _ := decodeRow(&rest)
		a.key = append(a.keys.prefix(a.key[:0], row.Space), row.Rest...)
		if err := a.batch.Set(a.key, row.Value, nil); err != nil {
			return Outcome{}, err
		}
	}
	a.meta = next
	return Outcome{Reply: &rpc.RestoreReply{Taken: true, State: a.meta.state(a.m.group, a.index)}}, nil
}

// restored shows that a group has been filled, after its last entry.
func (a *applier) restored() {
	a.m.waiters.all()
	if a.m.opts.OnReset != nil {
		a.m.opts.OnReset()
	}
}

// ended reports whether the outcomes are those of the last step of a restore.
func ended(outcomes []Outcome) bool {
	reply, ok := outcomes[0].Reply.(*rpc.RestoreReply)
	return ok && reply.Taken && !reply.State.Restoring
}

// countRows adds what rows amount to, and reports whether they are well-formed
// and in order.
func countRows(rows []byte, sum *meta) bool {
	var last []byte
	for len(rows) > 0 {
		row, ok := decodeRow(&rows)
		key := row.key()
		if !ok || last != nil && bytes.Compare(last, key) >= 0 || !row.wellFormed() {
			return false
		}
		last = key
		row.count(sum)
	}
	return true
}

// Row is one stored row: its space, the key after the generation, the value.
type Row struct {
	Space       byte
	Rest, Value []byte
}

// IsRecord tells the row by which a conversation is found. A restore stores
// these last, so that a conversation is there with all it holds or not at all.
func (r Row) IsRecord() bool {
	return r.Space == storage.SpaceConversation && r.Rest[0] == kindRecord
}

// Trimmed is how many messages of a conversation are in the archive only, 0 for
// a row that is not its record.
func (r Row) Trimmed() uint64 {
	if !r.IsRecord() {
		return 0
	}
	rec, _, err := decodeRecord(r.Value)
	if err != nil || rec.first == 0 {
		return 0
	}
	return rec.first - 1
}

// AppendTo appends the row as it is in a stream, and in a RestoreRequest.
func (r Row) AppendTo(dst []byte) []byte {
	return append(appendRowHead(dst, r.Space, r.Rest, len(r.Value)), r.Value...)
}

// key orders rows.
func (r Row) key() []byte { return append([]byte{r.Space}, r.Rest...) }

func (r Row) count(sum *meta) {
	sum.rows++
	sum.bytes += rowBytes(len(r.Rest), len(r.Value))
	switch {
	case r.IsRecord():
		sum.conversations++
	case r.Space == storage.SpaceMessage:
		sum.messages++
	}
}

// wellFormed reports whether the value is one that this package writes. A row
// that is not would stop the group when it is used.
func (r Row) wellFormed() bool {
	var err error
	switch r.Space {
	case storage.SpaceConversation:
		if r.IsRecord() {
			_, _, err = decodeRecord(r.Value)
		}
	case storage.SpaceMessage:
		_, err = decodeMessage(r.Value)
	case storage.SpaceMessageID:
		if id := int(r.Rest[8]); len(r.Rest) == 9+id {
			_, _, err = decodeNewest(r.Value)
		} else {
			_, err = decodeRevision(r.Value)
		}
	case storage.SpaceIDBySeq:
		d := decoder{in: r.Value}
		for d.bounded(0, maxIdemKeyBytes); len(d.in) > 0 && !d.bad; {
			d.released()
		}
		return !d.bad
	case storage.SpaceIdempotency:
		_, _, err = decodeAnswer(r.Value)
	}
	return err == nil
}

// decodeRow takes the row that in begins with. Its slices alias in.
func decodeRow(in *[]byte) (Row, bool) {
	d := decoder{in: *in}
	row := Row{Space: d.byte(), Rest: d.bounded(1, maxKeyBytes+maxIDBytes), Value: d.bounded(1, maxRowBytes)}
	if d.bad || !validRest(row.Space, row.Rest) {
		return Row{}, false
	}
	*in = d.in
	return row, true
}

// state is what the meta row says, for callers of other packages.
func (m *meta) state(group uint16, applied uint64) rpc.GroupState {
	return rpc.GroupState{
		Group: rpc.Group(group), Applied: applied, Conversations: m.conversations, Messages: m.messages,
		Rows: m.rows, Bytes: m.bytes, Epoch: m.epoch, Restoring: m.restoring,
	}
}

// GroupState tells what the state amounts to, at the index that is applied.
func (m *Machine) GroupState() rpc.GroupState {
	m.published.Lock()
	defer m.published.Unlock()
	return m.published.meta.state(m.group, m.published.meta.applied)
}
