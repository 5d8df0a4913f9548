package member

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// cluster is three control members in this process over loopback TCP.
type cluster struct {
	t       *testing.T
	peers   map[string]string
	dirs    map[string]string
	streams map[string]*tcpStream

	mu      sync.Mutex
	members map[string]*Server
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, peers: map[string]string{}, dirs: map[string]string{}, streams: map[string]*tcpStream{}, members: map[string]*Server{}}
	for _, id := range []string{"c1", "c2", "c3"} {
		c.peers[id] = c.listen(id, "127.0.0.1:0")
		c.dirs[id] = t.TempDir()
	}
	for id := range c.peers {
		c.start(id)
	}
	return c
}

func (c *cluster) listen(id, address string) string {
	c.t.Helper()
	listener, err := net.Listen("tcp", address)
	require.NoError(c.t, err)
	c.streams[id] = &tcpStream{Listener: listener}
	return listener.Addr().String()
}

func (c *cluster) start(id string) {
	c.t.Helper()
	s := mustOpen(c.t, Config{
		ID: id, DataDir: c.dirs[id], Peers: c.peers, Stream: c.streams[id], BootstrapExpect: 3,
		Logger: slog.New(slog.DiscardHandler), HeartbeatTimeout: 800 * time.Millisecond,
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[id] = s
}

func (c *cluster) running() []*Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*Server
	for _, s := range c.members {
		all = append(all, s)
	}
	return all
}

func (c *cluster) controls() []rpc.ControlPlane {
	var all []rpc.ControlPlane
	for _, s := range c.running() {
		all = append(all, s)
	}
	return all
}

func (c *cluster) leader() *Server {
	c.t.Helper()
	var leader *Server
	require.Eventually(c.t, func() bool {
		for _, s := range c.running() {
			if s.Status().Leading {
				leader = s
				return true
			}
		}
		return false
	}, patience, time.Millisecond)
	return leader
}

// kill ends a member that cannot say good-bye to the others.
func (c *cluster) kill(id string) {
	c.t.Helper()
	c.mu.Lock()
	s := c.members[id]
	delete(c.members, id)
	c.mu.Unlock()
	c.streams[id].cutOff()
	require.NoError(c.t, s.Close())
}

// agree waits until all members hold the same catalog at or past an index.
func (c *cluster) agree(index uint64) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		hashes := map[[32]byte]bool{}
		for _, s := range c.running() {
			state := s.catalog.State()
			if state.Index < index {
				return false
			}
			hash, err := state.Hash()
			require.NoError(c.t, err)
			hashes[hash] = true
		}
		return len(hashes) == 1
	}, patience, 5*time.Millisecond)
}

// Goal: with three data nodes in session, the control leader dies. Another takes
// over, the catalogs agree, sessions come back, assignments keep their versions
// and the table never goes back or forgets its leaders.
func TestClusterLosesItsLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	nodes := []*dataNode{newDataNode("d1"), newDataNode("d2"), newDataNode("d3")}
	for _, node := range nodes {
		serving.Go(func() { node.serve(ctx, c.controls) })
	}
	defer serving.Wait()
	defer cancel()

	var old *Server
	var table *rpc.Table
	require.Eventually(t, func() bool {
		old = c.leader()
		var err error
		table, err = old.Table(ctx, 0)
		return err == nil && allLed(table) && old.Status().Groups.Formed == catalog.Groups && c.othersPointAt(old)
	}, patience, 5*time.Millisecond)
	before := old.catalog.State()

	c.kill(old.cfg.ID)
	var successor *Server
	var next *rpc.Table
	require.Eventually(t, func() bool {
		successor = c.leader()
		var err error
		next, err = successor.Table(testContext(t), table.Version)
		return err == nil
	}, patience, 5*time.Millisecond)
	require.Greater(t, next.Version, table.Version)
	require.Equal(t, catalog.Groups, led(next), "a table that replaces another knows who leads")
	require.Eventually(t, func() bool {
		for _, node := range successor.Status().Nodes {
			if node.Replicas > 0 && node.Liveness != "alive" {
				return false
			}
		}
		return true
	}, patience, time.Millisecond)
	for id, node := range before.Nodes {
		require.Equal(t, node.Assigned, successor.catalog.State().Nodes[id].Assigned, "assignments keep their versions")
	}

	c.listen(old.cfg.ID, c.peers[old.cfg.ID])
	c.start(old.cfg.ID)
	require.Eventually(t, func() bool { return newDataNode("d4").call(testContext(t), c.leader()) == nil }, patience, 10*time.Millisecond)
	c.agree(before.Index + 1)
}

// othersPointAt reports whether all other members send callers to the leader.
func (c *cluster) othersPointAt(leader *Server) bool {
	for _, s := range c.running() {
		if s == leader {
			continue
		}
		_, err := s.Table(testContext(c.t), 0)
		var hint *rpc.NotLeaderError
		if !errors.As(err, &hint) || !errors.Is(err, rpc.ErrUnavailable) ||
			hint.Leader != leader.cfg.ID || hint.Address != c.peers[leader.cfg.ID] {
			return false
		}
		err = newDataNode("d9").call(testContext(c.t), s)
		if !errors.As(err, &hint) || s.Status().Leading || s.Ready() != nil {
			return false
		}
	}
	return true
}

// Without a quorum nothing is registered, and what was going on ends.
func TestClusterWithoutQuorum(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var leader *Server
	require.Eventually(t, func() bool {
		leader = c.leader()
		_, err := leader.Table(testContext(t), 0)
		return err == nil
	}, patience, 5*time.Millisecond)
	for id := range c.peers {
		if id != leader.cfg.ID {
			c.kill(id)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// It still leads as far as it knows, and must not speak from memory. A heartbeat
	// and an append of each of the others may have been answered before the kill:
	// each such answer confirms one call.
	var err error
	for underWay := 2 * (len(c.peers) - 1); err == nil && underWay >= 0; underWay-- {
		_, err = leader.Overview(ctx)
	}
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.ErrorIs(t, leader.Undrain(ctx, "d9"), rpc.ErrUnavailable)
	require.ErrorIs(t, newDataNode("d1").call(ctx, leader), rpc.ErrUnavailable)
	require.Eventually(t, func() bool { return !leader.Status().Leading }, patience, time.Millisecond)
	_, err = leader.Table(ctx, 0)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.ErrorIs(t, leader.Ready(), rpc.ErrUnavailable)
}
