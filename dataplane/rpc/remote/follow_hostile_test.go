package remote

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// rawFollow is a Follow stream on which a test says what it likes.
type rawFollow struct {
	t *testing.T
	grpc.ClientStream
}

func openFollow(t *testing.T, address string) *rawFollow {
	t.Helper()
	stream, err := connect(t, address).NewStream(within10s(t), followMethod.desc, followMethod.name, grpc.CallContentSubtype(codecName))
	require.NoError(t, err)
	return &rawFollow{t: t, ClientStream: stream}
}

func (r *rawFollow) send(frame []byte) {
	r.t.Helper()
	_ = r.SendMsg(&outFrame{buf: &frame})
}

func (r *rawFollow) sendPB(p *pb.FollowFrame) {
	r.t.Helper()
	frame, err := proto.Marshal(p)
	require.NoError(r.t, err)
	r.send(frame)
}

func (r *rawFollow) receive() (*pb.NewsFrame, error) {
	r.t.Helper()
	in := inFrame{keep: true}
	if err := r.RecvMsg(&in); err != nil {
		return nil, err
	}
	var p pb.NewsFrame
	require.NoError(r.t, proto.Unmarshal(in.bytes, &p))
	return &p, nil
}

func (r *rawFollow) handshake() *rawFollow {
	r.t.Helper()
	r.sendPB(&pb.FollowFrame{Hello: hello.Hello})
	p, err := r.receive()
	require.NoError(r.t, err)
	require.EqualValues(r.t, maxVersion, p.GetWelcome().GetVersion())
	return r
}

func subscribeTo(ids ...uint64) *pb.FollowFrame {
	p := &pb.FollowFrame{}
	for _, id := range ids {
		p.Subscribe = append(p.Subscribe, &pb.SubscribeRequest{Id: id, Key: []byte("k")})
	}
	return p
}

