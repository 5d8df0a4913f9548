package remote

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// This file writes the messages of the Write stream in protobuf wire format by
// hand; wire_decode.go reads them. The schema is pb/dataplane.proto, and tests
// hold both against the generated code. By hand a request is copied once, from
// the caller's memory into the frame, and costs no allocation.

// Field numbers of pb/dataplane.proto.
const (
	frameHello    = 1
	frameWaited   = 2
	frameRequest  = 3
	frameWithdraw = 15

	frameWelcome  = 1
	frameDraining = 2
	frameReply    = 3

	writeID         = 1
	writeTimeout    = 2
	writeTrace      = 6
	writeTraceState = 7

	appendKey            = 1
	appendMessages       = 2
	appendIfVersion      = 3
	appendIdempotencyKey = 4
	appendBodyDigest     = 5

	messageID         = 1
	messageContent    = 2
	messageDigest     = 3
	messageTokenCount = 4

	putKey      = 1
	putMetadata = 2

	tombstoneKey = 1

	replyID = 1

	appendReplySeq        = 1
	appendReplyLastSeq    = 2
	appendReplyVersion    = 3
	appendReplyTokenCount = 4
	appendReplyDuplicate  = 5
	appendReplyMessages   = 6
	appendReplyTook       = 7

	appendedSeq        = 1
	appendedTokenCount = 2
	appendedRevises    = 3
	appendedDuplicate  = 4
)

// opKind says which write a request is: its field number in WriteRequest.op.
type opKind uint8

const (
	opAppend    opKind = 3
	opPut       opKind = 4
	opTombstone opKind = 5
)

// resultKind says which answer a reply is: its field number in WriteReply.result.
type resultKind uint8

const (
	resultAppend    resultKind = 2
	resultPut       resultKind = 3
	resultTombstone resultKind = 4
	resultError     resultKind = 5
)

// result is the answer that a write of this kind gets when it succeeds.
func (k opKind) result() resultKind { return resultKind(k - 1) }

// write is one write of any kind; the field of its kind is set.
type write struct {
	kind   opKind
	append *rpc.AppendRequest
	put    *rpc.PutRequest
	key    rpc.Key // of a tombstone
	caller *caller // nil unless it is sampled
}

// The tags that are patched in place are one byte, since their field numbers
// are below 16.
const (
	tagRequest  byte = frameRequest<<3 | byte(protowire.BytesType)
	tagWithdraw byte = frameWithdraw<<3 | byte(protowire.BytesType)
	tagWaited   byte = frameWaited<<3 | byte(protowire.Fixed32Type)
)

// waitedLen is the length of the waited_us field at the head of a frame.
const waitedLen = 5

// appendWaited appends a waited_us of zero, for setWaited to fill in.
func appendWaited(b []byte) []byte { return append(b, tagWaited, 0, 0, 0, 0) }

// setWaited fills in the waited_us that stands at the head of a frame.
func setWaited(frame []byte, micros uint32) {
	binary.LittleEndian.PutUint32(frame[1:waitedLen], micros)
}

func sizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func sizeBytes(n int) int {
	if n == 0 {
		return 0
	}
	return sizeNested(n)
}

// sizeNested is the size of a field that is written even when it is empty.
func sizeNested(n int) int { return 1 + protowire.SizeBytes(n) }

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, byte(field<<3)|byte(protowire.VarintType)), v)
}

func appendBool(b []byte, field protowire.Number, v bool) []byte {
	return appendVarint(b, field, protowire.EncodeBool(v))
}

// appendHead appends the tag and the length of a field of bytes.
func appendHead(b []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(append(b, byte(field<<3)|byte(protowire.BytesType)), uint64(n))
}

func appendBytes[T ~string | ~[]byte](b []byte, field protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	return append(appendHead(b, field, len(v)), v...)
}

func sizeDigest(d *[32]byte) int {
	if *d == ([32]byte{}) {
		return 0
	}
	return sizeNested(len(d))
}

func appendDigest(b []byte, field protowire.Number, d *[32]byte) []byte {
	if *d == ([32]byte{}) {
		return b
	}
	return append(appendHead(b, field, len(d)), d[:]...)
}

// size is the encoded length of the op, without its tag and length.
func (w *write) size() int {
	switch w.kind {
	case opAppend:
		return sizeAppend(w.append)
	case opPut:
		n := sizeBytes(len(w.put.Key))
		if w.put.Metadata != nil {
			n += sizeNested(len(w.put.Metadata))
		}
		return n
	default:
		return sizeBytes(len(w.key))
	}
}

func sizeAppend(req *rpc.AppendRequest) int {
	n := sizeBytes(len(req.Key)) + sizeBytes(len(req.IdempotencyKey)) + sizeDigest(&req.BodyDigest)
	for i := range req.Messages {
		n += sizeNested(sizeMessage(&req.Messages[i]))
	}
	if req.IfVersion != nil {
		n += 1 + protowire.SizeVarint(*req.IfVersion)
	}
	return n
}

