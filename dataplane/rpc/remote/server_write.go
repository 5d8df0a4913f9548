package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// reader is the receiving half of a serverStream. Only its own goroutine uses
// it.
type reader struct {
	st   *serverStream
	last *deadline
}

// run receives until the stream ends, and returns the status it shall end with.
func (r *reader) run() error {
	defer func() { r.last.release() }()
	in := inFrame{keep: true}
	if err := r.st.stream.RecvMsg(&in); err != nil {
		return err
	}
	if err := r.hello(in.bytes); err != nil {
		return err
	}
	for {
		if err := r.st.stream.RecvMsg(&in); err != nil {
			return err
		}
		if err := r.frame(in.bytes, time.Now()); err != nil {
			return err
		}
	}
}

func (r *reader) hello(frame []byte) error {
	var first pb.RequestFrame
	if err := proto.Unmarshal(frame, &first); err != nil {
		return malformed(fmt.Errorf("hello: %w", err))
	}
	hello := first.GetHello()
	if hello == nil || len(first.GetRequests()) > 0 {
		return malformed(errors.New("the first frame is not a hello alone"))
	}
	version, err := agree(hello)
	if err != nil {
		return err
	}
	return r.st.welcome(version)
}

// agree returns the version to be spoken with a client.
func agree(hello *pb.Hello) (uint32, error) {
	version := min(hello.GetMaxVersion(), maxVersion)
	if version < max(hello.GetMinVersion(), minVersion) {
		return 0, status.Errorf(codes.FailedPrecondition, "no common version: %d to %d is spoken here, %d to %d there",
			minVersion, maxVersion, hello.GetMinVersion(), hello.GetMaxVersion())
	}
	return version, nil
}

// job is one write on its way through the node.
type job struct {
	incoming
	st       *serverStream
	deadline *deadline
	bytes    int64
}

// frame decodes all writes of a frame and hands them to workers.
func (r *reader) frame(frame []byte, now time.Time) error {
	jobs, bytes, err := decodeJobs(frame)
	if err != nil {
		return malformed(err)
	}
	if len(jobs) == 0 {
		return nil
	}
	st, s := r.st, r.st.server
	if !st.reserve(len(jobs), bytes) {
		return io.EOF
	}
	full := s.writeBytes.Add(bytes) > s.opts.MaxTotalBytes
	waited := time.Duration(decodeWaited(frame)) * time.Microsecond
	s.active.Add(len(jobs))
	for i := range jobs {
		j := &jobs[i]
		j.st = st
		if full && j.invalid == nil {
			j.invalid = fmt.Errorf("data node: more than %d bytes of writes: %w", s.opts.MaxTotalBytes, rpc.ErrOverloaded)
		}
		timeout := s.timeout(j.timeoutMicros, waited)
		if timeout <= 0 && j.invalid == nil {
			j.invalid = fmt.Errorf("data node: too late: %w", rpc.ErrUnavailable)
		}
		if j.invalid != nil {
			j.fail(j.invalid)
			j.done()
			continue
		}
		j.deadline = r.deadline(now.Add(timeout))
		s.workers.run(j)
	}
	return nil
}

// timeout is what the node may use of a write's timeout that was taken a while
// ago.
func (s *Server) timeout(micros uint64, waited time.Duration) time.Duration {
	limit := s.opts.MaxTime
	if micros == 0 {
		return limit
	}
	if micros >= uint64(limit/time.Microsecond) {
		return limit - waited
	}
	return within(time.Duration(micros)*time.Microsecond - waited)
}

// decodeJobs decodes the writes of a frame.
func decodeJobs(frame []byte) (jobs []job, bytes int64, err error) {
	n, err := count(frame, frameRequest<<3|nested)
	if err != nil {
		return nil, 0, err
	}
	if n > maxFrameEntries {
		return nil, 0, fmt.Errorf("%w: %d writes", errMalformed, n)
	}
	jobs = make([]job, n)
	i := 0
	for f := (fields{rest: frame}); f.next(); {
		if f.tag != frameRequest<<3|nested {
			continue
		}
		j := &jobs[i]
		if err := j.decode(f.bytes); err != nil {
			return nil, 0, err
		}
		j.bytes = int64(len(f.bytes))
		bytes += j.bytes
		i++
	}
	return jobs, bytes, nil
}

// run does the write and answers it.
func (j *job) run() {
	node, ctx := j.st.server.node, j.caller.context(j.deadline.ctx)
	switch j.kind {
	case opAppend:
		reply, err := node.Append(ctx, &j.append)
		if err != nil {
			j.fail(err)
			break
		}
		// 32 bytes bound the head of the reply.
		j.st.answer(j.bytes, sizeAppendReply(reply)+32, func(b []byte) []byte {
			return appendAppendReply(b, j.id, reply)
		})
	case opPut:
		reply, err := node.Put(ctx, &j.put)
		if err != nil {
			j.fail(err)
			break
		}
		j.reply(resultPut, &pb.PutReply{Conversation: conversationToWire(&reply.Conversation), Created: reply.Created})
	case opTombstone:
		if err := node.Tombstone(ctx, j.key); err != nil {
			j.fail(err)
			break
		}
		j.reply(resultTombstone, &pb.TombstoneReply{})
	}
	j.deadline.release()
	j.done()
}

// done gives back what the write held of the server.
func (j *job) done() {
	s := j.st.server
	s.writeBytes.Add(-j.bytes)
	s.active.Done()
}

func (j *job) fail(err error) { j.reply(resultError, errorToWire(err)) }

// reply answers with a generated message.
func (j *job) reply(kind resultKind, m proto.Message) {
	body, err := proto.Marshal(m)
	if err != nil {
		// Only a text that is not UTF-8 fails to encode, and errorToWire makes
		// none. An empty error leaves the outcome unknown to the client.
		kind, body = resultError, nil
	}
	j.st.answer(j.bytes, len(body)+32, func(b []byte) []byte {
		return append(appendReplyHead(b, j.id, kind, len(body)), body...)
	})
}

// deadline is a context shared by writes that must end at about the same time,
// as most of a frame's do: a timer for each would cost more than the rest of
// its way. It ends with the last of them, or with the stream.
type deadline struct {
	ctx    context.Context
	cancel context.CancelFunc
	at     time.Duration // since the stream began
	refs   atomic.Int64
}

const (
	// deadlineGrain is how far deadlines are moved forward to be shared; those
	// nearer than deadlineExact are not.
	deadlineGrain = 16 * time.Millisecond
	deadlineExact = 500 * time.Millisecond
)

// deadline returns a context that ends at the time given or up to deadlineGrain
// before it. The caller releases it.
func (r *reader) deadline(at time.Time) *deadline {
	d := at.Sub(r.st.began)
	if time.Until(at) > deadlineExact {
		d = d.Truncate(deadlineGrain)
	}
	if r.last == nil || r.last.at != d {
		r.last.release()
		ctx, cancel := context.WithDeadline(r.st.stream.Context(), r.st.began.Add(d))
		r.last = &deadline{ctx: ctx, cancel: cancel, at: d}
		r.last.refs.Store(1)
	}
	r.last.refs.Add(1)
	return r.last
}

func (d *deadline) release() {
	if d != nil && d.refs.Add(-1) == 0 {
		d.cancel()
	}
}
