package remote

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// followStream is one Follow stream at the server: the reader subscribes at the
// node, whose deliveries leave their news in the outbox, and the writer sends
// them. What finds the outbox full is not kept: its subscription falls behind,
// which costs one entry however much it misses.
type followStream struct {
	server *Server
	stream grpc.ServerStream

	mu   sync.Mutex // guards what follows
	out  outbox
	subs map[uint64]*served
	// behind are subscriptions whose newest news has no messages and is not in
	// the outbox, the longest waiting first.
	behind   []*served
	welcomed bool
	draining bool // every subscription has ended, and none begins
	ended    bool // the call has returned
	result   error
	finished bool // result is set, and over closed
	// The writer and the reader wait for theirs.
	writerIdle, readerWaits bool

	over       chan struct{} // closed when the call shall return
	wakeWriter chan struct{} // capacity 1
	wakeReader chan struct{} // capacity 1
}

// Follow implements pb.DataPlaneServer.
func (s *Server) Follow(stream grpc.BidiStreamingServer[pb.FollowFrame, pb.NewsFrame]) error {
	if s.feed == nil {
		return status.Error(codes.Unimplemented, "this node takes no subscriptions")
	}
	st := &followStream{
		server: s, stream: stream, subs: make(map[uint64]*served), over: make(chan struct{}),
		wakeWriter: make(chan struct{}, 1), wakeReader: make(chan struct{}, 1),
	}
	const goroutines = 3
	if err := s.open(st, goroutines); err != nil {
		return err
	}
	handshake := time.AfterFunc(s.opts.HandshakeTimeout, st.expire)
	go func() {
		defer s.active.Done()
		st.finish(st.read())
	}()
	go func() {
		defer s.active.Done()
		st.finish(st.write())
	}()
	// Its return is what frees the two from a peer that neither reads nor writes.
	<-st.over
	handshake.Stop()
	s.forget(st)
	st.end()
	s.active.Done()
	if status.Code(st.result) == codes.InvalidArgument {
		s.opts.Logger.Warn("peer breaks the protocol of the follow stream", slog.Any("error", st.result))
	}
	return st.result
}

// finish ends the call with the first result given.
func (st *followStream) finish(result error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.finished {
		st.finished, st.result = true, result
		close(st.over)
	}
}

// expire ends a stream that has said nothing.
func (st *followStream) expire() {
	st.mu.Lock()
	late := !st.welcomed
	st.mu.Unlock()
	if late {
		st.finish(status.Error(codes.DeadlineExceeded, "no hello in time"))
	}
}

// cut ends the stream without waiting for anything.
func (st *followStream) cut() { st.finish(statusOf(fmt.Errorf("data node: %w", rpc.ErrClosed))) }

// drain ends every subscription: the client is told with one word for all, after
// what is queued.
func (st *followStream) drain() {
	// A frame of one bool always encodes.
	frame, _ := proto.Marshal(&pb.NewsFrame{Draining: true})
	st.mu.Lock()
	st.draining = true
	stops := st.takeAll()
	st.control(frame)
	st.mu.Unlock()
	stopAll(stops)
}

// control queues a frame of its own, with mu held.
func (st *followStream) control(buf []byte) {
	st.out.frames = append(st.out.frames, &frame{buf: &buf, entries: maxFrameEntries})
	st.out.bytes += len(buf)
	st.wake()
}

// read receives until the stream ends, and returns the status it shall end with.
func (st *followStream) read() error {
	in := inFrame{}
	defer in.release()
	if err := st.stream.RecvMsg(&in); err != nil {
		return ended(err)
	}
	if err := st.hello(in.bytes); err != nil {
		return err
	}
	var ops []followOp
	for st.room() {
		if err := st.stream.RecvMsg(&in); err != nil {
			return ended(err)
		}
		var err error
		if ops, err = decodeFollow(in.bytes, ops[:0]); err != nil {
			return malformed(err)
		}
		for _, op := range ops {
			if !op.subscribe {
				st.unsubscribe(op.id)
			} else if err := st.subscribe(op); err != nil {
				return malformed(err)
			}
		}
		clear(ops)
	}
	return nil
}

