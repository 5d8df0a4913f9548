package transport

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// ledger is a state machine that remembers every command and their order.
type ledger struct {
	mu    sync.Mutex
	state ledgerState
	gate  chan struct{} // when set, Restore waits for it
}

type ledgerState struct {
	Chain [32]byte
	Seen  map[string]int
}

func (l *ledger) Apply(entry *raft.Log) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.Seen == nil {
		l.state.Seen = map[string]int{}
	}
	l.state.Chain = sha256.Sum256(append(l.state.Chain[:], entry.Data...))
	l.state.Seen[string(entry.Data)]++
	return nil
}

func (l *ledger) copy() ledgerState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ledgerState{Chain: l.state.Chain, Seen: maps.Clone(l.state.Seen)}
}

func (l *ledger) Snapshot() (raft.FSMSnapshot, error) {
	data, err := json.Marshal(l.copy())
	return ledgerSnapshot(data), err
}

func (l *ledger) Restore(src io.ReadCloser) error {
	if l.gate != nil {
		<-l.gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = ledgerState{}
	return json.NewDecoder(src).Decode(&l.state)
}

type ledgerSnapshot []byte

func (s ledgerSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

func (ledgerSnapshot) Release() {}

// gatedStore is a log store whose writes can be held up, as by a slow disk.
type gatedStore struct {
	*raft.InmemStore
	gate atomic.Pointer[chan struct{}]
}

func (s *gatedStore) StoreLogs(logs []*raft.Log) error {
	if gate := s.gate.Load(); gate != nil {
		<-*gate
	}
	return s.InmemStore.StoreLogs(logs)
}

// hold holds up further writes until the returned function is called.
func (s *gatedStore) hold() (release func()) {
	gate := make(chan struct{})
	s.gate.Store(&gate)
	return sync.OnceFunc(func() {
		s.gate.Store(nil)
		close(gate)
	})
}

// replica is one group on one node. Its stores outlive the instance.
type replica struct {
	raft  *raft.Raft
	view  *View
	fsm   *ledger
	logs  *gatedStore
	snaps raft.SnapshotStore

	once     sync.Once    // of stop
	applying sync.RWMutex // held for reading while a command is in flight
}

// cluster runs hashicorp/raft itself over the transport.
type cluster struct {
	t         testing.TB
	net       *network
	ids       []string
	groups    int
	edit      func(*Config)
	heartbeat time.Duration // raft's HeartbeatTimeout, and all that depends on it
	// slowRestore, when set, holds up the restoring of snapshots by replicas
	// started from then on.
	slowRestore chan struct{}

	mu       sync.Mutex // guards the maps' content
	nodes    map[string]*node
	replicas map[string][]*replica
}

const (
	clusterHeartbeat = 500 * time.Millisecond
	clusterGroups    = 16
)

func newCluster(t testing.TB, groups int, heartbeat time.Duration, edit func(*Config)) *cluster {
	c := &cluster{t: t, net: newNetwork(t), ids: []string{"a", "b", "c"}, groups: groups, edit: edit, heartbeat: heartbeat,
		nodes: map[string]*node{}, replicas: map[string][]*replica{}}
	for _, id := range c.ids {
		c.startNode(id)
	}
	for _, id := range c.ids {
		for _, other := range c.ids {
			c.nodes[id].SetAddress(other, c.nodes[other].addr)
		}
		for g := range c.groups {
			c.startReplica(id, g)
		}
	}
	t.Cleanup(func() {
		for _, id := range c.ids {
			c.kill(id)
		}
	})
	return c
}

func (c *cluster) startNode(id string) {
	nd := c.net.start(id, func(conf *Config) {
		conf.Timeouts.Heartbeat, conf.Timeouts.Vote = c.heartbeat, c.heartbeat
		if c.edit != nil {
			c.edit(conf)
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id] = nd
	if c.replicas[id] == nil {
		c.replicas[id] = make([]*replica, c.groups)
	}
}

func (c *cluster) startReplica(id string, g int) *replica {
	c.mu.Lock()
	r := c.replicas[id][g]
	nd := c.nodes[id]
	c.mu.Unlock()
	fresh := r == nil
	if fresh {
		r = &replica{logs: &gatedStore{InmemStore: raft.NewInmemStore()}, snaps: raft.NewInmemSnapshotStore()}
	}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(id)
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = c.heartbeat, c.heartbeat, c.heartbeat
	conf.Logger = hclog.NewNullLogger()
	conf.SnapshotInterval = time.Hour
	conf.TrailingLogs = 1
	conf.CommitTimeout = c.heartbeat / 4
	next := &replica{fsm: &ledger{gate: c.slowRestore}, logs: r.logs, snaps: r.snaps, view: nd.Group(uint16(g))}
	if fresh {
		var servers []raft.Server
		for _, id := range c.ids {
			servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
		}
		require.NoError(c.t, raft.BootstrapCluster(conf, next.logs, next.logs, next.snaps, next.view, raft.Configuration{Servers: servers}))
	}
	instance, err := raft.NewRaft(conf, next.fsm, next.logs, next.logs, next.snaps, next.view)
	require.NoError(c.t, err)
	next.raft = instance
	c.mu.Lock()
	c.replicas[id][g] = next
	c.mu.Unlock()
	return next
}

var errStopping = errors.New("replica is stopping")

// apply commits a command. hashicorp/raft leaves the future of an entry that is
// in flight at shutdown without an answer, so stop waits for it.
func (r *replica) apply(command string) error {
	if !r.applying.TryRLock() {
		return errStopping
	}
	defer r.applying.RUnlock()
	return r.raft.Apply([]byte(command), time.Second).Error()
}

// stop ends a replica's instance in the order that does not wait for peers.
func (r *replica) stop() {
	r.applying.Lock() // for ever
	shutdown := r.raft.Shutdown()
	_ = r.view.Close()
	_ = shutdown.Error()
}

// kill ends a node without notice.
func (c *cluster) kill(id string) {
	c.mu.Lock()
	nd, replicas := c.nodes[id], slices.Clone(c.replicas[id])
	c.mu.Unlock()
	nd.stop()
	for _, r := range replicas {
		if r != nil {
			r.once.Do(r.stop)
		}
	}
}

// restart brings a killed node back with its stores, at a new address.
func (c *cluster) restart(id string) {
	c.startNode(id)
	for _, other := range c.ids {
		c.nodes[other].SetAddress(id, c.nodes[id].addr)
		c.nodes[id].SetAddress(other, c.nodes[other].addr)
	}
	for g := range c.groups {
		c.startReplica(id, g)
	}
}

func (c *cluster) replica(id string, g int) *replica {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.replicas[id][g]
}

// leader returns the leader of the highest term among the given nodes, or "".
func (c *cluster) leader(g int, among ...string) string {
	best, term := "", uint64(0)
	for _, id := range among {
		if r := c.replica(id, g).raft; r.State() == raft.Leader && r.CurrentTerm() > term {
			best, term = id, r.CurrentTerm()
		}
	}
	return best
}

// apply commits a command through whichever node leads, and returns it as
// committed: every attempt has a name of its own, because one that failed may
// have been committed all the same.
func (c *cluster) apply(g int, command string, among ...string) string {
	c.t.Helper()
	attempt := ""
	tries := 0
	eventually(c.t, func() bool {
		tries++
		attempt = fmt.Sprintf("%s (attempt %d)", command, tries)
		id := c.leader(g, among...)
		return id != "" && c.replica(id, g).apply(attempt) == nil
	}, fmt.Sprintf("group %d to commit %q", g, command))
	return attempt
}

// elect makes node id lead every group. Another may win the first election, so
// it stands again until it leads.
func (c *cluster) elect(id string) {
	c.t.Helper()
	for g := range c.groups {
		r := c.replica(id, g)
		var stood time.Time
		eventually(c.t, func() bool {
			if c.leader(g, c.ids...) == id {
				return true
			}
			if r.raft.State() != raft.Leader && time.Since(stood) > c.heartbeat {
				stood = time.Now()
				r.view.Campaign()
			}
			return false
		}, fmt.Sprintf("%s to lead group %d", id, g))
	}
}

// load writes unique commands to all groups until stopped, through whatever
// node believes that it leads, a deposed one included. It returns what was
// acknowledged, by group.
func (c *cluster) load() (stop func() []map[string]bool) {
	acked := make([]map[string]bool, c.groups)
	quit := make(chan struct{})
	var work sync.WaitGroup
	for g := range c.groups {
		acked[g] = map[string]bool{}
		var mu sync.Mutex
		for _, id := range c.ids {
			work.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-quit:
						return
					case <-time.After(2 * time.Millisecond):
					}
					command := fmt.Sprintf("%s-%d-%d", id, g, n)
					if c.replica(id, g).apply(command) == nil {
						mu.Lock()
						acked[g][command] = true
						mu.Unlock()
					}
				}
			})
		}
	}
	return func() []map[string]bool {
		close(quit)
		work.Wait()
		return acked
	}
}

// requireConverged waits until all replicas of a group are equal, and checks
// that they hold everything acknowledged, once.
func (c *cluster) requireConverged(g int, acked map[string]bool) {
	c.t.Helper()
	c.apply(g, fmt.Sprintf("last-%d", g), c.ids...)
	var states []ledgerState
	eventually(c.t, func() bool {
		states = states[:0]
		for _, id := range c.ids {
			states = append(states, c.replica(id, g).fsm.copy())
		}
		return states[0].Chain == states[1].Chain && states[1].Chain == states[2].Chain
	}, fmt.Sprintf("group %d to converge", g))
	for command := range acked {
		require.Equal(c.t, 1, states[0].Seen[command], "group %d: acknowledged command %s", g, command)
	}
	for command, times := range states[0].Seen {
		require.Equal(c.t, 1, times, "group %d: command %s", g, command)
	}
}
