package remote

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// errMalformed: bytes from the peer are not what the protocol says. The stream
// they came on ends.
var errMalformed = errors.New("malformed frame")

// A decoder tells fields apart by number and type together, so a known number
// with another type is an unknown field, as in the generated code.
const (
	varint = uint64(protowire.VarintType)
	fixed  = uint64(protowire.Fixed32Type)
	nested = uint64(protowire.BytesType)
)

// fields walks over the fields of one message.
type fields struct {
	rest  []byte
	tag   uint64 // number<<3 | type
	value uint64 // of a varint or fixed field
	bytes []byte // of a field of bytes; aliases the message
	bad   bool   // the message is malformed; next has returned false
}

// next steps to the next field. It returns false at the end, or at the first
// byte that is not protobuf: then bad is set.
func (f *fields) next() bool {
	if len(f.rest) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(f.rest)
	if n < 0 {
		f.bad = true
		return false
	}
	f.rest = f.rest[n:]
	f.tag = uint64(num)<<3 | uint64(typ)
	switch typ {
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(f.rest)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(f.rest)
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(f.rest)
		f.value = uint64(v)
	default:
		n = protowire.ConsumeFieldValue(num, typ, f.rest)
	}
	if n < 0 {
		f.bad = true
		return false
	}
	f.rest = f.rest[n:]
	return true
}

// count returns how many fields of the tag the message has, or an error when it
// is malformed.
func count(msg []byte, tag uint64) (int, error) {
	n := 0
	f := fields{rest: msg}
	for f.next() {
		if f.tag == tag {
			n++
		}
	}
	if f.bad {
		return 0, errMalformed
	}
	return n, nil
}

// decodeWaited reads how long the requests of a frame waited at the client.
// It is looked for only where a client puts it, at the head.
func decodeWaited(frame []byte) (micros uint64) {
	if f := (fields{rest: frame}); f.next() && f.tag == frameWaited<<3|fixed {
		return f.value
	}
	return 0
}

// incoming is one decoded WriteRequest. Its byte slices alias the frame.
type incoming struct {
	id            uint64
	timeoutMicros uint64
	kind          opKind // 0 when the op is one this version does not know
	append        rpc.AppendRequest
	put           rpc.PutRequest
	key           rpc.Key
	caller        *caller // nil unless it is sampled
	// invalid is why the request must be refused, or nil.
	invalid error

	single    [1]rpc.NewMessage // the storage of append.Messages for one message
	ifVersion uint64            // the storage of append.IfVersion
}

// decode reads a WriteRequest. It returns errMalformed, or nil: what breaks only
// the bounds of package rpc is left in invalid.
func (in *incoming) decode(msg []byte) error {
	var op, traceID, traceState []byte
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case writeID<<3 | varint:
			in.id = f.value
		case writeTimeout<<3 | varint:
			in.timeoutMicros = f.value
		case writeTrace<<3 | nested:
			traceID = f.bytes
		case writeTraceState<<3 | nested:
			traceState = f.bytes
		case uint64(opAppend)<<3 | nested, uint64(opPut)<<3 | nested, uint64(opTombstone)<<3 | nested:
			in.kind, op = opKind(f.tag>>3), f.bytes
		}
	}
	if f.bad {
		return errMalformed
	}
	in.caller = decodeCaller(traceID, traceState)
	switch in.kind {
	case opAppend:
		return in.decodeAppend(op)
	case opPut:
		return in.decodePut(op)
	case opTombstone:
		return in.decodeTombstone(op)
	}
	in.invalid = fmt.Errorf("%w: unknown kind of write", ErrInvalidRequest)
	return nil
}

func (in *incoming) decodeAppend(msg []byte) error {
	n, err := count(msg, appendMessages<<3|nested)
	if err != nil {
		return err
	}
	req := &in.append
	switch {
	case n == 1:
		req.Messages = in.single[:0]
	case n > rpc.MaxAppendMessages:
		in.invalid = fmt.Errorf("%w: %d messages", ErrInvalidRequest, n)
		return nil
	default:
		req.Messages = make([]rpc.NewMessage, 0, n)
	}
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case appendKey<<3 | nested:
			req.Key = rpc.Key(f.bytes)
		case appendMessages<<3 | nested:
			req.Messages = append(req.Messages, rpc.NewMessage{})
			if err := in.decodeMessage(&req.Messages[len(req.Messages)-1], f.bytes); err != nil {
				return err
			}
		case appendIfVersion<<3 | varint:
			in.ifVersion = f.value
			req.IfVersion = &in.ifVersion
		case appendIdempotencyKey<<3 | nested:
			req.IdempotencyKey = string(f.bytes)
		case appendBodyDigest<<3 | nested:
			in.digest(&req.BodyDigest, f.bytes)
		}
	}
	if f.bad {
		return errMalformed
	}
	if in.invalid == nil {
		in.invalid = validateAppend(req)
	}
	return nil
}

