package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/consensus"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

const (
	// reconcileInterval is how often the leader looks at everything without a
	// reason, and how long it lets a refused proposal rest.
	reconcileInterval = 500 * time.Millisecond
	// proposeTimeout bounds one proposal.
	proposeTimeout = 5 * time.Second
	// leaderPatience bounds how long a call waits for a leader to be known.
	leaderPatience = time.Second
	// sessionWait bounds how long a session call waits for another assignment.
	sessionWait = time.Second
	// sessionWaitMoving takes its place while any group moves.
	sessionWaitMoving = 200 * time.Millisecond
	// complainInterval is how often a problem that lasts is logged.
	complainInterval = 30 * time.Second
	// warmUp is how long a new leader lets pass, at most, until nodes have told
	// it who leads which group.
	warmUp = 2 * time.Second
)

// Server is a running member of the control plane. Its methods are safe for
// concurrent use.
//
// Goroutines: run (owner of the reconcile loop and of what is published), and
// those of the consensus member. Calls run on their callers' goroutines.
type Server struct {
	cfg       Config
	logger    *slog.Logger
	catalog   *catalog.Catalog
	consensus *consensus.Member

	tenure cell[*tenure]    // nil unless this member leads
	table  cell[*published] // nil unless this member leads and has a cluster

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	closeOnce sync.Once
	closeErr  error
}

var _ rpc.ControlPlane = (*Server)(nil)

// Open starts a member. It returns once it runs, which is before there is a
// leader: calls wait for one. Errors of the data directory wrap
// consensus.ErrLocked, ErrCorrupt or ErrWrongDirectory.
func Open(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		if cfg.Stream != nil {
			_ = cfg.Stream.Close()
		}
		return nil, fmt.Errorf("control plane configuration: %w", err)
	}
	s := &Server{
		cfg:     cfg.withDefaults(),
		logger:  cfg.Logger.With("component", "control", "member", cfg.ID),
		catalog: catalog.New(),
	}
	s.tenure.set(nil)
	s.table.set(nil)
	member, err := consensus.Open(*s.cfg.consensus(s.catalog))
	if err != nil {
		return nil, fmt.Errorf("start control plane: %w", err)
	}
	s.consensus = member
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Add(1)
	go s.run()
	return s, nil
}

// Close ends all calls with rpc.ErrClosed, hands leadership over where there is
// another member, and stops. Calling it again returns the same.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.cancel()
		s.running.Wait()
		s.closeErr = s.consensus.Close()
	})
	return s.closeErr
}

// run leads whenever consensus says so.
func (s *Server) run() {
	defer s.running.Done()
	for {
		leadership, changed := s.consensus.Leadership()
		if leadership.Leading {
			s.lead(leadership.Term)
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return
		}
	}
}

// lead runs one term of leadership: it reconciles and publishes whenever the
// catalog changed, a report said something new or some time has passed.
func (s *Server) lead(term uint64) {
	t := newTenure(term, s.cfg.SessionTTL, s.cfg.LeaseTTL)
	t.replaceAfter = s.cfg.ReplaceAfter
	s.tenure.set(t)
	defer func() {
		s.tenure.set(nil)
		s.table.set(nil)
		close(t.done)
	}()
	tick := time.NewTicker(reconcileInterval)
	defer tick.Stop()
	for {
		leadership, leadChanged := s.consensus.Leadership()
		if !leadership.Leading || leadership.Term != term {
			return
		}
		state, catalogChanged := s.catalog.Watch()
		kick := t.kick
		if err := s.reconcile(t, state); err != nil {
			if s.ctx.Err() != nil {
				return
			}
			t.complain(s.logger, err)
			// Let it rest; a refused proposal changes the catalog's index and
			// would else be repeated at once.
			catalogChanged, kick = nil, nil
		}
		s.publish(t)
		select {
		case <-catalogChanged:
		case <-kick:
		case <-tick.C:
		case <-leadChanged:
		case <-s.ctx.Done():
			return
		}
	}
}

// fit returns why this member must not act on its catalog, or nil.
func (s *Server) fit() error {
	if err := s.catalog.Err(); err != nil {
		return fmt.Errorf("%w: %w", rpc.ErrUnavailable, err)
	}
	if have, want := s.catalog.State().ClusterID, s.cfg.ClusterID; have != "" && want != "" && have != want {
		return fmt.Errorf("%w: this control plane is of cluster %q, configured for %q", rpc.ErrWrongCluster, have, want)
	}
	return nil
}

// leading returns the current tenure. It waits a moment for a leader to be
// known and returns a *rpc.NotLeaderError when that is not this member.
func (s *Server) leading(ctx context.Context) (*tenure, error) {
	patience := time.NewTimer(leaderPatience)
	defer patience.Stop()
	for {
		if s.ctx.Err() != nil {
			return nil, rpc.ErrClosed
		}
		if err := s.fit(); err != nil {
			return nil, err
		}
		leadership, changed := s.consensus.Leadership()
		t, tenureChanged := s.tenure.get()
		if t != nil {
			return t, nil
		}
		if leadership.LeaderID != "" && leadership.LeaderID != s.cfg.ID {
			return nil, s.notLeader()
		}
		select {
		case <-tenureChanged:
		case <-changed:
		case <-patience.C:
			return nil, s.notLeader()
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", s.notLeader(), ctx.Err())
		case <-s.ctx.Done():
		}
	}
}

func (s *Server) notLeader() error {
	leadership, _ := s.consensus.Leadership()
	if leadership.LeaderID == s.cfg.ID {
		return &rpc.NotLeaderError{}
	}
	return &rpc.NotLeaderError{Leader: leadership.LeaderID, Address: leadership.LeaderAddress}
}

// propose commits a command and returns what the catalog made of it. Its errors
// are those of package rpc.
func (s *Server) propose(ctx context.Context, command catalog.Command) (catalog.Result, error) {
	data, err := catalog.Encode(command)
	if err != nil {
		return catalog.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	reached(beforeStep, command)
	reached(amidStep, command)
	result, err := s.consensus.Propose(ctx, data)
	switch {
	case err == nil:
		reached(afterStep, command)
		return result.Value.(catalog.Result), nil
	case errors.Is(err, consensus.ErrClosed):
		return catalog.Result{}, fmt.Errorf("%w: %w", rpc.ErrClosed, err)
	case errors.Is(err, consensus.ErrNotLeader):
		return catalog.Result{}, s.notLeader()
	}
	return catalog.Result{}, fmt.Errorf("%w: %w", rpc.ErrUnavailable, err)
}
