package remote

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// rawStream is a Write stream on which a test says what it likes.
type rawStream struct {
	t *testing.T
	grpc.ClientStream
}

func openRaw(t *testing.T, address string) *rawStream {
	t.Helper()
	stream, err := connect(t, address).NewStream(within10s(t), &pb.DataPlane_ServiceDesc.Streams[0],
		pb.DataPlane_Write_FullMethodName, grpc.CallContentSubtype(codecName))
	require.NoError(t, err)
	return &rawStream{t: t, ClientStream: stream}
}

func (r *rawStream) send(frame []byte) {
	r.t.Helper()
	// A server that has heard enough makes this fail.
	_ = r.SendMsg(&outFrame{buf: &frame})
}

func (r *rawStream) sendPB(p *pb.RequestFrame) {
	r.t.Helper()
	frame, err := proto.Marshal(p)
	require.NoError(r.t, err)
	r.send(frame)
}

func (r *rawStream) receive() (*pb.ReplyFrame, error) {
	r.t.Helper()
	in := inFrame{keep: true}
	if err := r.RecvMsg(&in); err != nil {
		return nil, err
	}
	var p pb.ReplyFrame
	require.NoError(r.t, proto.Unmarshal(in.bytes, &p))
	return &p, nil
}

var hello = &pb.RequestFrame{Hello: &pb.Hello{MinVersion: 1, MaxVersion: 9}}

func (r *rawStream) handshake() *rawStream {
	r.t.Helper()
	r.sendPB(hello)
	p, err := r.receive()
	require.NoError(r.t, err)
	require.EqualValues(r.t, maxVersion, p.GetWelcome().GetVersion())
	return r
}

func tombstoneOf(id uint64, key string) *pb.WriteRequest {
	return &pb.WriteRequest{Id: id, Op: &pb.WriteRequest_Tombstone{Tombstone: &pb.TombstoneRequest{Key: []byte(key)}}}
}

// What is no protocol ends the stream with a clear status, and nothing of it
// reaches the node.
func TestServerRefusesGarbage(t *testing.T) {
	t.Parallel()
	server := serve(t, "", &stubNode{tombstone: func(context.Context, rpc.Key) error {
		t.Error("the node was called")
		return nil
	}}, ServerOptions{})
	tooMany := &pb.RequestFrame{}
	for range maxFrameEntries + 1 {
		tooMany.Requests = append(tooMany.Requests, tombstoneOf(1, "k"))
	}
	half, err := proto.Marshal(&pb.RequestFrame{Requests: []*pb.WriteRequest{tombstoneOf(1, "k"), tombstoneOf(2, "k")}})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		want codes.Code
		say  func(*rawStream)
	}{
		"garbage at first": {codes.InvalidArgument, func(r *rawStream) { r.send([]byte("\xff\xff\xff")) }},
		"nothing at first": {codes.InvalidArgument, func(r *rawStream) { r.send(nil) }},
		"write at first":   {codes.InvalidArgument, func(r *rawStream) { r.sendPB(&pb.RequestFrame{Requests: []*pb.WriteRequest{tombstoneOf(1, "k")}}) }},
		"write in hello": {codes.InvalidArgument, func(r *rawStream) {
			r.sendPB(&pb.RequestFrame{Hello: hello.Hello, Requests: []*pb.WriteRequest{tombstoneOf(1, "k")}})
		}},
		"version too new":   {codes.FailedPrecondition, func(r *rawStream) { r.sendPB(&pb.RequestFrame{Hello: &pb.Hello{MinVersion: 2, MaxVersion: 3}}) }},
		"no version":        {codes.FailedPrecondition, func(r *rawStream) { r.sendPB(&pb.RequestFrame{Hello: &pb.Hello{}}) }},
		"garbage later":     {codes.InvalidArgument, func(r *rawStream) { r.handshake().send([]byte("\x1a\xff")) }},
		"half a frame":      {codes.InvalidArgument, func(r *rawStream) { r.handshake().send(half[:len(half)-1]) }},
		"garbage inside":    {codes.InvalidArgument, func(r *rawStream) { r.handshake().send([]byte("\x1a\x03\x1a\x01\xff")) }},
		"too many writes":   {codes.InvalidArgument, func(r *rawStream) { r.handshake().sendPB(tooMany) }},
		"too big a message": {codes.ResourceExhausted, func(r *rawStream) { r.handshake().send(make([]byte, MaxRequestBytes+1)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := openRaw(t, server.address)
			c.say(r)
			_, err := r.receive()
			require.Equal(t, c.want, status.Code(err), "%v", err)
		})
	}
	t.Run("generated codec", func(t *testing.T) {
		t.Parallel()
		stream, err := pb.NewDataPlaneClient(connect(t, server.address)).Write(within10s(t))
		require.NoError(t, err)
		require.NoError(t, stream.Send(hello))
		_, err = stream.Recv()
		require.Equal(t, codes.Internal, status.Code(err), "%v", err)
	})
}