func (in *incoming) decodeMessage(m *rpc.NewMessage, msg []byte) error {
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case messageID<<3 | nested:
			m.ID = string(f.bytes)
		case messageContent<<3 | nested:
			m.Content = f.bytes[:len(f.bytes):len(f.bytes)]
		case messageDigest<<3 | nested:
			in.digest(&m.Digest, f.bytes)
		case messageTokenCount<<3 | varint:
			m.TokenCount = f.value
		}
	}
	if f.bad {
		return errMalformed
	}
	return nil
}

func (in *incoming) digest(d *[32]byte, b []byte) {
	switch len(b) {
	case 0:
		*d = [32]byte{}
	case len(d):
		copy(d[:], b)
	default:
		in.invalid = fmt.Errorf("%w: a digest of %d bytes", ErrInvalidRequest, len(b))
	}
}

func (in *incoming) decodePut(msg []byte) error {
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case putKey<<3 | nested:
			in.put.Key = rpc.Key(f.bytes)
		case putMetadata<<3 | nested:
			in.put.Metadata = f.bytes[:len(f.bytes):len(f.bytes)]
		}
	}
	if f.bad {
		return errMalformed
	}
	in.invalid = validatePut(&in.put)
	return nil
}

func (in *incoming) decodeTombstone(msg []byte) error {
	f := fields{rest: msg}
	for f.next() {
		if f.tag == tombstoneKey<<3|nested {
			in.key = rpc.Key(f.bytes)
		}
	}
	if f.bad {
		return errMalformed
	}
	in.invalid = validateKey(in.key)
	return nil
}

// reply is one decoded WriteReply. It holds nothing of the frame.
type reply struct {
	id     uint64
	kind   resultKind // 0 when the result is one this version does not know
	append *rpc.AppendReply
	put    *rpc.PutReply
	err    error // of kind resultError
}

// decode reads a WriteReply.
func (r *reply) decode(msg []byte) error {
	var result []byte
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case replyID<<3 | varint:
			r.id = f.value
		case uint64(resultAppend)<<3 | nested, uint64(resultPut)<<3 | nested,
			uint64(resultTombstone)<<3 | nested, uint64(resultError)<<3 | nested:
			r.kind, result = resultKind(f.tag>>3), f.bytes
		}
	}
	if f.bad {
		return errMalformed
	}
	var err error
	switch r.kind {
	case resultAppend:
		r.append, err = decodeAppendReply(result)
	case resultPut:
		r.put, err = decodePutReply(result)
	case resultError:
		var e pb.Error
		if err = proto.Unmarshal(result, &e); err == nil {
			r.err = errorFromWire(&e, rpc.ErrOutcomeUnknown)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: reply %d: %w", errMalformed, r.id, err)
	}
	return nil
}

// singleReply keeps the reply to an append of one message in one allocation.
type singleReply struct {
	rpc.AppendReply
	single [1]rpc.Appended
}

// maxTookMicros bounds what a node can claim: a year.
const maxTookMicros = 365 * 24 * 3600 * 1e6

func decodeAppendReply(msg []byte) (*rpc.AppendReply, error) {
	n, err := count(msg, appendReplyMessages<<3|nested)
	if err != nil {
		return nil, err
	}
	s := new(singleReply)
	r := &s.AppendReply
	switch {
	case n == 1:
		r.Messages = s.single[:0]
	case n > rpc.MaxAppendMessages:
		return nil, errMalformed
	default:
		r.Messages = make([]rpc.Appended, 0, n)
	}
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case appendReplySeq<<3 | varint:
			r.Seq = f.value
		case appendReplyLastSeq<<3 | varint:
			r.LastSeq = f.value
		case appendReplyVersion<<3 | varint:
			r.Version = f.value
		case appendReplyTokenCount<<3 | varint:
			r.TokenCount = f.value
		case appendReplyDuplicate<<3 | varint:
			r.Duplicate = f.value != 0
		case appendReplyTook<<3 | varint:
			r.Took = time.Duration(min(f.value, maxTookMicros)) * time.Microsecond
		case appendReplyMessages<<3 | nested:
			m, err := decodeAppended(f.bytes)
			if err != nil {
				return nil, err
			}
			r.Messages = append(r.Messages, m)
		}
	}
	return r, nil
}

func decodeAppended(msg []byte) (rpc.Appended, error) {
	var m rpc.Appended
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case appendedSeq<<3 | varint:
			m.Seq = f.value
		case appendedTokenCount<<3 | varint:
			m.TokenCount = f.value
		case appendedRevises<<3 | varint:
			m.Revises = f.value
		case appendedDuplicate<<3 | varint:
			m.Duplicate = f.value != 0
		}
	}
	if f.bad {
		return m, errMalformed
	}
	return m, nil
}

func decodePutReply(msg []byte) (*rpc.PutReply, error) {
	var p pb.PutReply
	if err := proto.Unmarshal(msg, &p); err != nil {
		return nil, err
	}
	conv, err := conversationFromWire(p.GetConversation())
	if err != nil {
		return nil, err
	}
	return &rpc.PutReply{Conversation: *conv, Created: p.GetCreated()}, nil
}
