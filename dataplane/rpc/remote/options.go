package remote

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Versions of the protocol that this program speaks.
const (
	minVersion = 1
	maxVersion = 1
)

const (
	// MaxRequestBytes bounds one gRPC message to the server: the largest append
	// that package rpc allows, its ids and digests, and what frames it. The gRPC
	// server must take messages of that size, which by default it does not.
	MaxRequestBytes = rpc.MaxAppendBytes + rpc.MaxAppendMessages*(rpc.MaxMessageIDBytes+64) + 4<<10
	// maxReplyBytes bounds one gRPC message to the client: the largest page, or
	// maxListConversations conversations with all the metadata they may have.
	maxReplyBytes = rpc.MaxPageBytes + rpc.MaxMessageBytes + 1<<20
	// maxSmallRequest is the largest request that travels with others on the
	// shared streams; a bigger one takes the stream kept for such.
	maxSmallRequest = 32 << 10
	// maxStreams bounds Options.Streams.
	maxStreams = 16
)

// Options configure a Client. Zero fields take the defaults named there.
type Options struct {
	// Streams to the node for writes. With two or more, the last one carries
	// the big requests alone, so that they hold nobody up. Default 2.
	Streams int
	// MaxQueued and MaxQueuedBytes bound what waits on one stream to be sent:
	// beyond, a write is refused with rpc.ErrOverloaded. Defaults 4,096 and
	// 16 MiB.
	MaxQueued      int
	MaxQueuedBytes int
	// ConnectWait is how long writes wait for a stream that is down, counted
	// from when it went down; then they fail with rpc.ErrUnavailable until it is
	// back. Default 1 s.
	ConnectWait time.Duration
	// HandshakeTimeout bounds one attempt to open a stream. Default 3 s.
	HandshakeTimeout time.Duration
	// DrainWait bounds how long answers are awaited from a server that is about
	// to stop. Default 10 s.
	DrainWait time.Duration
	// Silence is how long a node may say nothing before all subscriptions to it
	// end: it says something every second. Default 3.5 s.
	Silence time.Duration
	// BackoffMin and BackoffMax bound the wait between attempts to open a
	// stream: it doubles from one to the other, and half of it is random.
	// Defaults 20 ms and 1 s.
	BackoffMin, BackoffMax time.Duration
	// Logger is told when streams are lost and back. Default: nobody.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	set(&o.Streams, 2)
	set(&o.MaxQueued, 4096)
	set(&o.MaxQueuedBytes, 16<<20)
	set(&o.ConnectWait, time.Second)
	set(&o.HandshakeTimeout, 3*time.Second)
	set(&o.DrainWait, 10*time.Second)
	set(&o.Silence, 3500*time.Millisecond)
	set(&o.BackoffMin, 20*time.Millisecond)
	set(&o.BackoffMax, time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Streams < 1 || o.Streams > maxStreams {
		errs = append(errs, fmt.Errorf("streams must be 1 to %d", maxStreams))
	}
	if o.MaxQueued < 1 || o.MaxQueuedBytes < 1 {
		errs = append(errs, errors.New("the bounds of the queue must be positive"))
	}
	if o.Silence < silenceTicks {
		errs = append(errs, errors.New("the silence must be positive"))
	}
	if o.ConnectWait < 0 || o.HandshakeTimeout < 0 || o.DrainWait < 0 {
		errs = append(errs, errors.New("timeouts must not be negative"))
	}
	if o.BackoffMin < 0 || o.BackoffMax < o.BackoffMin {
		errs = append(errs, errors.New("the backoff must rise"))
	}
	return errors.Join(errs...)
}

// ServerOptions configure a Server. Zero fields take the defaults named there.
type ServerOptions struct {
	// MaxInFlight and MaxInFlightBytes bound the writes that are worked on at
	// once for one stream; beyond, the server stops reading it, so that the
	// client's queue fills and refuses. One request is always taken, whatever
	// its size. Defaults 4,096 and 32 MiB.
	MaxInFlight      int
	MaxInFlightBytes int64
	// MaxTotalBytes bounds the bytes of all writes worked on at once; beyond, a
	// write is answered rpc.ErrOverloaded. Default 512 MiB.
	MaxTotalBytes int64
	// MaxReads bounds the reads worked on at once; beyond, a read is answered
	// rpc.ErrOverloaded. Default 1,024.
	MaxReads int
	// MaxSubscriptions bounds those of one client; beyond, one is answered
	// rpc.ErrOverloaded. Default 65,536.
	MaxSubscriptions int
	// MaxQueuedNews bounds the bytes of news that wait for one client to read
	// them; beyond, messages are dropped and the client reads them from the log.
	// Default 4 MiB.
	MaxQueuedNews int
	// Heartbeat is how long a Follow stream may be silent. Clients give up one
	// that is silent for Options.Silence. Default 1 s.
	Heartbeat time.Duration
	// MaxTime bounds one request, whatever its own timeout. Default 2 min.
	MaxTime time.Duration
	// HandshakeTimeout bounds the wait for a new stream's first frame.
	// Default 5 s.
	HandshakeTimeout time.Duration
	// Logger is told of peers that break the protocol. Default: nobody.
	Logger *slog.Logger
}

func (o ServerOptions) withDefaults() ServerOptions {
	set(&o.MaxInFlight, 4096)
	set(&o.MaxInFlightBytes, 32<<20)
	set(&o.MaxTotalBytes, 512<<20)
	set(&o.MaxReads, 1024)
	set(&o.MaxSubscriptions, 1<<16)
	set(&o.MaxQueuedNews, 4<<20)
	set(&o.Heartbeat, time.Second)
	set(&o.MaxTime, 2*time.Minute)
	set(&o.HandshakeTimeout, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func set[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
