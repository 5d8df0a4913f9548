package remote

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// scriptedStream gives a server the frames of a fuzzer.
type scriptedStream struct {
	grpc.ServerStream
	ctx    context.Context
	frames [][]byte
}

func (s *scriptedStream) Context() context.Context     { return s.ctx }
func (s *scriptedStream) SetHeader(metadata.MD) error  { return nil }
func (s *scriptedStream) SendHeader(metadata.MD) error { return nil }
func (s *scriptedStream) SetTrailer(metadata.MD)       {}

func (s *scriptedStream) SendMsg(m any) error {
	f := m.(*outFrame)
	if err := proto.Unmarshal(*f.buf, &pb.ReplyFrame{}); err != nil {
		return fmt.Errorf("the server sent what is no frame: %w", err)
	}
	return nil
}

func (s *scriptedStream) RecvMsg(m any) error {
	if len(s.frames) == 0 {
		return io.EOF
	}
	m.(*inFrame).bytes = s.frames[0]
	s.frames = s.frames[1:]
	return nil
}

// FuzzWriteStream: whatever a peer sends after its hello, nothing panics, the
// node sees only what package rpc allows, and the stream ends with
// INVALID_ARGUMENT or well.
func FuzzWriteStream(f *testing.F) {
	w := &write{kind: opAppend, append: appendOf("k", "content")}
	valid := appendRequest(appendWaited(nil), 1, 1000, w, w.size())
	f.Add(valid, valid)
	f.Add(valid[:len(valid)-1], []byte{})
	f.Add([]byte("\x1a\x02\x22\x00"), []byte("\x1a\x04\x22\x02\x12\x00"))
	f.Add([]byte{}, []byte("\xff"))
	greeting, err := proto.Marshal(hello)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		node := &stubNode{
			append: func(_ context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
				if err := validateAppend(req); err != nil {
					t.Errorf("reached the node: %v", err)
				}
				return &rpc.AppendReply{}, nil
			},
			put: func(_ context.Context, req *rpc.PutRequest) (*rpc.PutReply, error) {
				if err := validatePut(req); err != nil {
					t.Errorf("reached the node: %v", err)
				}
				return &rpc.PutReply{}, nil
			},
			tombstone: func(_ context.Context, key rpc.Key) error { return validateKey(key) },
		}
		server := NewServer(node, ServerOptions{})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream := &scriptedStream{ctx: ctx, frames: [][]byte{greeting, a, b}}
		err := server.Write(&grpc.GenericServerStream[pb.RequestFrame, pb.ReplyFrame]{ServerStream: stream})
		if code := status.Code(err); code != codes.OK && code != codes.InvalidArgument {
			t.Errorf("ended with %v", err)
		}
		if err := server.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

// FuzzReplyFrame: whatever a server sends, nothing panics, and what the
// generated code refuses is refused.
func FuzzReplyFrame(f *testing.F) {
	f.Add(appendAppendReply(nil, 7, &rpc.AppendReply{Seq: 1, Messages: []rpc.Appended{{Seq: 1}}}))
	f.Add([]byte("\x1a\x04\x2a\x02\x0a\x00\x10\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		replies, _, err := decodeReplies(frame, nil)
		if err != nil {
			return
		}
		if len(replies) > maxFrameEntries {
			t.Errorf("%d replies", len(replies))
		}
		for _, r := range replies {
			if r.kind == resultError && r.err == nil || r.kind == resultAppend && r.append == nil || r.kind == resultPut && r.put == nil {
				t.Errorf("reply of kind %d without its result", r.kind)
			}
		}
	})
}

// FuzzPage: a page from the wire is whole or refused.
func FuzzPage(f *testing.F) {
	whole, err := proto.Marshal(pageToWire(&rpc.Page{LastSeq: 2, Messages: []rpc.Message{{Seq: 1, JSON: []byte("{}")}, {Seq: 2, JSON: []byte("x")}}}))
	require.NoError(f, err)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Fuzz(func(t *testing.T, b []byte) {
		var p pb.Page
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		page, err := pageFromWire(&p)
		if err != nil {
			return
		}
		again := pageToWire(page)
		if !proto.Equal(&pb.Page{Seqs: p.Seqs, Versions: p.Versions, Sizes: p.Sizes, Json: p.Json, LastSeq: p.LastSeq, Earliest: p.Earliest}, again) {
			t.Errorf("%v became %v", &p, again)
		}
	})
}