// ended is the status of a call whose client has nothing more to say.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (st *followStream) hello(frame []byte) error {
	var first pb.FollowFrame
	if err := proto.Unmarshal(frame, &first); err != nil {
		return malformed(fmt.Errorf("hello: %w", err))
	}
	if first.GetHello() == nil || len(first.GetSubscribe()) > 0 || len(first.GetUnsubscribe()) > 0 {
		return malformed(errors.New("the first frame is not a hello alone"))
	}
	version, err := agree(first.GetHello())
	if err != nil {
		return err
	}
	welcome, err := proto.Marshal(&pb.NewsFrame{Welcome: &pb.Welcome{
		Version: version, MaxInFlight: uint32(st.server.opts.MaxSubscriptions),
	}})
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.welcomed = true
	st.control(welcome)
	return nil
}

// room waits until the client has read what it was told, so that its wishes
// cannot fill the memory with answers. It returns false when the stream is over.
func (st *followStream) room() bool {
	for {
		st.mu.Lock()
		over := st.ended || st.finished
		if over || st.out.bytes <= st.server.opts.MaxQueuedNews {
			st.mu.Unlock()
			return !over
		}
		st.readerWaits = true
		st.mu.Unlock()
		select {
		case <-st.wakeReader:
		case <-st.over:
			return false
		}
	}
}

// write sends until the stream ends. Its result is the status of the call.
func (st *followStream) write() error {
	beat := time.NewTicker(st.server.opts.Heartbeat)
	defer beat.Stop()
	sent := false
	for {
		// News that are about to come get to share the frame.
		runtime.Gosched()
		buf, last := st.next()
		if buf != nil {
			if err := st.stream.SendMsg(&outFrame{buf: buf}); err != nil {
				return err
			}
			sent = true
			continue
		}
		if last {
			return nil
		}
		select {
		case <-st.wakeWriter:
		case <-beat.C:
			if !sent {
				if err := st.stream.SendMsg(&outFrame{buf: heartbeat()}); err != nil {
					return err
				}
			}
			sent = false
		case <-st.over:
			return nil
		}
	}
}

// heartbeat is a frame without news, in a buffer that may be taken over.
func heartbeat() *[]byte {
	buf := frames.empty(len(heartbeatFrame))
	*buf = append(*buf, heartbeatFrame...)
	return buf
}

// next returns the next frame to send, or nothing; last means that none will come.
func (st *followStream) next() (buf *[]byte, last bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.catchUp()
	if st.out.first() == nil {
		st.writerIdle = true
		return nil, st.draining
	}
	f := st.out.pop()
	if st.readerWaits && st.out.bytes <= st.server.opts.MaxQueuedNews {
		st.readerWaits = false
		signal(st.wakeReader)
	}
	return f.buf, false
}

// catchUp queues how the conversations of the subscriptions behind stand, once
// half of the queue is free.
func (st *followStream) catchUp() {
	n := 0
	for n < len(st.behind) && st.out.bytes <= st.server.opts.MaxQueuedNews/2 {
		s := st.behind[n]
		st.behind[n] = nil
		n++
		if !s.over {
			st.put(s.id, &s.missed)
		}
		s.behind = false
	}
	if n == len(st.behind) {
		st.behind = nil
		return
	}
	st.behind = st.behind[n:]
}

// put queues news, with mu held.
func (st *followStream) put(id uint64, n *rpc.News) {
	size := sizeNews(id, n)
	st.add(size+entryHead, func(b []byte) []byte { return appendNews(b, id, n, size) })
}

// entryHead bounds the head of an entry.
const entryHead = 32

// add queues an entry of at most size bytes, with mu held.
func (st *followStream) add(size int, encode func([]byte) []byte) {
	f := st.out.frame(size, nil)
	before := len(*f.buf)
	*f.buf = encode(*f.buf)
	st.out.bytes += len(*f.buf) - before
	f.entries++
	st.wake()
}

// wake is called with mu held, after anything next looks at.
func (st *followStream) wake() {
	if st.writerIdle {
		st.writerIdle = false
		signal(st.wakeWriter)
	}
}

// end lets the node and the reader go. Nothing is queued after it.
func (st *followStream) end() {
	st.mu.Lock()
	st.ended = true
	stops := st.takeAll()
	st.out.clear()
	st.behind = nil
	st.mu.Unlock()
	stopAll(stops)
}
