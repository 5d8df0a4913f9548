package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

var (
	errHandshake = errors.New("the data node did not accept the stream in time")
	errDrained   = errors.New("the data node is about to stop")
)

// streamMethod names a stream of the service.
type streamMethod struct {
	desc     *grpc.StreamDesc
	name     string
	maxFrame int // of one gRPC message to the client
}

var (
	writeMethod  = streamMethod{&pb.DataPlane_ServiceDesc.Streams[0], pb.DataPlane_Write_FullMethodName, maxReplyBytes}
	followMethod = streamMethod{&pb.DataPlane_ServiceDesc.Streams[1], pb.DataPlane_Follow_FullMethodName, maxNewsFrame}
)

// clientStream is the client's side of a stream. Only SendMsg and RecvMsg are
// used, with frames.
type clientStream struct {
	grpc.ClientStream
	window int
	cancel context.CancelFunc // ends the stream at once
}

// run keeps a stream to the node up until ctx ends.
func (l *lane) run(ctx context.Context, conn grpc.ClientConnInterface) {
	refuseAt := time.Now().Add(l.opts.ConnectWait)
	refusing, lost := false, false
	wait := retryWait{min: l.opts.BackoffMin, max: l.opts.BackoffMax}
	for ctx.Err() == nil {
		limit := l.opts.HandshakeTimeout
		if !refusing {
			limit = min(limit, time.Until(refuseAt))
		}
		stream, err := dialStream(ctx, conn, writeMethod, limit)
		if err == nil {
			if lost {
				l.log.Info("write stream is back")
			}
			err = l.serve(stream)
			refuseAt, refusing = time.Now().Add(l.opts.ConnectWait), false
			wait.reset()
			lost = ctx.Err() == nil
			if lost {
				l.log.Warn("write stream lost", slog.Any("error", err))
			}
		}
		if !refusing && !time.Now().Before(refuseAt) {
			refusing = true
			l.refuse(fmt.Errorf("no stream to the data node: %w: %w", rpc.ErrUnavailable, err))
			if !lost {
				lost = true
				l.log.Warn("no write stream", slog.Any("error", err))
			}
		}
		pause := wait.next()
		if !refusing {
			pause = min(pause, time.Until(refuseAt))
		}
		sleep(ctx, pause)
	}
	l.refuse(fmt.Errorf("client of the data node: %w", rpc.ErrClosed))
}

// dialStream opens a stream and shakes hands, within limit.
func dialStream(ctx context.Context, conn grpc.ClientConnInterface, method streamMethod, limit time.Duration) (*clientStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(limit, cancel)
	stream, err := openStream(ctx, conn, method)
	switch late := !timer.Stop(); {
	case late && err == nil:
		err = errHandshake
	case late:
		err = fmt.Errorf("%w: %w", errHandshake, err)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	stream.cancel = cancel
	return stream, nil
}

func openStream(ctx context.Context, conn grpc.ClientConnInterface, method streamMethod) (*clientStream, error) {
	// Waiting for a connection here uses it as soon as it is there.
	stream, err := conn.NewStream(ctx, method.desc, method.name,
		grpc.CallContentSubtype(codecName), grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(method.maxFrame))
	if err != nil {
		return nil, err
	}
	// The first frames of all streams are encoded alike.
	hello, err := proto.Marshal(&pb.RequestFrame{Hello: &pb.Hello{MinVersion: minVersion, MaxVersion: maxVersion}})
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&outFrame{buf: &hello}); err != nil {
		return nil, streamError(stream, err)
	}
	in := inFrame{keep: true}
	if err := stream.RecvMsg(&in); err != nil {
		return nil, err
	}
	var first pb.ReplyFrame
	if err := proto.Unmarshal(in.bytes, &first); err != nil {
		return nil, fmt.Errorf("%w: welcome: %w", errMalformed, err)
	}
	w := first.GetWelcome()
	switch {
	case first.GetDraining():
		return nil, errDrained
	case w.GetVersion() < minVersion || w.GetVersion() > maxVersion || w.GetMaxInFlight() < 1:
		return nil, fmt.Errorf("%w: welcome of version %d with a window of %d", errMalformed, w.GetVersion(), w.GetMaxInFlight())
	}
	return &clientStream{ClientStream: stream, window: int(w.GetMaxInFlight())}, nil
}

// streamError is why sending failed: gRPC tells it to the receiver only.
func streamError(stream grpc.ClientStream, err error) error {
	if cause := stream.RecvMsg(&inFrame{keep: true}); cause != nil {
		return cause
	}
	return err
}

// serve sends what is queued until the stream ends, and returns why it did.
func (l *lane) serve(stream *clientStream) error {
	defer stream.cancel()
	l.up(stream.window)
	over := make(chan struct{})
	var cause error
	go func() {
		defer close(over)
		cause = l.receive(stream)
	}()
	for {
		// Those who are about to call get to share the frame. This is where
		// batches come from, and it costs nothing when nobody is.
		runtime.Gosched()
		f := l.next(over)
		if f == nil {
			break
		}
		if err := stream.SendMsg(&outFrame{buf: f.buf}); err != nil {
			break // receive gets the reason
		}
	}
	l.finish(stream, over)
	<-over
	l.down(cause)
	return cause
}

// finish half closes the stream when the server drains, and waits for the last
// answers; else the stream is over already or ends here.
func (l *lane) finish(stream *clientStream, over <-chan struct{}) {
	l.mu.Lock()
	draining := l.window == 0
	l.mu.Unlock()
	if draining && stream.CloseSend() == nil {
		timer := time.NewTimer(l.opts.DrainWait)
		defer timer.Stop()
		select {
		case <-over:
		case <-timer.C:
		}
	}
	stream.cancel()
}

// receive hands out replies until the stream ends, and returns why it did.
func (l *lane) receive(stream *clientStream) error {
	var (
		in      inFrame
		replies []reply
		calls   []*call
		err     error
	)
	defer in.release()
	for {
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		var draining bool
		if replies, draining, err = decodeReplies(in.bytes, replies[:0]); err == nil {
			calls, err = l.deliver(replies, calls)
		}
		if err != nil {
			stream.cancel()
			return err
		}
		clear(replies)
		if draining {
			l.drain()
		}
	}
}

// decodeReplies appends the replies of a frame.
func decodeReplies(frame []byte, replies []reply) (_ []reply, draining bool, err error) {
	f := fields{rest: frame}
	for f.next() {
		switch f.tag {
		case frameDraining<<3 | varint:
			draining = protowire.DecodeBool(f.value)
		case frameReply<<3 | nested:
			if len(replies) == maxFrameEntries {
				return replies, draining, fmt.Errorf("%w: more than %d replies", errMalformed, maxFrameEntries)
			}
			replies = append(replies, reply{})
			if err := replies[len(replies)-1].decode(f.bytes); err != nil {
				return replies, draining, err
			}
		}
	}
	if f.bad {
		return replies, draining, errMalformed
	}
	return replies, draining, nil
}

// retryWait doubles from min to max; half of each wait is random, so that clients
// of a node that returns do not come at the same moment.
type retryWait struct{ min, max, last time.Duration }

func (w *retryWait) reset() { w.last = 0 }

func (w *retryWait) next() time.Duration {
	w.last = min(max(w.last*2, w.min), w.max)
	return w.last/2 + rand.N(w.last/2+1)
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
