package group

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/feed"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Bounds of one group. Together with Budget they bound what waiting writes can
// hold in memory.
const (
	// maxQueuedProposals is how many writes may wait; one more is refused with
	// rpc.ErrOverloaded.
	maxQueuedProposals = 1024
	// maxEntryOps and maxEntryBytes bound what is packed into one Raft entry. A
	// single write larger than maxEntryBytes travels alone.
	maxEntryOps   = 256
	maxEntryBytes = 1 << 20
)

// Timing holds what governs elections and idle traffic; see DESIGN.md for how
// the defaults were chosen.
type Timing struct {
	// Heartbeat is how long a follower waits for its leader before it asks for
	// votes; the leader's lease is equally long.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes.
	Election time.Duration
	// Commit is how long an idle leader waits before it appends nothing, which
	// tells followers what they lack. Heartbeats tell the commit index before.
	Commit time.Duration
}

// DefaultTiming suits 256 groups per node.
func DefaultTiming() Timing {
	return Timing{Heartbeat: 2 * time.Second, Election: 2 * time.Second, Commit: 10 * time.Second}
}

// Transport is what a group needs of its node's Raft transport.
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
	// Campaign makes the local instance stand for election at once.
	Campaign()
}

// Options are what a group is opened with. DB, Budget and Cache are shared by
// all groups of the node and outlive them.
type Options struct {
	Group  rpc.Group
	NodeID string
	DB     *pebble.DB
	// State configures the state machine. Its hooks are called after the
	// group's own.
	State state.Options
	// NewTransport returns a fresh view of the node's transport for this
	// group; it is called at every start of the Raft instance, which closes
	// the view when it stops.
	NewTransport func() Transport
	// Healthy is asked before every proposal; an error refuses it.
	Healthy func() error
	// Budget bounds the bytes waiting in all groups of the node.
	Budget *Budget
	Timing Timing
	Logger *slog.Logger
	// RaftLogger is shared by the Raft instances of the node.
	RaftLogger hclog.Logger
	// Subscriptions bounds those of all groups of the node. Default:
	// feed.MaxSubscriptions for this group alone.
	Subscriptions *feed.Quota
	// Changed, when not nil, is called after leadership may have changed. It
	// must not block.
	Changed func(rpc.Group)
	// Measure, when not nil, is told what the replica does.
	Measure Measure
	// Tracer, when not nil, records the stages of appends whose caller's span is
	// sampled.
	Tracer trace.Tracer
}

// Budget is a bound on bytes shared by all groups of a node.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

func (b *Budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *Budget) give(n int64) { b.used.Add(-n) }
