package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/table"
)

// Defaults of Config.
const (
	RetryBudgetDefault = 2 * time.Second
	BackoffMinDefault  = 5 * time.Millisecond
	BackoffMaxDefault  = 200 * time.Millisecond
)

// maxHints bounds the leader hints that one request follows without a pause in
// between, so that two nodes that point at each other cannot make a busy loop.
const maxHints = 3

const (
	// supersedeGrace is how long a node that no longer leads may take to say so.
	supersedeGrace = time.Second
	// maxSuperseded bounds how often one request may lose its node that way and
	// begin its retry budget anew.
	maxSuperseded = 3
)

// Config configures a Forwarder.
type Config struct {
	// Table says where groups live. Required; the Forwarder does not close it.
	Table *table.Table
	// Connect returns a node to call under the address. It must not block on
	// the network. A node that is an io.Closer is closed when its address
	// changes, when it leaves the table, and by Close. Required.
	Connect func(id control.NodeID, address string) (rpc.Node, error)
	// RetryBudget bounds the time, counted from the start of a request, in
	// which it is tried again. The request's own context bounds each try.
	// Negative means that nothing is tried again. Defaults to
	// RetryBudgetDefault.
	RetryBudget time.Duration
	// BackoffMin and BackoffMax bound the pause between two tries; the pause
	// doubles from one to the other and is jittered. They default to
	// BackoffMinDefault and BackoffMaxDefault.
	BackoffMin time.Duration
	BackoffMax time.Duration
	// Measure, when not nil, is told what requests cost.
	Measure Measure
	// Tracer, when not nil, records requests whose caller's span is sampled.
	Tracer trace.Tracer
}

func (c *Config) withDefaults() {
	if c.RetryBudget == 0 {
		c.RetryBudget = RetryBudgetDefault
	}
	if c.BackoffMin == 0 {
		c.BackoffMin = BackoffMinDefault
	}
	if c.BackoffMax == 0 {
		c.BackoffMax = BackoffMaxDefault
	}
}

// Validate checks the configuration and joins everything that is wrong with it.
func (c *Config) Validate() error {
	var errs []error
	if c.Table == nil {
		errs = append(errs, errors.New("placement table is missing"))
	}
	if c.Connect == nil {
		errs = append(errs, errors.New("connect function is missing"))
	}
	if c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin {
		errs = append(errs, errors.New("backoff must be positive, and the largest not below the smallest"))
	}
	return errors.Join(errs...)
}

// Forwarder implements rpc.Node by calling the nodes of the placement table.
// All methods may be called from any goroutine. It starts none of its own,
// except that List asks several nodes at once and waits for them.
type Forwarder struct {
	cfg     Config
	nodes   *connections
	flights flights
}

var _ rpc.Node = (*Forwarder)(nil)

// New returns a Forwarder.
func New(cfg Config) (*Forwarder, error) {
	cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("forwarder: %w", err)
	}
	f := &Forwarder{cfg: cfg, nodes: newConnections(cfg.Connect, cfg.Table.Knows)}
	f.flights.grace, f.flights.timers = supersedeGrace, make(map[*time.Timer]struct{})
	cfg.Table.OnMove(f.flights.superseded)
	return f, nil
}

// Close closes the connections. Requests after it fail with rpc.ErrUnavailable.
func (f *Forwarder) Close() error {
	f.flights.close()
	return f.nodes.close()
}

// Put is tried again only while nothing was proposed: repeating a put of
// unknown outcome could undo a later one.
func (f *Forwarder) Put(ctx context.Context, req *rpc.PutRequest) (reply *rpc.PutReply, err error) {
	err = f.lead(ctx, req.Key.Group(), false, func(ctx context.Context, n rpc.Node) (err error) {
		reply, err = n.Put(ctx, req)
		return err
	})
	return reply, err
}

// Append proposes again after an unknown outcome when, and only when, the state
// machine can tell the second proposal from the first.
func (f *Forwarder) Append(ctx context.Context, req *rpc.AppendRequest) (reply *rpc.AppendReply, err error) {
	ctx, course := f.begin(ctx, "forward append", req.Key.Group())
	err = f.lead(ctx, req.Key.Group(), repeatable(req), func(ctx context.Context, n rpc.Node) (err error) {
		course.try()
		reply, err = n.Append(ctx, req)
		return err
	})
	f.appended(&course, reply, err)
	return reply, err
}

// Tombstone is tried again only while nothing was proposed.
func (f *Forwarder) Tombstone(ctx context.Context, key rpc.Key) error {
	return f.lead(ctx, key.Group(), false, func(ctx context.Context, n rpc.Node) error {
		return n.Tombstone(ctx, key)
	})
}

// Conversation reads a conversation at the consistency the options ask for.
func (f *Forwarder) Conversation(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) (conv *rpc.Conversation, err error) {
	ctx, course := f.begin(ctx, "forward read conversation", key.Group())
	err = f.read(ctx, key.Group(), opts.Consistency, func(ctx context.Context, n rpc.Node) (err error) {
		course.try()
		conv, err = n.Conversation(ctx, key, opts)
		return err
	})
	f.readDone(ReadConversation, opts.Consistency, &course, err)
	return conv, err
}

// Messages reads forward at the consistency the request asks for.
func (f *Forwarder) Messages(ctx context.Context, req *rpc.MessagesRequest) (page *rpc.Page, err error) {
	ctx, course := f.begin(ctx, "forward read messages", req.Key.Group())
	err = f.read(ctx, req.Key.Group(), req.Consistency, func(ctx context.Context, n rpc.Node) (err error) {
		course.try()
		page, err = n.Messages(ctx, req)
		return err
	})
	f.readDone(ReadMessages, req.Consistency, &course, err)
	return page, err
}

// Tail reads the newest messages at the consistency the request asks for.
func (f *Forwarder) Tail(ctx context.Context, req *rpc.TailRequest) (page *rpc.Page, err error) {
	ctx, course := f.begin(ctx, "forward read tail", req.Key.Group())
	err = f.read(ctx, req.Key.Group(), req.Consistency, func(ctx context.Context, n rpc.Node) (err error) {
		course.try()
		page, err = n.Tail(ctx, req)
		return err
	})
	f.readDone(ReadTail, req.Consistency, &course, err)
	return page, err
}

// repeatable reports whether the state machine recognises a second proposal of
// the append.
func repeatable(req *rpc.AppendRequest) bool {
	if req.IdempotencyKey != "" {
		return true
	}
	for i := range req.Messages {
		if req.Messages[i].ID == "" {
			return false
		}
	}
	return len(req.Messages) > 0
}
