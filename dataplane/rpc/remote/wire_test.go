package remote

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// digestGen draws all zero as often as anything else, for it is left out on the
// wire.
var digestGen = rapid.Custom(func(t *rapid.T) (d [32]byte) {
	if rapid.Bool().Draw(t, "set") {
		copy(d[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
	}
	return d
})

var appendGen = rapid.Custom(func(t *rapid.T) *rpc.AppendRequest {
	req := &rpc.AppendRequest{
		Key:            rpc.Key(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")),
		IdempotencyKey: string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "idempotency")),
		BodyDigest:     digestGen.Draw(t, "body"),
	}
	if rapid.Bool().Draw(t, "guarded") {
		v := rapid.Uint64().Draw(t, "version")
		req.IfVersion = &v
	}
	for range rapid.IntRange(1, 4).Draw(t, "messages") {
		req.Messages = append(req.Messages, rpc.NewMessage{
			ID:         string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "id")),
			Content:    rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "content"),
			Digest:     digestGen.Draw(t, "digest"),
			TokenCount: rapid.Uint64().Draw(t, "tokens"),
		})
	}
	return req
})

func toPB(req *rpc.AppendRequest) *pb.AppendRequest {
	p := &pb.AppendRequest{
		Key: []byte(req.Key), IfVersion: req.IfVersion,
		IdempotencyKey: []byte(req.IdempotencyKey), BodyDigest: digestToWire(&req.BodyDigest),
	}
	for i := range req.Messages {
		m := &req.Messages[i]
		p.Messages = append(p.Messages, &pb.NewMessage{
			Id: []byte(m.ID), Content: m.Content, Digest: digestToWire(&m.Digest), TokenCount: m.TokenCount,
		})
	}
	return p
}

// What is written by hand is what the generated code would have read and
// written, and the other way round.
func TestRequestFrameAgreesWithTheSchema(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		req := appendGen.Draw(t, "append")
		id, timeout := rapid.Uint64().Draw(t, "id"), rapid.Uint64().Draw(t, "timeout")
		waited := rapid.Uint32Min(1).Draw(t, "waited")
		put := &rpc.PutRequest{Key: req.Key}
		if rapid.Bool().Draw(t, "metadata") {
			put.Metadata = rapid.SliceOf(rapid.Byte()).Draw(t, "metadata bytes")
		}
		span := callerGen.Draw(t, "caller")
		schema := &pb.RequestFrame{WaitedUs: waited, Requests: []*pb.WriteRequest{
			{Id: id, TimeoutUs: timeout, Op: &pb.WriteRequest_Append{Append: toPB(req)}, Trace: span.trace[:], TraceState: []byte(span.state)},
			{Id: id, Op: &pb.WriteRequest_Put{Put: &pb.PutRequest{Key: []byte(put.Key), Metadata: put.Metadata}}},
			{TimeoutUs: timeout, Op: &pb.WriteRequest_Tombstone{Tombstone: &pb.TombstoneRequest{Key: []byte(req.Key)}}},
		}}

		frame := appendWaited(nil)
		for _, w := range []struct {
			id, timeout uint64
			write
		}{
			{id, timeout, write{kind: opAppend, append: req, caller: span}},
			{id, 0, write{kind: opPut, put: put}},
			{0, timeout, write{kind: opTombstone, key: req.Key}},
		} {
			frame = appendRequest(frame, w.id, w.timeout, &w.write, w.size())
		}
		setWaited(frame, waited)
		var read pb.RequestFrame
		require.NoError(t, proto.Unmarshal(frame, &read))
		require.True(t, proto.Equal(schema, &read), "%v\n%v", schema, &read)

		generated, err := proto.Marshal(schema)
		require.NoError(t, err)
		require.Equal(t, uint64(waited), decodeWaited(generated))
		jobs, bytes, err := decodeJobs(generated)
		require.NoError(t, err)
		require.Len(t, jobs, 3)
		require.Positive(t, bytes)
		require.Equal(t, id, jobs[0].id)
		require.Equal(t, timeout, jobs[0].timeoutMicros)
		require.Equal(t, req, &jobs[0].append)
		require.Equal(t, span, jobs[0].caller)
		require.Nil(t, jobs[1].caller)
		require.Equal(t, put.Metadata == nil, jobs[1].put.Metadata == nil)
		require.Equal(t, string(put.Metadata), string(jobs[1].put.Metadata))
		require.Equal(t, req.Key, jobs[2].key)
		for i := range jobs {
			require.NoError(t, jobs[i].invalid)
		}
	})
}