func TestFollowRefusesGarbage(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	server := serve(t, "", node, ServerOptions{})
	tooMany := make([]uint64, maxFrameEntries+1)
	for i := range tooMany {
		tooMany[i] = uint64(i) + 1
	}
	for name, c := range map[string]struct {
		want codes.Code
		say  func(*rawFollow)
	}{
		"garbage at first":   {codes.InvalidArgument, func(r *rawFollow) { r.send([]byte("\xff\xff\xff")) }},
		"nothing at first":   {codes.InvalidArgument, func(r *rawFollow) { r.send(nil) }},
		"subscribe at first": {codes.InvalidArgument, func(r *rawFollow) { r.sendPB(subscribeTo(1)) }},
		"version too new":    {codes.FailedPrecondition, func(r *rawFollow) { r.sendPB(&pb.FollowFrame{Hello: &pb.Hello{MinVersion: 7, MaxVersion: 8}}) }},
		"garbage later":      {codes.InvalidArgument, func(r *rawFollow) { r.handshake().send([]byte("\x12\xff")) }},
		"garbage inside":     {codes.InvalidArgument, func(r *rawFollow) { r.handshake().send([]byte("\x12\x01\xff")) }},
		"id of zero":         {codes.InvalidArgument, func(r *rawFollow) { r.handshake().sendPB(subscribeTo(0)) }},
		"id used twice":      {codes.InvalidArgument, func(r *rawFollow) { r.handshake().sendPB(subscribeTo(1, 1)) }},
		"too many":           {codes.InvalidArgument, func(r *rawFollow) { r.handshake().sendPB(subscribeTo(tooMany...)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := openFollow(t, server.address)
			c.say(r)
			var err error
			for err == nil {
				_, err = r.receive()
			}
			require.Equal(t, c.want, status.Code(err), "%v", err)
		})
	}
	t.Cleanup(func() { eventually(t, func() bool { return node.quota.Used() == 0 }, "nothing is left at the node") })
}

// A wish beyond the bounds is refused alone, and what means nothing is skipped.
func TestFollowRefusesOneSubscription(t *testing.T) {
	t.Parallel()
	node := newFeedNode()
	r := openFollow(t, serve(t, "", node, ServerOptions{MaxSubscriptions: 1}).address).handshake()
	r.sendPB(&pb.FollowFrame{Unsubscribe: []uint64{5, 6}, Subscribe: []*pb.SubscribeRequest{
		{Id: 1, Key: []byte(strings.Repeat("k", rpc.MaxKeyBytes+1))}, {Id: 2}, {Id: 3, Key: []byte("k")}, {Id: 4, Key: []byte("k")},
	}})
	answers := map[uint64]*pb.Subscribed{}
	for len(answers) < 4 {
		p, err := r.receive()
		require.NoError(t, err)
		for _, s := range p.GetSubscribed() {
			answers[s.GetId()] = s
		}
	}
	require.Equal(t, []pb.Code{pb.Code_CODE_INVALID_ID}, answers[1].GetError().GetCodes())
	require.Equal(t, []pb.Code{pb.Code_CODE_INVALID_ID}, answers[2].GetError().GetCodes())
	require.NotNil(t, answers[3].GetReply())
	require.Equal(t, []pb.Code{pb.Code_CODE_OVERLOADED}, answers[4].GetError().GetCodes())
	// Half closing ends the stream well.
	require.NoError(t, r.CloseSend())
	_, err := r.receive()
	for err == nil {
		_, err = r.receive()
	}
	require.Equal(t, "EOF", err.Error())
	eventually(t, func() bool { return node.quota.Used() == 0 }, "nothing is left at the node")
}

// A client that never reads stops being listened to, so that neither news nor
// answers fill the memory; and it cannot keep the server from closing.
func TestClientThatNeverReads(t *testing.T) {
	t.Parallel()
	const bound = 64 << 10
	node := newFeedNode()
	server := serve(t, "", node, ServerOptions{MaxQueuedNews: bound})
	r := openFollow(t, server.address)
	r.sendPB(&pb.FollowFrame{Hello: hello.Hello})
	r.sendPB(subscribeTo(1))
	eventually(t, func() bool { return node.quota.Used() == 1 }, "it subscribes")
	var st *followStream
	server.mu.Lock()
	for s := range server.streams {
		if f, ok := s.(*followStream); ok {
			st = f
		}
	}
	server.mu.Unlock()
	for server.collapsed.Load() == 0 {
		node.commit("k", 1, 32<<10)
	}
	for range 100 {
		node.commit("k", 1, 32<<10)
	}
	st.mu.Lock()
	queued, behind := st.out.bytes, len(st.behind)
	st.mu.Unlock()
	require.LessOrEqual(t, queued, bound+entryHead)
	require.Equal(t, 1, behind)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, server.Close(ctx), context.Canceled)
	require.Zero(t, node.quota.Used())
}

// badFollow answers Follow streams as a test likes.
type badFollow struct {
	pb.UnimplementedDataPlaneServer
	answer func(id uint64) []*pb.NewsFrame
}

func (b *badFollow) Follow(stream grpc.BidiStreamingServer[pb.FollowFrame, pb.NewsFrame]) error {
	send := func(p *pb.NewsFrame) {
		if frame, err := proto.Marshal(p); err == nil {
			_ = stream.SendMsg(&outFrame{buf: &frame})
		}
	}
	in := inFrame{keep: true}
	if err := stream.RecvMsg(&in); err != nil {
		return err
	}
	send(&pb.NewsFrame{Welcome: &pb.Welcome{Version: 1, MaxInFlight: 10}})
	for stream.RecvMsg(&in) == nil {
		ops, err := decodeFollow(in.bytes, nil)
		if err != nil {
			return err
		}
		for _, p := range b.answer(ops[0].id) {
			send(p)
		}
	}
	return nil
}

