// Package node is a data node: the storage, the Raft transport and the groups
// placed on it. It follows the assignment the control plane gives it and
// serves rpc.Node, rpc.Feed and rpc.Inspector. DESIGN.md has the details.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/archiver"
	"github.com/fastpaca/fastpaca/dataplane/feed"
	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/raftslog"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
	"github.com/fastpaca/fastpaca/dataplane/storage"
	"github.com/fastpaca/fastpaca/dataplane/transport"
)

// heartbeatGather is how long heartbeats of groups, which beat together, wait to
// be written together.
const heartbeatGather = 2 * time.Millisecond

// openFanOut is how many groups are opened or closed at a time.
const openFanOut = 16

// Node is a running data node.
//
// Goroutines: runSession (owner of the assignment and of which groups are
// open), runReconcile (drives the groups led here), runFailover (replaces lost
// leaders), runHeartbeats, runApply, runRoom (watches for a full disk), and those of the archiver, the groups, the transport and the
// storage. Close stops the archiver first and then the others in that order.
type Node struct {
	conf    Config
	log     *slog.Logger
	raftLog *raftslog.Logger
	engine  *storage.Engine
	mux     *transport.Mux
	cache   *state.Cache
	budget  *group.Budget
	// subscriptions bounds those of all groups.
	subscriptions *feed.Quota
	hashing       chan struct{} // a token for each StateHash under way
	exporting     chan struct{} // a token for each Export under way

	archiver *archiver.Archiver // nil without an archive

	// groups holds the open replicas by number. Written by runSession only.
	groups [rpc.Groups]atomic.Pointer[group.Group]
	// assigned is the assignment received in this session; nil before the
	// first, so that a restarted node hears again what it may not have finished.
	assigned atomic.Pointer[controlrpc.Assignment]
	// floor is the newest assignment ever followed. Owned by runSession.
	floor uint64
	disk  disk

	draining atomic.Bool
	done     chan struct{} // closed by Close
	changed  chan struct{} // capacity 1: a leadership change asks for an early report
	cancel   context.CancelFunc
	work     sync.WaitGroup // runSession, runReconcile, runFailover, runApply, runRoom
	once     sync.Once
	err      error
}

// Open opens the node's storage, starts the groups of the last assignment it
// had, and begins its session with the control plane. A control plane that
// cannot be reached does not keep a node from serving what it has.
func Open(conf Config) (*Node, error) {
	if err := conf.Validate(); err != nil {
		return nil, fmt.Errorf("data node: %w", err)
	}
	log := conf.Logger.With("component", "data", "node", conf.ID)
	engine, err := storage.Open(storage.Options{Dir: conf.Dir, NodeID: conf.ID, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("data node: %w", err)
	}
	var n *Node
	mux, err := transport.New(transport.Config{
		NodeID: conf.ID, Dial: conf.Dial, Logger: log, TakeOver: func() error { return n.takeOver() }, // of groups, which n opens
		Timeouts: transport.Timeouts{
			Gather: heartbeatGather, Heartbeat: conf.Timing.Heartbeat, Vote: conf.Timing.Election,
		},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data node: %w", err), engine.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	n = &Node{
		conf: conf, log: log, raftLog: raftslog.New(log), engine: engine, mux: mux,
		cache:         state.NewCache(stateCacheBytes),
		budget:        group.NewBudget(conf.QueueBytes),
		subscriptions: feed.NewQuota(feed.MaxSubscriptions),
		hashing:       make(chan struct{}, maxStateHashes),
		exporting:     make(chan struct{}, maxExports),
		changed:       make(chan struct{}, 1),
		done:          make(chan struct{}),
		cancel:        cancel,
	}
	err = n.makeArchiver()
	var last *controlrpc.Assignment
	if err == nil {
		last, err = n.loadAssignment()
	}
	if own := engine.Identity().ClusterID; err == nil && own != "" {
		err = n.joined(own)
	}
	if err == nil && last != nil {
		n.floor = last.Version
		err = n.converge(last)
	}
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("data node: %w", err), n.closeGroups(), mux.Close(), engine.Close())
	}
	if n.archiver != nil {
		n.archiver.Start()
	}
	n.work.Go(func() { n.runSession(ctx) })
	n.work.Go(func() { n.runReconcile(ctx) })
	n.work.Go(func() { n.runFailover(ctx) })
	n.work.Go(func() { n.runHeartbeats(ctx) })
	n.work.Go(func() { n.runApply(ctx) })
	n.work.Go(func() { n.runRoom(ctx) })
	return n, nil
}

// stateCacheBytes bounds the hot conversation records of all groups.
const stateCacheBytes = 32 << 20

func (n *Node) joined(clusterID string) error {
	if n.conf.Joined == nil {
		return nil
	}
	return n.conf.Joined(clusterID)
}

// ServeRaft takes over a connection of another node's Raft transport. Who the
// peer is was established by the caller. It returns when the connection ends.
func (n *Node) ServeRaft(conn net.Conn, lane transport.Lane, peer string) {
	n.mux.Serve(conn, lane, peer)
}

// Failed is closed when the storage has failed for good; Err then says why.
// The process must restart: a failed fsync leaves unknown what is on disk.
func (n *Node) Failed() <-chan struct{} { return n.engine.Failed() }

// Err returns the storage failure, or nil.
func (n *Node) Err() error { return n.engine.Err() }

// Close ends the session, lets queued writes finish, and stops everything.
func (n *Node) Close() error {
	n.once.Do(func() {
		close(n.done)
		if n.archiver != nil {
			n.archiver.Close()
		}
		n.cancel()
		n.work.Wait()
		n.err = errors.Join(n.closeGroups(), n.mux.Close(), n.engine.Close())
	})
	return n.err
}

func (n *Node) closeGroups() error {
	var work errgroup.Group
	work.SetLimit(openFanOut)
	for i := range n.groups {
		if g := n.groups[i].Swap(nil); g != nil {
			work.Go(g.Close)
		}
	}
	return work.Wait()
}