// A well-formed write that breaks the bounds is refused alone.
func TestServerRefusesOneWrite(t *testing.T) {
	t.Parallel()
	server := serve(t, "", &stubNode{tombstone: func(context.Context, rpc.Key) error { return nil }}, ServerOptions{})
	r := openRaw(t, server.address).handshake()
	r.sendPB(&pb.RequestFrame{Requests: []*pb.WriteRequest{
		{Id: 1}, tombstoneOf(2, ""), tombstoneOf(3, "k"),
		{Id: 4, Op: &pb.WriteRequest_Append{Append: &pb.AppendRequest{Key: []byte("k")}}},
	}})
	got := map[uint64][]pb.Code{}
	for len(got) < 4 {
		p, err := r.receive()
		require.NoError(t, err)
		for _, reply := range p.GetReplies() {
			got[reply.GetId()] = reply.GetError().GetCodes()
		}
	}
	require.Equal(t, map[uint64][]pb.Code{
		1: {pb.Code_CODE_INVALID_REQUEST}, 2: {pb.Code_CODE_INVALID_ID}, 3: nil, 4: {pb.Code_CODE_INVALID_REQUEST},
	}, got)
}

// Unary calls trust their peer as little.
func TestServerChecksReads(t *testing.T) {
	t.Parallel()
	reads := pb.NewDataPlaneClient(connect(t, serve(t, "", &stubNode{}, ServerOptions{}).address))
	ctx := within10s(t)
	bad := &pb.ReadOptions{Consistency: 77}
	_, errs := error(nil), []error{}
	_, err := reads.Conversation(ctx, &pb.ConversationRequest{})
	errs = append(errs, err)
	_, err = reads.Conversation(ctx, &pb.ConversationRequest{Key: []byte("k"), Options: bad})
	errs = append(errs, err)
	_, err = reads.Messages(ctx, &pb.MessagesRequest{Key: make([]byte, rpc.MaxKeyBytes+1)})
	errs = append(errs, err)
	_, err = reads.Tail(ctx, &pb.TailRequest{Key: []byte("k"), Options: bad})
	errs = append(errs, err)
	_, err = reads.List(ctx, &pb.ListRequest{Groups: []uint32{rpc.Groups}})
	errs = append(errs, err)
	_, err = reads.List(ctx, &pb.ListRequest{Groups: make([]uint32, rpc.Groups+1)})
	errs = append(errs, err)
	_, err = reads.List(ctx, &pb.ListRequest{Limit: maxListConversations + 1})
	errs = append(errs, err)
	for _, err := range errs {
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
	}
}

// A stream that never says hello is not kept.
func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	server := serve(t, "", &stubNode{}, ServerOptions{HandshakeTimeout: time.Millisecond})
	_, err := openRaw(t, server.address).receive()
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
}

// Beyond its bound of writes in flight the server reads no further; every answer
// lets one more in.
func TestServerStopsReading(t *testing.T) {
	t.Parallel()
	const limit, writes = 4, 20
	var inside, most atomic.Int64
	arrived, release := make(chan struct{}, writes), make(chan struct{})
	server := serve(t, "", &stubNode{tombstone: func(context.Context, rpc.Key) error {
		n := inside.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		arrived <- struct{}{}
		<-release
		inside.Add(-1)
		return nil
	}}, ServerOptions{MaxInFlight: limit})
	r := openRaw(t, server.address).handshake()
	for id := range uint64(writes) {
		r.sendPB(&pb.RequestFrame{Requests: []*pb.WriteRequest{tombstoneOf(id+1, "k")}})
	}
	for range limit {
		<-arrived
	}
	for answered := 0; answered < writes; {
		release <- struct{}{}
		p, err := r.receive()
		require.NoError(t, err)
		answered += len(p.GetReplies())
	}
	require.LessOrEqual(t, most.Load(), int64(limit))
}

