package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/feed"
	"github.com/fastpaca/fastpaca/dataplane/raftlog"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Group is one replica of one Raft group.
//
// Goroutines: runProposer (owner of the Raft instance and of every proposal
// once it is queued), runWatcher (owner of the leadership state), and those of
// hashicorp/raft. Close stops all of them.
type Group struct {
	opts    Options
	log     *slog.Logger
	machine *state.Machine
	entries *raftlog.Log

	raft      atomic.Pointer[raft.Raft] // nil only while restarting
	transport atomic.Pointer[leaseTransport]
	notify    chan bool // raft's NotifyCh, always drained by runWatcher
	lease     lease

	// readyTerm is the term in which this replica leads and has applied
	// everything committed before it; 0 when it must not serve reads.
	readyTerm    atomic.Uint64
	leadingSince atomic.Int64          // when readyTerm was set, Unix nanoseconds
	startedAt    atomic.Int64          // of the Raft instance, Unix nanoseconds
	calm         *raft.Raft            // the instance whose timeouts Failover has stretched; owned by its caller
	urgedAt      time.Time             // startedAt of the instance last urged at its start; owned by Failover's caller
	failure      atomic.Pointer[error] // first storage failure; writes and reads stop
	staged       atomic.Pointer[stagedSnapshot]
	reload       sync.Mutex // held while Raft's configuration is changed for a moment
	transfer     transferState
	feed         *feed.Feed
	deferred     deferred
	proposing    atomic.Bool // the proposer waits for an entry
	flight       flight      // of that entry
	stall        stall
	born         time.Time // where the group's clock begins

	life     context.Context // ends when Close has begun
	endLife  context.CancelFunc
	visitors sync.WaitGroup // calls that Close waits for, see visit

	queueMu     sync.RWMutex // guards queueClosed, the closing of queue, and the Add of visitors
	queueClosed bool
	queue       chan *proposal
	asides      chan *aside // unbuffered

	restarts     chan chan error // requests to restart the instance in place
	wantRestart  chan struct{}   // capacity 1, set by a snapshot install that wiped the log
	stop         chan struct{}
	proposerDone chan struct{}
	watcherDone  chan struct{}
	closeOnce    sync.Once
	closeErr     error
}

// Open opens the replica's state and log and starts its Raft instance. A
// replica without any state stays passive until it is bootstrapped or a leader
// contacts it. The caller must Close it before the shared storage.
func Open(opts Options) (*Group, error) {
	g := newGroup(opts)
	machine, err := g.openState()
	if err != nil {
		return nil, fmt.Errorf("group %d: open state: %w", opts.Group, err)
	}
	entries, err := raftlog.Open(opts.DB, uint16(opts.Group), raftlog.Options{OnSync: g.logSynced})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("group %d: open log: %w", opts.Group, err), machine.Close())
	}
	g.machine, g.entries = machine, entries
	if err := g.startRaft(); err != nil {
		return nil, errors.Join(err, machine.Close())
	}
	go g.runProposer()
	go g.runWatcher()
	return g, nil
}

func newGroup(opts Options) *Group {
	g := &Group{
		opts:         opts,
		born:         time.Now(),
		log:          opts.Logger.With("group", opts.Group),
		notify:       make(chan bool, 8),
		queue:        make(chan *proposal, maxQueuedProposals),
		asides:       make(chan *aside),
		restarts:     make(chan chan error, 1), // one restart queued serves all who ask meanwhile
		wantRestart:  make(chan struct{}, 1),
		stop:         make(chan struct{}),
		proposerDone: make(chan struct{}),
		watcherDone:  make(chan struct{}),
	}
	g.stall.init()
	g.life, g.endLife = context.WithCancel(context.Background())
	return g
}

// startRaft opens a Raft instance over the replica's storage. Only Open and
// runProposer call it.
func (g *Group) startRaft() error {
	transport := g.lease.wrap(g.opts.NewTransport(), g.commitIndex)
	g.transport.Store(transport)
	r, err := raft.NewRaft(g.raftConfig(), (*fsm)(g), watchedLog{g.entries, g}, watchedLog{g.entries, g}, (*snapshots)(g), transport)
	if err != nil {
		_ = transport.Close()
		return fmt.Errorf("group %d: start raft: %w", g.opts.Group, err)
	}
	g.startedAt.Store(time.Now().UnixNano())
	if g.opts.Measure != nil {
		r.RegisterObserver(raft.NewObserver(nil, false, g.stood))
	}
	g.raft.Store(r)
	return nil
}

