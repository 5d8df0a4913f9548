package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/controlplane/rpc/remote/pb"
)

var _ rpc.ControlPlane = (*Client)(nil)

// Client is the control plane on the other side of a network. It finds the
// leader among the members, stays with it, and looks for another one when it
// is gone. What it returns is shared and must not be modified.
//
// Table is answered from the newest table that a watch has brought; so it goes
// on answering with every member down, and the table is then as old as that.
// Versions never go back. Methods may be called from any goroutine.
//
// Goroutines: watch, from the first call of Table on.
type Client struct {
	opts    Options
	members *members
	life    context.Context
	end     context.CancelFunc
	wg      sync.WaitGroup

	mu       sync.Mutex // guards what follows
	closed   bool
	watching bool
	table    *rpc.Table    // newest, or nil
	news     chan struct{} // closed and replaced when table changes
	// assigned is what the last session returned, for the node it was about.
	assigned *assigned
}

type assigned struct {
	node       rpc.NodeID
	digest     []byte
	assignment *rpc.Assignment
}

// NewClient returns a client of the control plane. It does not connect until
// the first call.
func NewClient(opts Options) (*Client, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("control plane client: %w", err)
	}
	life, end := context.WithCancel(context.Background())
	return &Client{
		opts:    opts,
		members: newMembers(opts.Addresses, opts.Dial),
		life:    life,
		end:     end,
		news:    make(chan struct{}),
	}, nil
}

// Close ends all calls with rpc.ErrClosed, waits for the watch, and closes the
// connections.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.wg.Wait()
	return c.members.close()
}

// Table implements rpc.ControlPlane. While there is no table at all it returns
// rpc.ErrUnavailable after Options.Patience.
func (c *Client) Table(ctx context.Context, after uint64) (*rpc.Table, error) {
	patience := time.NewTimer(c.opts.Patience)
	defer patience.Stop()
	for {
		table, news, err := c.newest()
		if err != nil || table != nil && table.Version > after {
			return table, err
		}
		var impatient <-chan time.Time
		if table == nil {
			impatient = patience.C
		}
		select {
		case <-news:
		case <-c.life.Done():
		case <-impatient:
			return nil, fmt.Errorf("table: no member has one: %w", rpc.ErrUnavailable)
		case <-ctx.Done():
			if table == nil {
				return nil, fmt.Errorf("table: %w: %w", rpc.ErrUnavailable, ctx.Err())
			}
			return table, nil
		}
	}
}

// newest returns the table, and what is closed when there is a newer one. It
// starts the watch.
func (c *Client) newest() (*rpc.Table, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, fmt.Errorf("control plane client: %w", rpc.ErrClosed)
	}
	if !c.watching {
		c.watching = true
		c.wg.Go(c.watch)
	}
	return c.table, c.news, nil
}

// Session implements rpc.ControlPlane. It asks one member after the other until
// the leader answers, for up to Options.Patience.
func (c *Client) Session(ctx context.Context, report *rpc.Report) (*rpc.Assignment, error) {
	req, err := reportToWire(report)
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	req.Versions = spoken()
	var assignment *rpc.Assignment
	err = c.untilAnswered(ctx, func(ctx context.Context, who member) error {
		have := c.lastAssigned(report.Node.ID)
		req.HaveDigest = have.digest
		reply, err := pb.NewControlPlaneClient(who.conn).Session(ctx, req)
		if err != nil {
			return err
		}
		got, err := readSession(reply, have)
		if err != nil {
			c.setAssigned(&assigned{node: report.Node.ID})
			return err
		}
		c.setAssigned(got)
		assignment = got.assignment
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	return assignment, nil
}

func spoken() *pb.Versions { return &pb.Versions{Min: minVersion, Max: maxVersion} }

// untilAnswered asks one member after the other until one answers or no other
// would answer otherwise, for up to Options.Patience.
func (c *Client) untilAnswered(ctx context.Context, call func(context.Context, member) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()

	patience := time.Now().Add(c.opts.Patience)
	pace := rounds{members: c.members, min: c.opts.BackoffMin, max: c.opts.BackoffMax}
	var last error
	for {
		f := c.ask(ctx, call)
		switch {
		case f == nil:
			return nil
		case c.life.Err() != nil:
			return fmt.Errorf("control plane client: %w", rpc.ErrClosed)
		case f.final:
			return f.err
		case ctx.Err() != nil:
			return ended(ctx, last)
		case !time.Now().Before(patience):
			return f.err
		}
		last = f.err
		pace.pause(ctx)
	}
}

// ask makes a call to one member. When it fails, the next one to ask is another.
func (c *Client) ask(ctx context.Context, call func(context.Context, member) error) *failure {
	who, err := c.members.target()
	if err != nil {
		return c.failed(who, failure{err: fmt.Errorf("%w: dial %s: %w", rpc.ErrUnavailable, who.address, err), broken: true})
	}
	attempt, cancel := context.WithTimeout(ctx, c.opts.AttemptTimeout)
	defer cancel()
	err = call(attempt, who)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		// The caller has had enough; that says nothing of the member.
		return &failure{err: err}
	}
	f := failureOf(err)
	f.err = fmt.Errorf("member %s: %w", who.address, f.err)
	if f.final {
		return &f
	}
	return c.failed(who, f)
}

func (c *Client) failed(who member, f failure) *failure {
	// An error of closing a connection that has failed says nothing more.
	_ = c.members.failed(who, f)
	return &f
}

// readSession returns the assignment of a reply, or the one we have if the
// member says that it is the same.
func readSession(reply *pb.SessionReply, have *assigned) (*assigned, error) {
	if len(reply.GetAssignment()) == 0 {
		if have.assignment == nil || string(reply.GetDigest()) != string(have.digest) {
			return nil, fmt.Errorf("%w: no assignment", errMalformed)
		}
		return have, nil
	}
	var p pb.Assignment
	if err := proto.Unmarshal(reply.GetAssignment(), &p); err != nil {
		return nil, fmt.Errorf("%w: assignment: %w", errMalformed, err)
	}
	assignment, err := assignmentFromWire(&p)
	if err != nil {
		return nil, err
	}
	return &assigned{node: have.node, digest: reply.GetDigest(), assignment: assignment}, nil
}

func (c *Client) lastAssigned(node rpc.NodeID) *assigned {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.assigned == nil || c.assigned.node != node {
		return &assigned{node: node}
	}
	return c.assigned
}

func (c *Client) setAssigned(a *assigned) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.assigned = a
}

// errSilent: a member did not say anything for Options.AttemptTimeout.
var errSilent = errors.New("the member is silent")
