package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// commandVersion is the version of ordinary commands. The only newer one that
// this build writes and applies is restoreVersion.
//
// A leader must not propose a version before every replica of its group applies
// it. A replica that meets a newer one stops before that entry (see Apply):
// skipping what others apply would let replicas diverge.
const commandVersion = 1

// Kinds of ops. Within a command version the list is closed.
const (
	opInvalid   byte = iota // stands for an op that EncodeCommand refused
	opAppend                // rpc.AppendRequest
	opPut                   // rpc.PutRequest
	opTombstone             // a key
	opArchive               // ArchiveAck
	opKinds
)

const (
	appendIfVersion   byte = 1 << 0
	appendIdempotency byte = 1 << 1
)

// ErrInvalidOp is the outcome of an op that broke a bound of the command
// grammar. It changes nothing; other ops of its entry are not affected.
var ErrInvalidOp = errors.New("operation exceeds the bounds of the command format")

// ArchiveAck tells the group how far its conversations are archived.
type ArchiveAck struct {
	// Epoch is that of the archiver's lease. A lower one than the group has
	// seen is refused with rpc.ErrEpochFenced.
	Epoch uint64
	// Keep is how many of the newest messages at or below each watermark stay
	// in the hot log.
	Keep uint64
	// Watermarks may be empty, to fence older epochs only.
	Watermarks []Watermark
}

// Watermark says that everything up to Seq is archived.
type Watermark struct {
	Key rpc.Key
	Seq uint64
}

// Op is one operation of a command. It refers to the request it was made from,
// which must not change until the op is encoded.
type Op struct {
	kind   byte
	append *rpc.AppendRequest
	put    *rpc.PutRequest
	key    rpc.Key
	ack    *ArchiveAck
}

// AppendOp appends messages; its outcome is an *rpc.AppendReply.
func AppendOp(req *rpc.AppendRequest) Op { return Op{kind: opAppend, append: req} }

// PutOp creates or updates a conversation; its outcome is an *rpc.PutReply.
func PutOp(req *rpc.PutRequest) Op { return Op{kind: opPut, put: req} }

// TombstoneOp closes a conversation for writing; its outcome has no reply.
func TombstoneOp(key rpc.Key) Op { return Op{kind: opTombstone, key: key} }

// ArchiveAckOp raises watermarks and trims; its outcome has no reply.
func ArchiveAckOp(ack *ArchiveAck) Op { return Op{kind: opArchive, ack: ack} }

// Validate reports whether the op fits the command format; the error matches
// ErrInvalidOp. EncodeCommand encodes an op that does not as one that does
// nothing and has ErrInvalidOp as its outcome.
func (o Op) Validate() error {
	problem := ""
	switch o.kind {
	case opAppend:
		problem = appendProblem(o.append)
	case opPut:
		switch {
		case !validKey(o.put.Key):
			problem = "key length"
		case o.put.Metadata != nil && (len(o.put.Metadata) == 0 || len(o.put.Metadata) > maxMetadataBytes):
			problem = "metadata length"
		}
	case opTombstone:
		if !validKey(o.key) {
			problem = "key length"
		}
	case opArchive:
		if len(o.ack.Watermarks) > maxWatermarks {
			problem = "number of watermarks"
		}
		for i := range o.ack.Watermarks {
			if !validKey(o.ack.Watermarks[i].Key) {
				problem = "key length"
			}
		}
	default:
		problem = "kind"
	}
	if problem != "" {
		return fmt.Errorf("%w: %s", ErrInvalidOp, problem)
	}
	return nil
}

func validKey(key rpc.Key) bool { return len(key) > 0 && len(key) <= maxKeyBytes }

