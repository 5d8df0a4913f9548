package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"google.golang.org/grpc"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// silenceTicks is how often a stream is looked at within Options.Silence. Looks are
// counted, not time: after this process was stopped itself it hears first what came
// meanwhile.
const silenceTicks = 7

// run keeps a stream up while it is wanted, until ctx ends.
func (f *follower) run(ctx context.Context, conn grpc.ClientConnInterface) {
	wait := retryWait{min: f.opts.BackoffMin, max: f.opts.BackoffMax}
	limit := min(f.opts.ConnectWait, f.opts.HandshakeTimeout)
	down := false
	for f.awaitWanted(ctx) {
		stream, err := dialStream(ctx, conn, followMethod, limit)
		if err != nil {
			err = lossOf(ctx, err)
			f.endAll(err, err)
			limit = f.opts.HandshakeTimeout // nobody waits for it
			if !down && ctx.Err() == nil {
				down = true
				f.log.Warn("no follow stream", slog.Any("error", err))
			}
		} else {
			if down {
				down = false
				f.log.Info("follow stream is back")
			}
			began := time.Now()
			err = lossOf(ctx, f.serve(stream))
			f.endAll(err, nil)
			if time.Since(began) > f.opts.BackoffMax {
				wait.reset()
			}
			limit = min(f.opts.ConnectWait, f.opts.HandshakeTimeout)
			if ctx.Err() == nil {
				f.log.Warn("follow stream lost", slog.Any("error", err))
			}
		}
		sleep(ctx, wait.next())
	}
	f.endAll(errStopped, errStopped)
}

// awaitWanted waits until somebody wants a stream. It returns false when ctx ends.
func (f *follower) awaitWanted(ctx context.Context) bool {
	for ctx.Err() == nil {
		if f.takeWanted() {
			return true
		}
		select {
		case <-f.wakeRun:
		case <-ctx.Done():
		}
	}
	return false
}

// lossOf is what the end of a stream means to those who subscribed.
func lossOf(ctx context.Context, cause error) error {
	switch {
	case ctx.Err() != nil:
		return errStopped
	case errors.Is(cause, errDrained):
		return fmt.Errorf("%w: %w", rpc.ErrClosed, cause)
	}
	return fmt.Errorf("no stream to the data node: %w: %w", rpc.ErrUnavailable, cause)
}

// serve carries subscriptions until the stream ends or is silent, and returns
// why it did.
func (f *follower) serve(stream *clientStream) error {
	defer stream.cancel()
	f.up(stream.window)
	over, sent := make(chan struct{}), make(chan struct{})
	var cause error
	go func() {
		defer close(over)
		cause = f.receive(stream)
		stream.cancel()
	}()
	go func() {
		defer close(sent)
		f.send(stream, over)
	}()
	silent := f.watch(over)
	stream.cancel()
	<-over
	<-sent
	if silent {
		return errSilent
	}
	return cause
}

// watch returns when the stream is over, or true when it is silent for too long.
func (f *follower) watch(over <-chan struct{}) (silent bool) {
	tick := time.NewTicker(f.opts.Silence / silenceTicks)
	defer tick.Stop()
	for quiet := 0; quiet < silenceTicks; {
		select {
		case <-tick.C:
			if quiet++; f.heard.Swap(false) {
				quiet = 0
			}
		case <-over:
			return false
		}
	}
	return true
}

// send sends what is queued until the stream ends.
func (f *follower) send(stream *clientStream, over <-chan struct{}) {
	for {
		runtime.Gosched() // those who are about to subscribe get to share the frame
		frame := f.next()
		if frame == nil {
			select {
			case <-f.wakeSend:
				continue
			case <-over:
				return
			}
		}
		if err := stream.SendMsg(&outFrame{buf: frame.buf}); err != nil {
			return // receive gets the reason
		}
	}
}

// receive hands out what the server says until the stream ends, and returns why
// it did.
func (f *follower) receive(stream *clientStream) error {
	var (
		in     inFrame
		events []event
	)
	defer in.release()
	for {
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		f.heard.Store(true)
		var draining bool
		var err error
		if events, draining, err = decodeNews(in.bytes, events[:0]); err == nil {
			err = f.deliver(events)
		}
		clear(events)
		switch {
		case err != nil:
			return err
		case draining:
			return errDrained
		}
	}
}