func sizeMessage(m *rpc.NewMessage) int {
	return sizeBytes(len(m.ID)) + sizeBytes(len(m.Content)) + sizeDigest(&m.Digest) + sizeVarint(m.TokenCount)
}

// requestSize is the encoded length of a WriteRequest without its tag and
// length; opSize is w.size().
func requestSize(id, timeoutMicros uint64, w *write, opSize int) int {
	return sizeVarint(id) + sizeVarint(timeoutMicros) + sizeNested(opSize) + w.caller.size()
}

// appendRequest appends a WriteRequest as a field of a RequestFrame. The first
// byte it appends is tagRequest.
func appendRequest(b []byte, id, timeoutMicros uint64, w *write, opSize int) []byte {
	b = append(b, tagRequest)
	b = protowire.AppendVarint(b, uint64(requestSize(id, timeoutMicros, w, opSize)))
	b = appendVarint(b, writeID, id)
	b = appendVarint(b, writeTimeout, timeoutMicros)
	b = w.caller.append(b)
	b = appendHead(b, protowire.Number(w.kind), opSize)
	switch w.kind {
	case opAppend:
		return appendAppend(b, w.append)
	case opPut:
		b = appendBytes(b, putKey, w.put.Key)
		if w.put.Metadata != nil {
			b = append(appendHead(b, putMetadata, len(w.put.Metadata)), w.put.Metadata...)
		}
		return b
	default:
		return appendBytes(b, tombstoneKey, w.key)
	}
}

func appendAppend(b []byte, req *rpc.AppendRequest) []byte {
	b = appendBytes(b, appendKey, req.Key)
	for i := range req.Messages {
		m := &req.Messages[i]
		b = appendHead(b, appendMessages, sizeMessage(m))
		b = appendBytes(b, messageID, m.ID)
		b = appendBytes(b, messageContent, m.Content)
		b = appendDigest(b, messageDigest, &m.Digest)
		b = appendVarint(b, messageTokenCount, m.TokenCount)
	}
	if req.IfVersion != nil {
		b = protowire.AppendVarint(append(b, appendIfVersion<<3|byte(protowire.VarintType)), *req.IfVersion)
	}
	b = appendBytes(b, appendIdempotencyKey, req.IdempotencyKey)
	return appendDigest(b, appendBodyDigest, &req.BodyDigest)
}

func sizeAppendReply(r *rpc.AppendReply) int {
	n := sizeVarint(r.Seq) + sizeVarint(r.LastSeq) + sizeVarint(r.Version) + sizeVarint(r.TokenCount) +
		sizeVarint(protowire.EncodeBool(r.Duplicate)) + sizeVarint(tookMicros(r))
	for i := range r.Messages {
		n += sizeNested(sizeAppended(&r.Messages[i]))
	}
	return n
}

func tookMicros(r *rpc.AppendReply) uint64 { return uint64(max(r.Took.Microseconds(), 0)) }

func sizeAppended(m *rpc.Appended) int {
	return sizeVarint(m.Seq) + sizeVarint(m.TokenCount) + sizeVarint(m.Revises) + sizeVarint(protowire.EncodeBool(m.Duplicate))
}

// appendReplyHead appends the head of a WriteReply whose result is of the kind
// and size given; the result's bytes follow.
func appendReplyHead(b []byte, id uint64, kind resultKind, size int) []byte {
	b = appendHead(b, frameReply, sizeVarint(id)+sizeNested(size))
	b = appendVarint(b, replyID, id)
	return appendHead(b, protowire.Number(kind), size)
}

func appendAppendReply(b []byte, id uint64, r *rpc.AppendReply) []byte {
	b = appendReplyHead(b, id, resultAppend, sizeAppendReply(r))
	b = appendVarint(b, appendReplySeq, r.Seq)
	b = appendVarint(b, appendReplyLastSeq, r.LastSeq)
	b = appendVarint(b, appendReplyVersion, r.Version)
	b = appendVarint(b, appendReplyTokenCount, r.TokenCount)
	b = appendBool(b, appendReplyDuplicate, r.Duplicate)
	b = appendVarint(b, appendReplyTook, tookMicros(r))
	for i := range r.Messages {
		m := &r.Messages[i]
		b = appendHead(b, appendReplyMessages, sizeAppended(m))
		b = appendVarint(b, appendedSeq, m.Seq)
		b = appendVarint(b, appendedTokenCount, m.TokenCount)
		b = appendVarint(b, appendedRevises, m.Revises)
		b = appendBool(b, appendedDuplicate, m.Duplicate)
	}
	return b
}