// A write that waited too long on its way is not begun.
func TestServerDropsWhatIsLate(t *testing.T) {
	t.Parallel()
	server := serve(t, "", &stubNode{tombstone: func(context.Context, rpc.Key) error {
		t.Error("the node was called")
		return nil
	}}, ServerOptions{})
	r := openRaw(t, server.address).handshake()
	late := tombstoneOf(1, "k")
	late.TimeoutUs = 1000
	r.sendPB(&pb.RequestFrame{WaitedUs: 1000, Requests: []*pb.WriteRequest{late}})
	p, err := r.receive()
	require.NoError(t, err)
	require.Equal(t, []pb.Code{pb.Code_CODE_UNAVAILABLE}, p.GetReplies()[0].GetError().GetCodes())
}

// badServer answers Write streams as a test likes.
type badServer struct {
	pb.UnimplementedDataPlaneServer
	write func(send func(*pb.ReplyFrame), receive func() *pb.RequestFrame) error
}

func (b *badServer) Write(stream grpc.BidiStreamingServer[pb.RequestFrame, pb.ReplyFrame]) error {
	send := func(p *pb.ReplyFrame) {
		frame, err := proto.Marshal(p)
		if err == nil {
			_ = stream.SendMsg(&outFrame{buf: &frame})
		}
	}
	receive := func() *pb.RequestFrame {
		in, p := inFrame{keep: true}, &pb.RequestFrame{}
		if err := stream.RecvMsg(&in); err != nil || proto.Unmarshal(in.bytes, p) != nil {
			return nil
		}
		return p
	}
	return b.write(send, receive)
}

func serveBad(t *testing.T, write func(send func(*pb.ReplyFrame), receive func() *pb.RequestFrame) error) string {
	t.Helper()
	return serveService(t, &badServer{write: write})
}

// serveService serves the service as a test made it.
func serveService(t *testing.T, service pb.DataPlaneServer) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer(serverOptions()...)
	pb.RegisterDataPlaneServer(g, service)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(listener) })
	t.Cleanup(func() {
		g.Stop()
		wg.Wait()
	})
	return listener.Addr().String()
}

var fastOptions = Options{Streams: 1, ConnectWait: time.Minute, BackoffMax: 20 * time.Millisecond, DrainWait: 50 * time.Millisecond}

// A server that does not speak the protocol is a server that is not there.
func TestClientRefusesBadHandshakes(t *testing.T) {
	t.Parallel()
	for name, welcome := range map[string]*pb.ReplyFrame{
		"no welcome":      {},
		"no version":      {Welcome: &pb.Welcome{MaxInFlight: 1}},
		"unknown version": {Welcome: &pb.Welcome{MaxInFlight: 1, Version: maxVersion + 1}},
		"no window":       {Welcome: &pb.Welcome{Version: maxVersion}},
		"draining":        {Draining: true},
		"silence":         nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := dial(t, serveBad(t, func(send func(*pb.ReplyFrame), receive func() *pb.RequestFrame) error {
				if receive() == nil {
					return errors.New("no hello")
				}
				if welcome != nil {
					send(welcome)
				}
				receive()
				return nil
			}), Options{Streams: 1, ConnectWait: 100 * time.Millisecond, BackoffMax: 20 * time.Millisecond})
			_, err := client.Append(within10s(t), appendOf("k", "x"))
			require.ErrorIs(t, err, rpc.ErrUnavailable)
			require.NotErrorIs(t, err, rpc.ErrOutcomeUnknown)
		})
	}
}

