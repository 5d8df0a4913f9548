package clustertest

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// BenchmarkAppend appends 300-byte texts to a thousand conversations of three
// data nodes in this process, each called at the leader. cpu-µs/op is the
// processor time of everything, the callers included.
func BenchmarkAppend(b *testing.B) {
	// As the program runs.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * runtime.NumCPU()))
	c := newCluster(b, 3)
	for _, id := range []string{"d1", "d2", "d3"} {
		c.start(id)
	}
	c.eventually("groups form", func(s member.Status) bool { return s.Groups.Formed == rpc.Groups })
	for _, clients := range []int{64, 256, 1024} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { c.appendAll(b, clients) })
	}
}

const benchConversations = 1000

func (c *cluster) appendAll(b *testing.B, clients int) {
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	keys := make([]rpc.Key, benchConversations)
	leaders := make([]atomic.Pointer[dataNode], benchConversations)
	for i := range keys {
		keys[i] = rpc.Key(fmt.Sprint("bench-", i))
		require.NoError(b, c.try(ctx, func(n rpc.Node) error {
			_, err := n.Put(ctx, &rpc.PutRequest{Key: keys[i]})
			if err == nil {
				leaders[i].Store(n.(*dataNode))
			}
			return err
		}))
	}
	content := []byte(`"role":"user","parts":[{"type":"text","text":"` + strings.Repeat("x", 300) + `"}],"metadata":{},"token_count":75`)
	var left atomic.Int64
	left.Store(int64(b.N))
	var work sync.WaitGroup
	before := cpuTime(b)
	b.ResetTimer()
	for w := range clients {
		work.Go(func() {
			for i := w; left.Add(-1) >= 0; i += clients + 7 {
				k := i % benchConversations
				req := &rpc.AppendRequest{Key: keys[k], Messages: []rpc.NewMessage{{Content: content, TokenCount: 75}}}
				if _, err := leaders[k].Load().Append(ctx, req); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