// stopRaft shuts the instance down and waits for its goroutines.
func (g *Group) stopRaft() error {
	r := g.raft.Swap(nil)
	if r == nil {
		return nil
	}
	g.readyTerm.Store(0)
	g.feed.End(g.notLeader())
	stopping := r.Shutdown()
	// Calls to peers end now, not at their deadlines: raft waits for them.
	err := g.transport.Load().Close()
	err = errors.Join(stopping.Error(), err)
	// The next instance delivers again what is not in the state, from the first.
	if failed := g.applyDeferred(); failed != nil && g.failed() == nil {
		err = errors.Join(err, failed)
	}
	return err
}

// restartRaft replaces a wedged instance over the same storage. State stays
// open: the new instance finds everything applied. Called by runProposer, so
// no proposal of ours is in flight.
func (g *Group) restartRaft() error {
	g.log.Warn("restarting raft instance in place")
	if err := g.stopRaft(); err != nil {
		g.log.Warn("stopping raft instance", "error", err)
	}
	return g.startRaft()
}

// Restart replaces the Raft instance over the same storage. In-flight writes
// are answered first. It is the cure for an instance that is wedged.
func (g *Group) Restart(ctx context.Context) error {
	req := make(chan error, 1)
	select {
	case g.restarts <- req:
	case <-g.stop:
		return fmt.Errorf("group %d: %w", g.opts.Group, rpc.ErrClosed)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-req:
		return err
	case <-g.stop:
		return fmt.Errorf("group %d: %w", g.opts.Group, rpc.ErrClosed)
	}
}

// Close refuses new writes, lets the queued ones finish, and stops everything
// the group started. It does not transfer leadership; see TransferLeadership.
func (g *Group) Close() error {
	g.closeOnce.Do(func() {
		g.queueMu.Lock()
		g.queueClosed = true
		close(g.queue)
		g.queueMu.Unlock()
		g.feed.Close(fmt.Errorf("group %d: %w", g.opts.Group, rpc.ErrClosed))
		g.endLife()
		g.visitors.Wait()
		// The proposer drains what is queued; without a quorum raft fails each
		// entry when its lease runs out.
		<-g.proposerDone
		close(g.stop)
		// The watcher drains NotifyCh until raft has stopped.
		err := g.stopRaft()
		g.deferred.close()
		close(g.notify)
		<-g.watcherDone
		g.closeErr = errors.Join(err, g.machine.Close())
	})
	return g.closeErr
}

// Bootstrap forms the group from this replica alone with the given voters. It
// does nothing when the replica already has any state.
func (g *Group) Bootstrap(voters []string) error {
	r := g.raft.Load()
	if r == nil {
		return fmt.Errorf("group %d: %w", g.opts.Group, rpc.ErrUnavailable)
	}
	var conf raft.Configuration
	for _, id := range voters {
		conf.Servers = append(conf.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id),
		})
	}
	err := r.BootstrapCluster(conf).Error()
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("group %d: bootstrap: %w", g.opts.Group, err)
	}
	return nil
}

// Campaign makes this replica stand for election at once instead of waiting
// for its election timeout. Meant for a sole voter at start, and for the
func (g *Group) Campaign() { g.transport.Load().Campaign() }

// fail records a storage failure. The replica stops serving: it can no longer
// vouch for what it would answer.
func (g *Group) fail(err error) {
	if g.failure.CompareAndSwap(nil, &err) {
		g.log.Error("replica stopped: storage failed", "error", err)
		g.feed.End(fmt.Errorf("group %d: %w: %w", g.opts.Group, rpc.ErrUnavailable, err))
	}
}

// Failure returns why the replica stopped, or nil.
func (g *Group) Failure() error { return g.failed() }

func (g *Group) failed() error {
	if p := g.failure.Load(); p != nil {
		return *p
	}
	return nil
}
