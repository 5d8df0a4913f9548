package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Defaults of Options.
const (
	DefaultInterval  = 5 * time.Second
	DefaultBatchRows = 5000
	DefaultTailKeep  = 1000
)

// Bounds of an archiver.
const (
	// writers is how many transactions are under way at a time.
	writers = 2
	// gatherBatches is how many batches' worth of messages may gather before a
	// tick. The longer they gather, the more of a batch is of one conversation,
	// and the fewer look-ups, conversation rows and acknowledgements it takes.
	gatherBatches = 8
	// maxBatchBytes bounds the JSON of one transaction, but for one message.
	maxBatchBytes = 8 << 20
	// maxEntries bounds the conversations known to be behind, on the whole
	// node. Beyond it they are found again by reading the groups.
	maxEntries = 128 << 10
	// maxAckMarks bounds the watermarks of one entry in a group's log: each may
	// trim a conversation, and the group applies nothing else meanwhile.
	maxAckMarks = 512
	// ackFanOut bounds the groups that one writer tells at a time.
	ackFanOut = 16
	// ackTimeout bounds one acknowledgement.
	ackTimeout = 10 * time.Second
	// scanPage is how many conversations a scan reads at a time.
	scanPage = 256
	// setAsideFor is how long a conversation that cannot be archived is left
	// alone before it is tried again.
	setAsideFor = 5 * time.Minute
	// retryMin and retryMax bound the waits after a failure.
	retryMin = 250 * time.Millisecond
	retryMax = 30 * time.Second
	// resignAfter is how long the archive cannot be written before the leases are
	// given back: much longer than a restart or a failover of Postgres takes.
	resignAfter = 30 * time.Second
	// restMin and restMax bound the rests before leases are asked for again, when
	// nothing was written since they were given back before.
	restMin = time.Minute
	restMax = 16 * time.Minute
	// releaseTimeout bounds giving back the leases at the end.
	releaseTimeout = 2 * time.Second
)

// Group is a replica as the archiver sees it; *group.Group is one.
type Group interface {
	Leading() bool
	Conversation(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) (*rpc.Conversation, error)
	Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error)
	List(ctx context.Context, prefix, after string, limit int, c rpc.Consistency) ([]rpc.Conversation, error)
	ArchiveAck(ctx context.Context, ack *state.ArchiveAck) error
}

// Store is the archive; *archive.Store is one.
type Store interface {
	Prepare(ctx context.Context, clusterID string) error
	Held(ctx context.Context, wants []archive.Want) ([]archive.Held, error)
	Write(ctx context.Context, runs []archive.Run) (heads [][32]byte, err error)
	Target() string
}

// Options are what an archiver is started with.
type Options struct {
	Node        controlrpc.NodeID
	Incarnation string
	// Cluster returns the id of the cluster, "" while it is not known.
	Cluster func() string
	Leases  controlrpc.Leases
	// Group returns the replica of a group that this node hosts, or nil.
	Group func(rpc.Group) Group
	Store Store
	// Interval is how long messages may gather before they are archived; several
	// full batches do not wait.
	Interval time.Duration
	// BatchRows bounds the messages of one transaction.
	BatchRows int
	// TailKeep is how many of the newest archived messages of a conversation
	// stay in the hot log.
	TailKeep uint64
	Logger   *slog.Logger

	resignAfter time.Duration // 0 for the constant
}

// validate reports every problem at once.
func (o *Options) validate() error {
	var errs []error
	if o.Leases == nil || o.Group == nil || o.Store == nil || o.Cluster == nil || o.Logger == nil {
		errs = append(errs, errors.New("leases, groups, store, cluster and logger are required"))
	}
	if o.Interval < 10*time.Millisecond || o.Interval > time.Hour {
		errs = append(errs, fmt.Errorf("interval %s: want 10ms to 1h", o.Interval))
	}
	if o.BatchRows < 1 || o.BatchRows > 100_000 {
		errs = append(errs, fmt.Errorf("batch of %d messages: want 1 to 100000", o.BatchRows))
	}
	return errors.Join(errs...)
}
