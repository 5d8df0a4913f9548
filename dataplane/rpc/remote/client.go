package remote

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

var (
	_ rpc.Node      = (*Client)(nil)
	_ rpc.Feed      = (*Client)(nil)
	_ rpc.Inspector = (*Client)(nil)
)

// Client is a data node on the other side of a network. It keeps the promises
// of rpc.Node: a request is copied before a method waits, and every error is
// what it was on the node. What the network adds:
//
//   - rpc.ErrUnavailable: there is no stream, or the request never left this
//     process, or a read failed on the way.
//   - rpc.ErrOutcomeUnknown: a write was sent, and its answer did not come
//     before the context or the stream ended.
//   - rpc.ErrOverloaded: also when the queue to this node is full.
//   - ErrInvalidRequest.
//
// Writes share long-lived streams, as do subscriptions; reads are one call each. Methods may be
// called from any goroutine.
type Client struct {
	opts   Options
	reads  pb.DataPlaneClient
	lanes  []*lane
	follow *follower
	turn   atomic.Uint32 // spreads small writes over their lanes
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Dial returns a client of the node behind conn, and begins to open its
// streams. Writes wait for them as Options.ConnectWait says. The connection
// stays the caller's, who closes it after the client. How long it waits between
// its attempts to connect bounds how soon a node that returns is used again,
// and its keepalive how soon a silent one is given up.
func Dial(conn grpc.ClientConnInterface, opts Options) (*Client, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("data node client: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{opts: opts, reads: pb.NewDataPlaneClient(conn), cancel: cancel}
	c.follow = newFollower(&c.opts)
	c.wg.Go(func() { c.follow.run(ctx, conn) })
	for i := range opts.Streams {
		l := newLane(&c.opts, opts.Logger.With(slog.Int("stream", i)))
		c.lanes = append(c.lanes, l)
		c.wg.Go(func() { l.run(ctx, conn) })
	}
	return c, nil
}

// Close ends the streams and waits for what Dial began. Writes that were sent
// get rpc.ErrOutcomeUnknown, others and later ones rpc.ErrClosed, as do
// subscriptions.
func (c *Client) Close() error {
	c.cancel()
	c.wg.Wait()
	return nil
}

// lane picks the lane of a request.
func (c *Client) lane(size int) *lane {
	small := len(c.lanes) - 1
	switch {
	case small == 0 || size > maxSmallRequest:
		return c.lanes[small]
	case small == 1:
		return c.lanes[0]
	}
	return c.lanes[c.turn.Add(1)%uint32(small)]
}

// write does one write of any kind.
func (c *Client) write(ctx context.Context, op string, w *write) (reply, error) {
	if err := w.validate(); err != nil {
		return reply{}, fmt.Errorf("%s: %w", op, err)
	}
	w.caller = callerOf(ctx)
	size := w.size()
	r, err := c.lane(size).do(ctx, w, size)
	switch {
	case err != nil:
		return reply{}, fmt.Errorf("%s: %w", op, err)
	case r.kind == resultError:
		return reply{}, fmt.Errorf("%s: %w", op, r.err)
	case r.kind != w.kind.result():
		return reply{}, fmt.Errorf("%s: answered by another kind of reply: %w", op, rpc.ErrOutcomeUnknown)
	}
	return r, nil
}

// Append implements rpc.Node.
func (c *Client) Append(ctx context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
	r, err := c.write(ctx, "append", &write{kind: opAppend, append: req})
	return r.append, err
}

// Put implements rpc.Node.
func (c *Client) Put(ctx context.Context, req *rpc.PutRequest) (*rpc.PutReply, error) {
	r, err := c.write(ctx, "put", &write{kind: opPut, put: req})
	return r.put, err
}

// Tombstone implements rpc.Node.
func (c *Client) Tombstone(ctx context.Context, key rpc.Key) error {
	_, err := c.write(ctx, "tombstone", &write{kind: opTombstone, key: key})
	return err
}

// Stats are the state and the counters of a client's streams.
type Stats struct {
	Streams   int // that are up
	Queued    int // writes that wait to be sent
	InFlight  int // writes sent and not answered by the node
	Frames    uint64
	Requests  uint64 // sent in those frames
	Withdrawn uint64 // given up by their callers before they were sent
	// Following: the stream of subscriptions is up. It is not before the first.
	Following     bool
	Subscriptions int // that have begun or are asked for
}

// Stats adds up the streams of the client.
func (c *Client) Stats() Stats {
	var s Stats
	for _, l := range c.lanes {
		l.addStats(&s)
	}
	c.follow.addStats(&s)
	return s
}
