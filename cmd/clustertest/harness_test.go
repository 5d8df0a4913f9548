package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/controlplane/member"
	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/node"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests.
const patience = 3 * time.Minute

// cluster is a control member and data nodes that can each be stopped, wiped and
// started again.
type cluster struct {
	t       testing.TB
	expect  int // data nodes that the control plane waits for
	dir     string
	control control

	mu    sync.Mutex
	nodes map[string]*dataNode
}

// control is the way to a control member that may be away for a while.
type control struct{ server atomic.Pointer[member.Server] }

func (c *control) Table(ctx context.Context, after uint64) (*controlrpc.Table, error) {
	if s := c.server.Load(); s != nil {
		return s.Table(ctx, after)
	}
	return nil, controlrpc.ErrUnavailable
}

func (c *control) Session(ctx context.Context, r *controlrpc.Report) (*controlrpc.Assignment, error) {
	if s := c.server.Load(); s != nil {
		return s.Session(ctx, r)
	}
	return nil, controlrpc.ErrUnavailable
}

// dataNode is a data node and its Raft listener.
type dataNode struct {
	*node.Node
	listener net.Listener
	conns    sync.WaitGroup
}

func newCluster(t testing.TB, expect int) *cluster {
	c := &cluster{t: t, expect: expect, dir: t.TempDir(), nodes: map[string]*dataNode{}}
	c.startControl()
	t.Cleanup(func() {
		for id := range c.nodes {
			c.stop(id)
		}
		c.stopControl()
	})
	return c
}

func (c *cluster) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (c *cluster) startControl() {
	s, err := member.Open(member.Config{ID: "c1", DataDir: filepath.Join(c.dir, "c1"), Logger: c.logger(), HeartbeatTimeout: 200 * time.Millisecond, BootstrapExpect: c.expect})
	require.NoError(c.t, err)
	c.control.server.Store(s)
}

func (c *cluster) stopControl() {
	if s := c.control.server.Swap(nil); s != nil {
		require.NoError(c.t, s.Close())
	}
}

func (c *cluster) status() member.Status { return c.control.server.Load().Status() }

// start runs a data node over its directory, making one if there is none.
func (c *cluster) start(id string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(c.t, err)
	conf := node.DefaultConfig()
	conf.ID, conf.Dir, conf.Advertise = id, filepath.Join(c.dir, id), listener.Addr().String()
	conf.Control, conf.Logger = &c.control, c.logger()
	conf.Dial = func(ctx context.Context, _, address string, lane transport.Lane) (net.Conn, error) {
		return dial(ctx, id, address, lane)
	}
	n, err := node.Open(conf)
	require.NoError(c.t, err)
	d := &dataNode{Node: n, listener: listener}
	d.conns.Go(func() { d.accept() })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id] = d
}

// stop ends a node without handing anything over.
func (c *cluster) stop(id string) {
	c.mu.Lock()
	d := c.nodes[id]
	delete(c.nodes, id)
	c.mu.Unlock()
	_ = d.listener.Close()
	require.NoError(c.t, d.Close())
	d.conns.Wait()
}

func (c *cluster) wipe(id string) { require.NoError(c.t, os.RemoveAll(filepath.Join(c.dir, id))) }

// dial opens a connection and says whose it is and for which lane.
func dial(ctx context.Context, id, address string, lane transport.Lane) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append([]byte{byte(lane), byte(len(id))}, id...)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (d *dataNode) accept() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.conns.Go(func() {
			var head [2]byte
			if _, err := io.ReadFull(conn, head[:]); err != nil {
				_ = conn.Close()
				return
			}
			peer := make([]byte, head[1])
			if _, err := io.ReadFull(conn, peer); err != nil {
				_ = conn.Close()
				return
			}
			d.ServeRaft(conn, transport.Lane(head[0]), string(peer))
		})
	}
}

// running returns the nodes of this moment.
func (c *cluster) running() []*dataNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*dataNode, 0, len(c.nodes))
	for _, d := range c.nodes {
		all = append(all, d)
	}
	return all
}

// try asks every node in turn until one can do it: the one that leads.
func (c *cluster) try(ctx context.Context, call func(rpc.Node) error) error {
	for {
		var last error
		for _, d := range c.running() {
			if last = call(d); last == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// writer appends to one conversation and knows what was acknowledged.
type writer struct {
	key   rpc.Key
	acked []string
}

// write appends one message after the other, each with an id so that it can be
// sent again, until ctx ends.
func (w *writer) write(ctx context.Context, c *cluster) error {
	err := c.try(ctx, func(n rpc.Node) error {
		_, err := n.Put(ctx, &rpc.PutRequest{Key: w.key})
		return err
	})
	for i := 0; err == nil && ctx.Err() == nil; i++ {
		id := fmt.Sprint(w.key, "-", i)
		err = c.try(ctx, func(n rpc.Node) error {
			_, err := n.Append(ctx, &rpc.AppendRequest{Key: w.key, Messages: []rpc.NewMessage{{ID: id, Content: []byte(`"id":"` + id + `","role":"user"`)}}})
			return err
		})
		if err == nil {
			w.acked = append(w.acked, id)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// verify reads the conversation back: everything acknowledged is there, once, in
// order and without a hole.
func (w *writer) verify(c *cluster) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var ids []string
	for from := uint64(1); ; {
		var page *rpc.Page
		require.NoError(c.t, c.try(ctx, func(n rpc.Node) (err error) {
			page, err = n.Messages(ctx, &rpc.MessagesRequest{Key: w.key, From: from, Limit: 500})
			return err
		}))
		if len(page.Messages) == 0 {
			break
		}
		for i := range page.Messages {
			require.Equal(c.t, from, page.Messages[i].Seq)
			var message struct{ ID string }
			require.NoError(c.t, json.Unmarshal(page.Messages[i].JSON, &message))
			ids = append(ids, message.ID)
			from++
		}
	}
	require.GreaterOrEqual(c.t, len(ids), len(w.acked))
	require.Equal(c.t, w.acked, ids[:len(w.acked)])
	require.LessOrEqual(c.t, len(ids), len(w.acked)+1, "one append was under way when the writer stopped")
}
