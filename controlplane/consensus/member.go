package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/raftslog"
)

// Member is one running member of the control plane's Raft group. Its methods
// are safe for concurrent use.
//
// Goroutines: watch (owner of the leadership that Leadership shows, and of
// restarts of raft), one per pending proposal, and raft's own. Close ends them
// all.
type Member struct {
	cfg       Config
	logger    *slog.Logger
	raftLog   *raftslog.Logger
	store     *store
	snapshots *snapshots
	transport *transport
	network   io.Closer

	raft atomic.Pointer[raft.Raft] // replaced by watch only

	notify   chan bool             // raft's leadership, drained by watch for as long as raft runs
	observed chan raft.Observation // hints that the known leader changed
	conflict chan struct{}         // an installed snapshot contradicts the log
	barriers chan barrierResult    // barriers that watch asked for

	leadership leadershipCell

	mu      sync.Mutex // guards closing and pending
	closing bool
	pending int
	drained chan struct{} // made by Close, closed when pending falls to 0

	abandoned chan struct{} // closed when proposals are no longer waited for
	stopWatch chan struct{}
	watching  sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Result is what became of a proposal.
type Result struct {
	// Index is where the command stands in the log.
	Index uint64
	// Value is what the state machine returned for it.
	Value any
}

// Open starts the member. It returns once raft runs, which is before there is a
// leader. Errors wrap ErrLocked, ErrCorrupt or ErrWrongDirectory where these
// apply; then the directory was not changed. The stream is closed when Open
// fails.
func Open(cfg Config) (*Member, error) {
	m, err := open(cfg)
	if err != nil {
		err = fmt.Errorf("open control member: %w", err)
		if cfg.Stream != nil {
			_ = cfg.Stream.Close()
		}
		return nil, err
	}
	return m, nil
}

func open(cfg Config) (*Member, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	m := &Member{
		cfg:       cfg,
		logger:    cfg.Logger.With("component", "consensus", "member", cfg.ID),
		notify:    make(chan bool, 1),
		observed:  make(chan raft.Observation, 16), // hints only: raft drops what does not fit
		conflict:  make(chan struct{}, 1),
		barriers:  make(chan barrierResult, 1),
		abandoned: make(chan struct{}),
		stopWatch: make(chan struct{}),
	}
	m.raftLog = raftslog.New(m.logger)
	m.leadership.init()
	if err := m.openStorage(); err != nil {
		return nil, err
	}
	m.transport, m.network = newTransport(&cfg, m.raftLog)
	if err := m.startRaft(); err != nil {
		m.store.release()
		return nil, errors.Join(err, m.network.Close(), m.store.close())
	}
	m.watching.Add(1)
	go m.watch()
	return m, nil
}

func (m *Member) raftConfig() *raft.Config {
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(m.cfg.ID)
	cfg.HeartbeatTimeout = m.cfg.HeartbeatTimeout
	cfg.ElectionTimeout = m.cfg.HeartbeatTimeout
	cfg.LeaderLeaseTimeout = m.cfg.HeartbeatTimeout
	cfg.CommitTimeout = commitTimeout
	cfg.MaxAppendEntries = maxAppendEntries
	cfg.SnapshotInterval = snapshotInterval
	cfg.SnapshotThreshold = m.cfg.SnapshotThreshold
	cfg.TrailingLogs = m.cfg.SnapshotThreshold
	cfg.ShutdownOnRemove = false
	cfg.NoLegacyTelemetry = true
	cfg.NotifyCh = m.notify
	cfg.Logger = m.raftLog
	return cfg
}

// startRaft starts an instance of raft over the open storage.
func (m *Member) startRaft() error {
	cfg := m.raftConfig()
	alone := len(m.cfg.Peers) == 1
	if alone {
		// Lowering the timeout of a running raft makes it look at once
		// whether there is a leader: a member that is alone then elects
		// itself, and need not wake often ever after.
		cfg.HeartbeatTimeout *= 2
		cfg.ElectionTimeout = cfg.HeartbeatTimeout
	}
	instance, err := raft.NewRaft(cfg, machine{m.cfg.Machine}, m.store, m.store, m.snapshots, m.transport)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	instance.RegisterObserver(raft.NewObserver(m.observed, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	}))
	m.raft.Store(instance)
	if alone {
		reload := instance.ReloadableConfig()
		reload.HeartbeatTimeout = m.cfg.HeartbeatTimeout
		reload.ElectionTimeout = m.cfg.HeartbeatTimeout
		if err := instance.ReloadConfig(reload); err != nil {
			return errors.Join(fmt.Errorf("start raft: %w", err), instance.Shutdown().Error())
		}
	}
	return nil
}

// Propose appends a command to the log and waits until it is committed and
// applied here. Errors: ErrNotLeader, ErrOverloaded, ErrTooLarge, ErrClosed or
// the context's own when nothing was proposed, else ErrOutcomeUnknown. The
// caller must not modify the command any more.
func (m *Member) Propose(ctx context.Context, command []byte) (Result, error) {
	if len(command) > MaxCommandBytes {
		return Result{}, fmt.Errorf("propose: %w: %d bytes", ErrTooLarge, len(command))
	}
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("propose: %w", err)
	}
	var result Result
	err := m.await(ctx, func(instance *raft.Raft) error {
		future := instance.Apply(command, enqueueTimeout)
		if err := future.Error(); err != nil {
			return err
		}
		result = Result{Index: future.Index(), Value: future.Response()}
		return nil
	})
	if err != nil {
		return Result{}, fmt.Errorf("propose: %w", err)
	}
	return result, nil
}