// What a server says of subscriptions that cannot be ends the stream, and with it
// the subscription.
func TestClientDistrustsNews(t *testing.T) {
	t.Parallel()
	begun := func(id uint64) *pb.NewsFrame {
		return &pb.NewsFrame{Subscribed: []*pb.Subscribed{{Id: id, Result: &pb.Subscribed_Reply{Reply: &pb.SubscribeReply{}}}}}
	}
	for name, more := range map[string]func(id uint64) *pb.NewsFrame{
		"begun twice":      begun,
		"never asked":      func(id uint64) *pb.NewsFrame { return begun(id + 1) },
		"ends the unasked": func(id uint64) *pb.NewsFrame { return &pb.NewsFrame{Ended: []*pb.Ended{{Id: id + 1}}} },
		"more than there are": func(id uint64) *pb.NewsFrame {
			return &pb.NewsFrame{News: []*pb.News{{Id: id, LastSeq: 1, Messages: []*pb.NewsMessage{{}, {}}}}}
		},
		"too many events": func(uint64) *pb.NewsFrame { return &pb.NewsFrame{Ended: make([]*pb.Ended, maxFrameEntries+1)} },
		"stream ends":     func(uint64) *pb.NewsFrame { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &badFollow{answer: func(id uint64) []*pb.NewsFrame { return []*pb.NewsFrame{begun(id), more(id)} }}
			client := dial(t, serveService(t, b), fastFollow)
			l := newListener()
			mustSubscribe(t, client, "k", l)
			require.ErrorIs(t, l.mustEnd(t), rpc.ErrUnavailable)
		})
	}
	t.Run("ends what has not begun", func(t *testing.T) {
		t.Parallel()
		b := &badFollow{answer: func(id uint64) []*pb.NewsFrame { return []*pb.NewsFrame{{Ended: []*pb.Ended{{Id: id}}}} }}
		_, _, err := dial(t, serveService(t, b), fastFollow).Subscribe(within10s(t), "k", newListener())
		require.ErrorIs(t, err, rpc.ErrUnavailable)
	})
	t.Run("neither reply nor error", func(t *testing.T) {
		t.Parallel()
		b := &badFollow{answer: func(id uint64) []*pb.NewsFrame { return []*pb.NewsFrame{{Subscribed: []*pb.Subscribed{{Id: id}}}} }}
		_, _, err := dial(t, serveService(t, b), fastFollow).Subscribe(within10s(t), "k", newListener())
		require.ErrorIs(t, err, rpc.ErrUnavailable)
	})
}

// What is written by hand is what the generated code reads, and the other way
// round.
func TestFollowAgreesWithTheSchema(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Uint64Min(1).Draw(t, "id")
		n := rapid.IntRange(0, 4).Draw(t, "messages")
		news := rpc.News{LastSeq: rapid.Uint64Min(uint64(n)).Draw(t, "last"), Tombstoned: rapid.Bool().Draw(t, "closed")}
		p := &pb.News{Id: id, LastSeq: news.LastSeq, Tombstoned: news.Tombstoned}
		for i := range n {
			m := rpc.Message{
				Seq: news.LastSeq - uint64(n-1-i), Version: rapid.Uint64().Draw(t, "version"),
				JSON: rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "json"),
			}
			news.Messages = append(news.Messages, m)
			p.Messages = append(p.Messages, &pb.NewsMessage{Version: m.Version, Json: m.JSON})
		}
		reply := &rpc.SubscribeReply{
			Exists: rapid.Bool().Draw(t, "exists"), LastSeq: rapid.Uint64().Draw(t, "seq"), Version: rapid.Uint64().Draw(t, "v"),
			Tombstoned: rapid.Bool().Draw(t, "t"),
		}
		lost := &rpc.NotLeaderError{Group: 3, Leader: "n1"}
		body := encodeError(lost)
		size := sizeNews(id, &news)
		frame := appendNews(appendSubscribed(nil, id, reply), id, &news, size)
		frame = appendRefused(appendEnded(frame, id, body), id, body)

		schema := &pb.NewsFrame{
			Subscribed: []*pb.Subscribed{
				{Id: id, Result: &pb.Subscribed_Reply{Reply: &pb.SubscribeReply{
					Exists: reply.Exists, LastSeq: reply.LastSeq, Version: reply.Version, Tombstoned: reply.Tombstoned,
				}}},
				{Id: id, Result: &pb.Subscribed_Error{Error: errorToWire(lost)}},
			},
			News:  []*pb.News{p},
			Ended: []*pb.Ended{{Id: id, Error: errorToWire(lost)}},
		}
		var got pb.NewsFrame
		require.NoError(t, proto.Unmarshal(frame, &got))
		require.True(t, proto.Equal(schema, &got), "%v became %v", schema, &got)
		events, draining, err := decodeNews(frame, nil)
		require.NoError(t, err)
		require.False(t, draining)
		require.Len(t, events, 4)
		require.Equal(t, reply, events[0].reply)
		require.Equal(t, event{kind: newsNews, id: id, news: news}, events[1])
		require.ErrorIs(t, events[2].err, rpc.ErrUnavailable)
		require.ErrorIs(t, events[3].err, rpc.ErrUnavailable)

		key := rpc.Key(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key"))
		frame = appendUnsubscribe(appendSubscribe(nil, id, key), id)
		var asked pb.FollowFrame
		require.NoError(t, proto.Unmarshal(frame, &asked))
		require.True(t, proto.Equal(&pb.FollowFrame{
			Subscribe: []*pb.SubscribeRequest{{Id: id, Key: []byte(key)}}, Unsubscribe: []uint64{id},
		}, &asked))
		ops, err := decodeFollow(frame, nil)
		require.NoError(t, err)
		require.Equal(t, []followOp{{id: id, key: key, subscribe: true}, {id: id}}, ops)
	})
}