func appendProblem(req *rpc.AppendRequest) string {
	switch {
	case !validKey(req.Key):
		return "key length"
	case len(req.Messages) == 0 || len(req.Messages) > maxAppendMessages:
		return "number of messages"
	case len(req.IdempotencyKey) > maxIdemKeyBytes:
		return "idempotency key length"
	}
	for i := range req.Messages {
		m := &req.Messages[i]
		switch {
		case len(m.ID) > maxIDBytes:
			return "message id length"
		case len(m.Content) == 0 || len(m.Content) > maxContentBytes:
			return "content length"
		}
	}
	return ""
}

// Size returns an upper bound of the bytes the op takes in a command.
func (o Op) Size() int {
	const perString, perNumber = 3, binary.MaxVarintLen64
	switch o.kind {
	case opAppend:
		n := 2 + perString + len(o.append.Key) + perNumber + perString + len(o.append.IdempotencyKey) + 32 + perString
		for i := range o.append.Messages {
			n += 2 + len(o.append.Messages[i].ID) + 32 + perNumber + 4 + len(o.append.Messages[i].Content)
		}
		return n
	case opPut:
		return 2 + perString + len(o.put.Key) + perString + len(o.put.Metadata)
	case opTombstone:
		return 1 + perString + len(o.key)
	case opArchive:
		n := 1 + 2*perNumber + perString
		for i := range o.ack.Watermarks {
			n += perString + len(o.ack.Watermarks[i].Key) + perNumber
		}
		return n
	}
	return 1
}

// EncodeCommand appends one command to dst: the ops in order, and the leader's
// time, which stamps everything they create. It never fails; see Validate for
// what becomes of an op that does not fit. At most 65,536 ops fit.
func EncodeCommand(dst []byte, at time.Time, ops ...Op) []byte {
	size := 1 + 2*binary.MaxVarintLen64
	for i := range ops {
		size += ops[i].Size()
	}
	dst = append(slices.Grow(dst, size), commandVersion)
	dst = binary.AppendUvarint(dst, uint64(min(max(at.UnixMicro(), 0), maxStamp)))
	dst = binary.AppendUvarint(dst, uint64(len(ops)))
	for i := range ops {
		dst = ops[i].encode(dst)
	}
	return dst
}

func (o *Op) encode(dst []byte) []byte {
	if o.Validate() != nil {
		return append(dst, opInvalid)
	}
	dst = append(dst, o.kind)
	switch o.kind {
	case opAppend:
		return encodeAppend(dst, o.append)
	case opPut:
		dst = appendString(dst, string(o.put.Key))
		return appendBytes(dst, o.put.Metadata) // empty stands for nil
	case opTombstone:
		return appendString(dst, string(o.key))
	}
	dst = binary.AppendUvarint(dst, o.ack.Epoch)
	dst = binary.AppendUvarint(dst, o.ack.Keep)
	dst = binary.AppendUvarint(dst, uint64(len(o.ack.Watermarks)))
	for i := range o.ack.Watermarks {
		dst = appendString(dst, string(o.ack.Watermarks[i].Key))
		dst = binary.AppendUvarint(dst, o.ack.Watermarks[i].Seq)
	}
	return dst
}

func encodeAppend(dst []byte, req *rpc.AppendRequest) []byte {
	dst = appendString(dst, string(req.Key))
	var flags byte
	if req.IfVersion != nil {
		flags |= appendIfVersion
	}
	if req.IdempotencyKey != "" {
		flags |= appendIdempotency
	}
	dst = append(dst, flags)
	if req.IfVersion != nil {
		dst = binary.AppendUvarint(dst, *req.IfVersion)
	}
	if req.IdempotencyKey != "" {
		dst = append(appendString(dst, req.IdempotencyKey), req.BodyDigest[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(req.Messages)))
	for i := range req.Messages {
		m := &req.Messages[i]
		dst = appendString(dst, m.ID)
		if m.ID != "" {
			dst = append(dst, m.Digest[:]...)
		}
		dst = binary.AppendUvarint(dst, m.TokenCount)
		dst = appendBytes(dst, m.Content)
	}
	return dst
}
