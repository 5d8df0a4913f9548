package raftlog

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// BenchmarkStoreLogs stores one entry of 400 bytes at a time in many groups at
// once, each durable before the next of its group.
func BenchmarkStoreLogs(b *testing.B) {
	for _, groups := range []int{1, 64} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) {
			e := mustEngine(b, storage.DefaultOptions(b.TempDir()))
			data := make([]byte, 400)
			var left atomic.Int64
			left.Store(int64(b.N))
			logs := make([]*Log, groups)
			for g := range logs {
				logs[g] = mustLog(b, e, uint16(g))
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for _, l := range logs {
				wg.Go(func() {
					entry := []*raft.Log{{Term: 1, Data: data}}
					for i := uint64(1); left.Add(-1) >= 0; i++ {
						entry[0].Index = i
						if err := l.StoreLogs(entry); err != nil {
							b.Errorf("store: %v", err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			require.NoError(b, e.Close())
		})
	}
}

// BenchmarkGetLog reads a recent entry, and one that is only in storage.
func BenchmarkGetLog(b *testing.B) {
	l := memLog(b)
	data := make([]byte, 400)
	for i := uint64(1); i <= 1000; i++ {
		require.NoError(b, l.StoreLog(&raft.Log{Index: i, Term: 1, Data: data}))
	}
	for _, c := range []struct {
		name  string
		index uint64
	}{{"recent", 1000}, {"stored", 10}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var e raft.Log
			for b.Loop() {
				if err := l.GetLog(c.index, &e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