// Answers that are none leave the outcome of a sent write unknown, and never
// reach another caller.
func TestClientDistrustsReplies(t *testing.T) {
	t.Parallel()
	done := func(id uint64) *pb.WriteReply {
		return &pb.WriteReply{Id: id, Result: &pb.WriteReply_Tombstone{Tombstone: &pb.TombstoneReply{}}}
	}
	tooMany := &pb.ReplyFrame{}
	for range maxFrameEntries + 1 {
		tooMany.Replies = append(tooMany.Replies, done(999))
	}
	for name, answer := range map[string]func(id uint64) *pb.ReplyFrame{
		"another kind":     func(id uint64) *pb.ReplyFrame { return &pb.ReplyFrame{Replies: []*pb.WriteReply{done(id)}} },
		"no result":        func(id uint64) *pb.ReplyFrame { return &pb.ReplyFrame{Replies: []*pb.WriteReply{{Id: id}}} },
		"too many":         func(uint64) *pb.ReplyFrame { return tooMany },
		"stream ends":      func(uint64) *pb.ReplyFrame { return nil },
		"drain, no answer": func(uint64) *pb.ReplyFrame { return &pb.ReplyFrame{Draining: true} },
		"not a conversation": func(id uint64) *pb.ReplyFrame {
			return &pb.ReplyFrame{Replies: []*pb.WriteReply{{Id: id, Result: &pb.WriteReply_Put{Put: &pb.PutReply{
				Conversation: &pb.Conversation{Head: []byte("short")},
			}}}}}
		},
		"too many messages": func(id uint64) *pb.ReplyFrame {
			p := &pb.AppendReply{}
			for range rpc.MaxAppendMessages + 1 {
				p.Messages = append(p.Messages, &pb.Appended{})
			}
			return &pb.ReplyFrame{Replies: []*pb.WriteReply{{Id: id, Result: &pb.WriteReply_Append{Append: p}}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := dial(t, serveBad(t, func(send func(*pb.ReplyFrame), receive func() *pb.RequestFrame) error {
				receive()
				send(&pb.ReplyFrame{Welcome: &pb.Welcome{Version: 1, MaxInFlight: 9}})
				if p := receive(); p != nil {
					if reply := answer(p.GetRequests()[0].GetId()); reply != nil {
						send(reply)
						receive()
					}
				}
				return nil
			}), fastOptions)
			_, err := client.Append(within10s(t), appendOf("k", "x"))
			require.ErrorIs(t, err, rpc.ErrOutcomeUnknown)
		})
	}
}

// A reply to a write that is still in the queue ends the stream; the write goes
// out on the next one.
func TestClientRefusesUnaskedReplies(t *testing.T) {
	t.Parallel()
	first := make(chan struct{})
	var streams atomic.Int64
	client := dial(t, serveBad(t, func(send func(*pb.ReplyFrame), receive func() *pb.RequestFrame) error {
		receive()
		send(&pb.ReplyFrame{Welcome: &pb.Welcome{Version: 1, MaxInFlight: 1}})
		for p := receive(); p != nil; p = receive() {
			id := p.GetRequests()[0].GetId()
			if streams.Load() == 0 {
				<-first
				streams.Add(1)
				id++
			}
			send(&pb.ReplyFrame{Replies: []*pb.WriteReply{{Id: id, Result: &pb.WriteReply_Tombstone{Tombstone: &pb.TombstoneReply{}}}}})
		}
		return nil
	}), fastOptions)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := client.Tombstone(within10s(t), "sent"); !errors.Is(err, rpc.ErrOutcomeUnknown) {
			t.Errorf("sent: %v", err)
		}
	})
	require.Eventually(t, func() bool { return client.Stats().InFlight == 1 }, patience, time.Millisecond)
	wg.Go(func() {
		if err := client.Tombstone(within10s(t), "queued"); err != nil {
			t.Errorf("queued: %v", err)
		}
	})
	require.Eventually(t, func() bool { return client.Stats().Queued == 1 }, patience, time.Millisecond)
	close(first)
}

// A client that sends writes and never reads the answers cannot keep the server from
// closing.
func TestWriterThatNeverReads(t *testing.T) {
	t.Parallel()
	server := serve(t, "", &stubNode{tombstone: func(context.Context, rpc.Key) error {
		return errors.New(strings.Repeat("x", maxErrorText))
	}}, ServerOptions{})
	r := openRaw(t, server.address)
	r.sendPB(hello)
	frame := &pb.RequestFrame{}
	for range maxFrameEntries {
		frame.Requests = append(frame.Requests, tombstoneOf(1, "k"))
	}
	var st *serverStream
	eventually(t, func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		for s := range server.streams {
			st = s.(*serverStream)
		}
		return st != nil
	}, "the stream is open")
	for range 16 {
		r.sendPB(frame)
	}
	eventually(t, func() bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.out.bytes > 1<<20
	}, "answers are stuck")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, server.Close(ctx), context.Canceled)
}