func TestAppendReplyAgreesWithTheSchema(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Uint64()
		want := &rpc.AppendReply{
			Seq: number.Draw(t, "seq"), LastSeq: number.Draw(t, "last"), Version: number.Draw(t, "version"),
			TokenCount: number.Draw(t, "tokens"), Duplicate: rapid.Bool().Draw(t, "duplicate"), Messages: []rpc.Appended{},
			Took: time.Duration(rapid.Uint64Max(1e9).Draw(t, "took")) * time.Microsecond,
		}
		p := &pb.AppendReply{Seq: want.Seq, LastSeq: want.LastSeq, Version: want.Version, TokenCount: want.TokenCount, Duplicate: want.Duplicate, TookUs: uint64(want.Took.Microseconds())}
		for range rapid.IntRange(0, 4).Draw(t, "messages") {
			m := rpc.Appended{
				Seq: number.Draw(t, "seq"), TokenCount: number.Draw(t, "tokens"),
				Revises: number.Draw(t, "revises"), Duplicate: rapid.Bool().Draw(t, "duplicate"),
			}
			want.Messages = append(want.Messages, m)
			p.Messages = append(p.Messages, &pb.Appended{Seq: m.Seq, TokenCount: m.TokenCount, Revises: m.Revises, Duplicate: m.Duplicate})
		}
		id := number.Draw(t, "id")
		schema := &pb.ReplyFrame{Replies: []*pb.WriteReply{{Id: id, Result: &pb.WriteReply_Append{Append: p}}}}

		frame := appendAppendReply(nil, id, want)
		var read pb.ReplyFrame
		require.NoError(t, proto.Unmarshal(frame, &read))
		require.True(t, proto.Equal(schema, &read), "%v\n%v", schema, &read)
		require.LessOrEqual(t, len(frame), sizeAppendReply(want)+32, "the size given to the outbox is a bound")

		generated, err := proto.Marshal(schema)
		require.NoError(t, err)
		replies, draining, err := decodeReplies(generated, nil)
		require.NoError(t, err)
		require.False(t, draining)
		require.Len(t, replies, 1)
		require.Equal(t, id, replies[0].id)
		require.Equal(t, want, replies[0].append)
	})
}

// A request that was withdrawn in place is no request to anybody.
func TestWithdrawnRequestIsSkipped(t *testing.T) {
	t.Parallel()
	frame := appendWaited(nil)
	var starts []int
	for _, key := range []rpc.Key{"a", "b", "c"} {
		starts = append(starts, len(frame))
		w := &write{kind: opTombstone, key: key}
		frame = appendRequest(frame, 1, 0, w, w.size())
	}
	require.Equal(t, tagRequest, frame[starts[1]])
	frame[starts[1]] = tagWithdraw

	jobs, _, err := decodeJobs(frame)
	require.NoError(t, err)
	require.Len(t, jobs, 2)
	require.Equal(t, rpc.Key("a"), jobs[0].key)
	require.Equal(t, rpc.Key("c"), jobs[1].key)
	var read pb.RequestFrame
	require.NoError(t, proto.Unmarshal(frame, &read))
	require.Len(t, read.GetRequests(), 2)
}

// A later version may add fields anywhere.
func TestUnknownFieldsAreSkipped(t *testing.T) {
	t.Parallel()
	extra := func(b []byte) []byte {
		b = protowire.AppendString(protowire.AppendTag(b, 1000, protowire.BytesType), "later")
		b = protowire.AppendVarint(protowire.AppendTag(b, 1001, protowire.VarintType), 7)
		b = protowire.AppendFixed64(protowire.AppendTag(b, 1002, protowire.Fixed64Type), 7)
		// a known number with another type
		return protowire.AppendFixed32(protowire.AppendTag(b, 2, protowire.Fixed32Type), 7)
	}
	field := func(b []byte, num protowire.Number, msg []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), msg)
	}
	message := extra(field(nil, messageContent, []byte("x")))
	op := extra(field(field(nil, appendKey, []byte("k")), appendMessages, message))
	request := extra(field(protowire.AppendVarint(protowire.AppendTag(nil, writeID, protowire.VarintType), 9), protowire.Number(opAppend), op))
	jobs, _, err := decodeJobs(extra(field(nil, frameRequest, request)))
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	require.NoError(t, jobs[0].invalid)
	require.Equal(t, uint64(9), jobs[0].id)
	require.Equal(t, appendOf("k", "x"), &jobs[0].append)

	unknown := field(nil, frameRequest, field(nil, 14, []byte("another kind of write")))
	jobs, _, err = decodeJobs(unknown)
	require.NoError(t, err)
	require.ErrorIs(t, jobs[0].invalid, ErrInvalidRequest)
}