// FuzzFollowStream: whatever a peer sends after its hello, nothing panics, the node
// sees only keys that are some, and nothing stays behind.
func FuzzFollowStream(f *testing.F) {
	valid := appendUnsubscribe(appendSubscribe(nil, 1, "k"), 1)
	f.Add(valid, valid)
	f.Add(valid[:len(valid)-1], []byte{})
	f.Add([]byte("\x12\x02\x08\x01"), []byte("\x12\xff"))
	greeting, err := proto.Marshal(hello)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		node := newFeedNode()
		server := NewServer(&checkingNode{feedNode: node, t: t}, ServerOptions{})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream := &scriptedFollow{scriptedStream{ctx: ctx, frames: [][]byte{greeting, a, b}}}
		err := server.Follow(&grpc.GenericServerStream[pb.FollowFrame, pb.NewsFrame]{ServerStream: stream})
		if code := status.Code(err); code != codes.OK && code != codes.InvalidArgument {
			t.Errorf("ended with %v", err)
		}
		if err := server.Close(ctx); err != nil || node.quota.Used() != 0 {
			t.Errorf("close: %v, %d subscriptions left", err, node.quota.Used())
		}
	})
}

type checkingNode struct {
	*feedNode
	t *testing.T
}

func (n *checkingNode) Subscribe(ctx context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	if err := validateKey(key); err != nil {
		n.t.Errorf("reached the node: %v", err)
	}
	return n.feedNode.Subscribe(ctx, key, to)
}

// scriptedFollow checks what the server sends against the schema.
type scriptedFollow struct{ scriptedStream }

func (s *scriptedFollow) SendMsg(m any) error {
	if err := proto.Unmarshal(*m.(*outFrame).buf, &pb.NewsFrame{}); err != nil {
		return fmt.Errorf("the server sent what is no frame: %w", err)
	}
	return nil
}

// FuzzNewsFrame: whatever a server sends, nothing panics, and what is taken is
// whole.
func FuzzNewsFrame(f *testing.F) {
	news := rpc.News{LastSeq: 2, Messages: []rpc.Message{{Seq: 1, Version: 1, JSON: []byte("{}")}, {Seq: 2, JSON: []byte("x")}}}
	f.Add(appendNews(appendSubscribed(nil, 7, &rpc.SubscribeReply{Exists: true}), 7, &news, sizeNews(7, &news)))
	f.Add(appendEnded(nil, 1, encodeError(rpc.ErrClosed)))
	f.Add(heartbeatFrame)
	f.Add([]byte("\x22\x04\x10\x01\x22\x00"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		events, _, err := decodeNews(frame, nil)
		if err != nil {
			return
		}
		for _, e := range events {
			switch {
			case e.kind == newsSubscribed && e.reply == nil && e.err == nil, e.kind == newsEnded && e.err == nil:
				t.Errorf("event of kind %d without its content", e.kind)
			case len(e.news.Messages) > 0 && e.news.Messages[len(e.news.Messages)-1].Seq != e.news.LastSeq:
				t.Errorf("news up to %d end at %v", e.news.LastSeq, e.news.Messages)
			}
		}
	})
}
