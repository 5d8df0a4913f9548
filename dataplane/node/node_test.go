package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// control is a control plane that places every group on one node and
// remembers what it was told. The real one is in package controlplane/member;
// cmd/blackbox tests the two together.
type control struct {
	mu          sync.Mutex
	formed      [rpc.Groups]bool
	reports     int
	down        bool
	incarnation string
}

func (c *control) Table(context.Context, uint64) (*controlrpc.Table, error) {
	return nil, controlrpc.ErrUnavailable
}

func (c *control) Session(ctx context.Context, r *controlrpc.Report) (*controlrpc.Assignment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, controlrpc.ErrUnavailable
	}
	c.reports++
	c.incarnation = r.Node.Incarnation
	for _, g := range r.Groups {
		c.formed[g.Group] = c.formed[g.Group] || g.Leading
	}
	a := &controlrpc.Assignment{ClusterID: "test", Version: 1, Addresses: map[controlrpc.NodeID]string{}}
	for g := range rpc.Groups {
		a.Groups = append(a.Groups, controlrpc.GroupAssignment{
			Group: uint16(g), Replicas: []controlrpc.Replica{{Node: r.Node.ID, Voter: true}},
			Preferred: r.Node.ID, Bootstrap: !c.formed[g],
		})
	}
	if r.HaveAssignment == a.Version {
		c.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		c.mu.Lock()
	}
	return a, ctx.Err()
}

func open(t testing.TB, dir string, c *control) *Node {
	t.Helper()
	conf := DefaultConfig()
	conf.ID, conf.Dir, conf.Control = "n1", dir, c
	conf.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := Open(conf)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// ready waits until every group may be written and read.
func ready(t testing.TB, n *Node) {
	t.Helper()
	require.Eventually(t, func() bool { return n.Status().Leading == rpc.Groups }, 30*time.Second, 2*time.Millisecond)
}

func TestNodeServesAllGroups(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &control{}
	n := open(t, dir, c)
	ready(t, n)
	ctx := t.Context()
	for i := range 50 {
		key := rpc.Key(fmt.Sprintf("chat-%02d", i))
		_, err := n.Put(ctx, &rpc.PutRequest{Key: key})
		require.NoError(t, err)
		_, err = n.Append(ctx, &rpc.AppendRequest{Key: key, Messages: []rpc.NewMessage{{Content: []byte(`"role":"user"`)}}})
		require.NoError(t, err)
	}
	all := make([]rpc.Group, rpc.Groups)
	for i := range all {
		all[i] = rpc.Group(i)
	}
	list, err := n.List(ctx, &rpc.ListRequest{Groups: all, Prefix: "chat-", After: "chat-09", Limit: 15})
	require.NoError(t, err)
	require.Len(t, list.Conversations, 15)
	require.Equal(t, rpc.Key("chat-10"), list.Conversations[0].Key)
	require.Equal(t, rpc.Key("chat-24"), list.Conversations[14].Key)
	_, err = n.List(ctx, &rpc.ListRequest{Groups: []rpc.Group{rpc.Groups}, Limit: 1})
	require.Error(t, err)

	// Without the control plane a restarted node serves what it has.
	require.NoError(t, n.Close())
	c.mu.Lock()
	c.down = true
	c.mu.Unlock()
	again := open(t, dir, c)
	ready(t, again)
	conv, err := again.Conversation(ctx, "chat-07", rpc.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, uint64(1), conv.LastSeq)
}

func TestConfigNamesEveryProblem(t *testing.T) {
	t.Parallel()
	err := (&Config{ID: "a b", Advertise: "nowhere"}).Validate()
	require.ErrorContains(t, err, "node id")
	require.ErrorContains(t, err, "data directory")
	require.ErrorContains(t, err, "advertise")
	require.ErrorContains(t, err, "queue bytes")
	require.ErrorContains(t, err, "required")
}

// BenchmarkAppend measures durable appends of 64 closed-loop callers over 1,000
// conversations, without HTTP: wall time and CPU of the process per append.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			n := open(b, b.TempDir(), &control{})
			ready(b, n)
			const conversations = 1000
			keys := make([]rpc.Key, conversations)
			for i := range keys {
				keys[i] = rpc.Key(fmt.Sprintf("conversation-%d", i))
				_, err := n.Put(b.Context(), &rpc.PutRequest{Key: keys[i]})
				require.NoError(b, err)
			}
			text := make([]byte, 300)
			for i := range text {
				text[i] = 'a' + byte(i%26)
			}
			content := fmt.Appendf(nil, `"role":"user","parts":[{"type":"text","text":%q}],"metadata":{},"token_count":75`, text)
			var next atomic.Int64
			before := cpu(b)
			b.ReportAllocs()
			b.ResetTimer()
			var work sync.WaitGroup
			for range callers {
				work.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						_, err := n.Append(context.Background(), &rpc.AppendRequest{Key: keys[i%conversations],
							Messages: []rpc.NewMessage{{Content: content, TokenCount: 75}}})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			work.Wait()
			b.StopTimer()
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
