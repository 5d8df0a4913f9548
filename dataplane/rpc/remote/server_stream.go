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

// serverStream is one Write stream at the server: the reader decodes frames and
// hands their writes to workers, these leave their answers in the outbox, and
// the writer sends them. The goroutine that gRPC gave to the call waits for its
// end.
type serverStream struct {
	server *Server
	stream grpc.ServerStream
	began  time.Time

	mu sync.Mutex // guards what follows
	// control are frames to be sent before those of the outbox.
	control []*[]byte
	out     outbox
	// inFlight and held are the writes read and not yet answered to the
	// transport, and their bytes.
	inFlight int
	held     int64
	// welcomed: the handshake is done.
	welcomed bool
	// readErr is why the reader has ended, or nil; io.EOF is the client's word
	// that nothing more comes.
	readErr error
	// ended: the call has returned, and answers have nowhere to go.
	ended                   bool
	writerIdle, readerWaits bool

	wakeWriter chan struct{} // capacity 1
	wakeReader chan struct{} // capacity 1
	cutting    chan struct{} // closed by cut
	cutOnce    sync.Once
}

// Write implements pb.DataPlaneServer.
func (s *Server) Write(stream grpc.BidiStreamingServer[pb.RequestFrame, pb.ReplyFrame]) error {
	st := &serverStream{
		server:     s,
		stream:     stream,
		began:      time.Now(),
		wakeWriter: make(chan struct{}, 1),
		wakeReader: make(chan struct{}, 1),
		cutting:    make(chan struct{}),
	}
	const goroutines = 3
	if err := s.open(st, goroutines); err != nil {
		return err
	}
	go func() {
		defer s.active.Done()
		r := reader{st: st}
		st.readEnded(r.run())
	}()
	written := make(chan error, 1)
	go func() {
		defer s.active.Done()
		written <- st.write()
	}()
	var err error
	select {
	case err = <-written:
	case <-st.cutting:
		// The return of the call is what frees a writer whose peer does not read.
		err = statusOf(fmt.Errorf("data node: %w", rpc.ErrClosed))
	}
	s.forget(st)
	st.end()
	s.active.Done()
	if status.Code(err) == codes.InvalidArgument {
		s.opts.Logger.Warn("peer breaks the protocol of the write stream", slog.Any("error", err))
	}
	return err
}

// open counts in the stream and its goroutines, unless the server drains.
func (s *Server) open(st closable, goroutines int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return statusOf(fmt.Errorf("data node: %w", rpc.ErrClosed))
	}
	s.active.Add(goroutines)
	s.streams[st] = struct{}{}
	return nil
}

func (s *Server) forget(st closable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
}

// write sends until the stream ends. Its result is the status of the call.
func (st *serverStream) write() error {
	handshake := time.NewTimer(st.server.opts.HandshakeTimeout)
	defer handshake.Stop()
	for {
		// Answers that are about to be given get to share the frame.
		runtime.Gosched()
		buf, err := st.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case buf != nil:
			if err := st.stream.SendMsg(&outFrame{buf: buf}); err != nil {
				return err
			}
			continue
		}
		select {
		case <-st.wakeWriter:
		case <-handshake.C:
			if !st.isWelcomed() {
				return status.Error(codes.DeadlineExceeded, "no hello in time")
			}
		case <-st.cutting:
			return statusOf(fmt.Errorf("data node: %w", rpc.ErrClosed))
		case <-st.stream.Context().Done():
			return status.FromContextError(st.stream.Context().Err()).Err()
		}
	}
}

// next returns the next frame to send, nothing when there is none now, or why
// the stream ends. io.EOF means that it ends well.
func (st *serverStream) next() (*[]byte, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case len(st.control) > 0:
		buf := st.control[0]
		st.control = st.control[1:]
		return buf, nil
	case st.readErr != nil && !errors.Is(st.readErr, io.EOF):
		return nil, st.readErr
	case st.out.first() != nil:
		f := st.out.pop()
		st.inFlight -= f.entries
		st.held -= f.held
		if st.readerWaits {
			st.readerWaits = false
			signal(st.wakeReader)
		}
		return f.buf, nil
	case st.readErr != nil && st.inFlight == 0:
		return nil, io.EOF
	}
	st.writerIdle = true
	return nil, nil
}

func (st *serverStream) isWelcomed() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.welcomed
}

// signal wakes the goroutine that waits for ch, whose capacity is 1.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// wake is called with mu held, after anything next looks at.
func (st *serverStream) wake() {
	if st.writerIdle {
		st.writerIdle = false
		signal(st.wakeWriter)
	}
}

// welcome queues the answer to hello.
func (st *serverStream) welcome(version uint32) error {
	return st.sendControl(&pb.ReplyFrame{Welcome: &pb.Welcome{
		Version: version, MaxInFlight: uint32(st.server.opts.MaxInFlight),
	}}, true)
}

// drain tells the client to send nothing more.
func (st *serverStream) drain() {
	// A frame of one bool always encodes.
	_ = st.sendControl(&pb.ReplyFrame{Draining: true}, false)
}

func (st *serverStream) sendControl(p *pb.ReplyFrame, welcome bool) error {
	buf, err := proto.Marshal(p)
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.welcomed = st.welcomed || welcome
	st.control = append(st.control, &buf)
	st.wake()
	return nil
}

// cut ends the stream without waiting for anything.
func (st *serverStream) cut() { st.cutOnce.Do(func() { close(st.cutting) }) }

func (st *serverStream) readEnded(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.readErr = err
	st.wake()
}

// end drops what was not sent and lets the reader go.
func (st *serverStream) end() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ended = true
	st.out.clear()
	signal(st.wakeReader)
}

// reserve counts in the writes of a frame, once there is room for any: the
// bounds are passed by at most one frame. It returns false when the stream has
// ended.
func (st *serverStream) reserve(entries int, bytes int64) bool {
	for {
		st.mu.Lock()
		switch {
		case st.ended:
			st.mu.Unlock()
			return false
		case st.inFlight == 0 || st.inFlight < st.server.opts.MaxInFlight && st.held < st.server.opts.MaxInFlightBytes:
			st.inFlight += entries
			st.held += bytes
			st.mu.Unlock()
			return true
		}
		st.readerWaits = true
		st.mu.Unlock()
		<-st.wakeReader
	}
}

// answer queues the reply to a write that was reserved with its bytes. size is
// the most that encode appends.
func (st *serverStream) answer(bytes int64, size int, encode func([]byte) []byte) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended {
		return
	}
	f := st.out.frame(size, nil)
	before := len(*f.buf)
	*f.buf = encode(*f.buf)
	st.out.bytes += len(*f.buf) - before
	f.entries++
	f.held += bytes
	st.wake()
}