// Barrier waits until everything committed before is applied here. Errors are
// those of Propose.
func (m *Member) Barrier(ctx context.Context) error {
	err := m.await(ctx, func(instance *raft.Raft) error { return instance.Barrier(enqueueTimeout).Error() })
	if err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}

// await runs a call that waits for a future of raft, on a goroutine of its own
// that Close waits for. What f writes is visible to the caller only when await
// returns nil.
func (m *Member) await(ctx context.Context, f func(*raft.Raft) error) error {
	instance := m.raft.Load()
	if instance.State() != raft.Leader {
		if m.isClosing() {
			return ErrClosed
		}
		return m.notLeader()
	}
	if err := m.enter(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer m.leave()
		done <- f(instance)
	}()
	select {
	case err := <-done:
		return m.translate(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
	case <-m.abandoned:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, ErrClosed)
	}
}

func (m *Member) enter() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closing:
		return ErrClosed
	case m.pending >= maxPending:
		return ErrOverloaded
	}
	m.pending++
	return nil
}

func (m *Member) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending--
	if m.pending == 0 && m.drained != nil {
		close(m.drained)
		m.drained = nil
	}
}

func (m *Member) isClosing() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closing
}

// translate turns raft's errors into those of this package.
func (m *Member) translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return m.notLeader()
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrOverloaded
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, ErrClosed)
	default:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
}

func (m *Member) notLeader() error {
	_, id := m.raft.Load().LeaderWithID()
	if string(id) == m.cfg.ID {
		id = ""
	}
	return &NotLeaderError{ID: string(id), Address: m.cfg.Peers[string(id)]}
}

// Snapshot writes the state to a snapshot now and shortens the log. There being
// nothing new to write is no error.
func (m *Member) Snapshot() error {
	if m.isClosing() {
		return fmt.Errorf("snapshot: %w", ErrClosed)
	}
	err := m.raft.Load().Snapshot().Error()
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// Close stops the member: it lets pending proposals finish, hands leadership to
// another member where there is one, and stops raft. Every proposal is answered
// and every goroutine has ended when it returns; calling it again returns the
// same. It waits for a disk that does not answer.
func (m *Member) Close() error {
	m.closeOnce.Do(func() { m.closeErr = m.close() })
	return m.closeErr
}

func (m *Member) close() error {
	drained := m.refuse()
	patience := 2 * m.cfg.HeartbeatTimeout
	if !waitFor(drained, patience) {
		m.logger.Warn("control member closes with proposals unanswered")
	}
	m.handOver()
	close(m.abandoned)
	m.store.release()
	close(m.stopWatch)
	m.watching.Wait()
	// Raft forgets to answer what is committed and not yet applied when it
	// shuts down, so what is still pending gets the time to finish. Only a
	// state machine that hangs can use it up.
	waitFor(drained, patience+enqueueTimeout)
	// watch is gone, so nothing replaces raft or reads what it notifies any
	// more; raft does not wait for a reader once it shuts down. It does wait
	// for its calls to other members, which end with the network.
	stopped := m.raft.Load().Shutdown()
	err := m.network.Close()
	return errors.Join(stopped.Error(), err, m.store.close())
}

// refuse ends the taking of proposals. The channel is closed once none is
// pending: a leader with a quorum commits them, one without steps down within
// its lease.
func (m *Member) refuse() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closing = true
	drained := make(chan struct{})
	if m.pending == 0 {
		close(drained)
	} else {
		m.drained = drained
	}
	return drained
}

// handOver transfers leadership to another member, as far as there is one. Raft
// bounds it by the election timeout.
func (m *Member) handOver() {
	instance := m.raft.Load()
	if len(m.cfg.Peers) == 1 || instance.State() != raft.Leader {
		return
	}
	if err := instance.LeadershipTransfer().Error(); err != nil {
		m.logger.Debug("control leadership was not handed over", "error", err)
	}
}

func waitFor(done <-chan struct{}, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// Status describes a member at one moment.
type Status struct {
	// State is raft's: follower, candidate, leader or shutdown.
	State        string
	Term         uint64
	LastIndex    uint64 // newest entry in the log
	CommitIndex  uint64
	AppliedIndex uint64
	// StorageError is why the store cannot write, or nil.
	StorageError error
}

// Status returns what the member is doing.
func (m *Member) Status() Status {
	instance := m.raft.Load()
	return Status{
		State:        strings.ToLower(instance.State().String()),
		Term:         instance.CurrentTerm(),
		LastIndex:    instance.LastIndex(),
		CommitIndex:  instance.CommitIndex(),
		AppliedIndex: instance.AppliedIndex(),
		StorageError: m.store.err(),
	}
}