func TestServerChecksBounds(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return string(make([]byte, n)) }
	valid := func(change func(*rpc.AppendRequest)) write {
		req := appendOf("k", "x")
		change(req)
		return write{kind: opAppend, append: req}
	}
	put := func(key rpc.Key, metadata int) write {
		return write{kind: opPut, put: &rpc.PutRequest{Key: key, Metadata: make([]byte, metadata)}}
	}
	for name, c := range map[string]struct {
		write write
		want  error
	}{
		"append":                   {valid(func(*rpc.AppendRequest) {}), nil},
		"empty key":                {valid(func(r *rpc.AppendRequest) { r.Key = "" }), rpc.ErrInvalidID},
		"longest key":              {valid(func(r *rpc.AppendRequest) { r.Key = rpc.Key(long(rpc.MaxKeyBytes)) }), nil},
		"key too long":             {valid(func(r *rpc.AppendRequest) { r.Key = rpc.Key(long(rpc.MaxKeyBytes + 1)) }), rpc.ErrInvalidID},
		"no messages":              {valid(func(r *rpc.AppendRequest) { r.Messages = nil }), ErrInvalidRequest},
		"most messages":            {valid(func(r *rpc.AppendRequest) { r.Messages = repeat(rpc.MaxAppendMessages, 1) }), nil},
		"too many messages":        {valid(func(r *rpc.AppendRequest) { r.Messages = repeat(rpc.MaxAppendMessages+1, 1) }), ErrInvalidRequest},
		"empty content":            {valid(func(r *rpc.AppendRequest) { r.Messages[0].Content = nil }), ErrInvalidRequest},
		"longest message":          {valid(func(r *rpc.AppendRequest) { r.Messages = repeat(1, rpc.MaxMessageBytes) }), nil},
		"message too long":         {valid(func(r *rpc.AppendRequest) { r.Messages = repeat(1, rpc.MaxMessageBytes+1) }), ErrInvalidRequest},
		"longest append":           {valid(func(r *rpc.AppendRequest) { r.Messages = repeat(8, rpc.MaxMessageBytes) }), nil},
		"append too long":          {valid(func(r *rpc.AppendRequest) { r.Messages = append(repeat(8, rpc.MaxMessageBytes), repeat(1, 1)...) }), ErrInvalidRequest},
		"message id too long":      {valid(func(r *rpc.AppendRequest) { r.Messages[0].ID = long(rpc.MaxMessageIDBytes + 1) }), ErrInvalidRequest},
		"idempotency key too long": {valid(func(r *rpc.AppendRequest) { r.IdempotencyKey = long(rpc.MaxIdempotencyKeyBytes + 1) }), ErrInvalidRequest},
		"put":                      {put("k", rpc.MaxMetadataBytes), nil},
		"put without key":          {put("", 0), rpc.ErrInvalidID},
		"metadata too long":        {put("k", rpc.MaxMetadataBytes+1), ErrInvalidRequest},
		"tombstone":                {write{kind: opTombstone, key: "k"}, nil},
		"tombstone without key":    {write{kind: opTombstone}, rpc.ErrInvalidID},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := c.write
			frame := appendRequest(nil, 1, 0, &w, w.size())
			require.LessOrEqual(t, len(frame), MaxRequestBytes)
			jobs, _, err := decodeJobs(frame)
			require.NoError(t, err, "it is well formed")
			require.ErrorIs(t, jobs[0].invalid, c.want, "at the server")
			require.ErrorIs(t, w.validate(), c.want, "at the client")
		})
	}
}

func repeat(n, size int) []rpc.NewMessage {
	messages := make([]rpc.NewMessage, n)
	for i := range messages {
		messages[i].Content = make([]byte, size)
	}
	return messages
}

func TestDigestsHaveTheirLength(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 31, 33} {
		p := &pb.RequestFrame{Requests: []*pb.WriteRequest{{Op: &pb.WriteRequest_Append{Append: &pb.AppendRequest{
			Key: []byte("k"), BodyDigest: make([]byte, n), Messages: []*pb.NewMessage{{Content: []byte("x")}},
		}}}}}
		frame, err := proto.Marshal(p)
		require.NoError(t, err)
		jobs, _, err := decodeJobs(frame)
		require.NoError(t, err)
		require.ErrorIs(t, jobs[0].invalid, ErrInvalidRequest)
	}
}

func TestFrameHoldsABoundedNumberOfWrites(t *testing.T) {
	t.Parallel()
	var frame []byte
	w := &write{kind: opTombstone, key: "k"}
	for range maxFrameEntries {
		frame = appendRequest(frame, 1, 0, w, w.size())
	}
	_, _, err := decodeJobs(frame)
	require.NoError(t, err)
	_, _, err = decodeJobs(appendRequest(frame, 1, 0, w, w.size()))
	require.ErrorIs(t, err, errMalformed)
}
