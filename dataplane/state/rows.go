package state

import (
	"encoding/binary"
	"fmt"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// remembered is what a conversation keeps of one message with an id: enough to
// answer a retry as the first time. The row of an id holds its newest message
// and the digest of its content; older contents have rows of their own, whose
// keys end in the digest.
type remembered struct {
	seq, version, tokens, revises uint64
}

func (r *remembered) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, r.seq)
	dst = binary.AppendUvarint(dst, r.version)
	dst = binary.AppendUvarint(dst, r.tokens)
	return binary.AppendUvarint(dst, r.revises)
}

func (d *decoder) remembered() remembered {
	return remembered{seq: d.uvarint(), version: d.uvarint(), tokens: d.uvarint(), revises: d.uvarint()}
}

// decodeNewest reads the row of an id.
func decodeNewest(row []byte) (r remembered, digest *[32]byte, err error) {
	d := decoder{in: row}
	r = d.remembered()
	digest = d.digest()
	if !d.done() {
		return r, digest, fmt.Errorf("message id row: %w", rpc.ErrCorrupt)
	}
	return r, digest, nil
}

// decodeRevision reads the row of an older content of an id.
func decodeRevision(row []byte) (remembered, error) {
	d := decoder{in: row}
	r := d.remembered()
	if !d.done() {
		return r, fmt.Errorf("revision row: %w", rpc.ErrCorrupt)
	}
	return r, nil
}

// An idempotency row is the digest of the request body and the first answer.

func appendAnswer(dst []byte, digest *[32]byte, reply *rpc.AppendReply) []byte {
	dst = append(dst, digest[:]...)
	dst = binary.AppendUvarint(dst, reply.Version)
	dst = binary.AppendUvarint(dst, reply.TokenCount)
	dst = binary.AppendUvarint(dst, uint64(len(reply.Messages)))
	for i := range reply.Messages {
		m := &reply.Messages[i]
		var duplicate byte
		if m.Duplicate {
			duplicate = 1
		}
		dst = binary.AppendUvarint(append(dst, duplicate), m.Seq)
		dst = binary.AppendUvarint(dst, m.TokenCount)
		dst = binary.AppendUvarint(dst, m.Revises)
	}
	return dst
}

func decodeAnswer(row []byte) (digest *[32]byte, reply *rpc.AppendReply, err error) {
	d := decoder{in: row}
	digest = d.digest()
	reply = &rpc.AppendReply{Version: d.uvarint(), TokenCount: d.uvarint()}
	n := d.count(1, maxAppendMessages)
	reply.Messages = make([]rpc.Appended, n)
	for i := range reply.Messages {
		duplicate := d.byte()
		d.bad = d.bad || duplicate > 1
		reply.Messages[i] = rpc.Appended{
			Duplicate: duplicate == 1, Seq: d.uvarint(), TokenCount: d.uvarint(), Revises: d.uvarint(),
		}
	}
	if !d.done() {
		return nil, nil, fmt.Errorf("idempotency row: %w", rpc.ErrCorrupt)
	}
	reply.Seq, reply.LastSeq = reply.Messages[0].Seq, reply.Messages[n-1].Seq
	return digest, reply, nil
}

// A release row lists what is forgotten with one append: its idempotency key,
// if any, and then the id, digest and distance from the append's last sequence
// of each message that has an id.

func appendRelease(dst []byte, distance uint64, id []byte, digest *[32]byte) []byte {
	dst = binary.AppendUvarint(dst, distance)
	dst = appendBytes(dst, id)
	return append(dst, digest[:]...)
}

type released struct {
	distance uint64
	id       []byte
	digest   *[32]byte
}

func (d *decoder) released() released {
	return released{distance: d.uvarint(), id: d.bounded(1, maxIDBytes), digest: d.digest()}
}
