package storage

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// BenchmarkSyncedCommits commits small batches with a sync from many
// goroutines, as the Raft logs of many groups do. Concurrent commits must share
// syncs: syncs/commit falls with the number of writers. CPU is that of the
// whole process.
func BenchmarkSyncedCommits(b *testing.B) {
	for _, writers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			opts := DefaultOptions(b.TempDir())
			e := mustOpen(b, opts)
			value := make([]byte, 400)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			cpu, syncs := processCPU(b), syncCount(b, e)
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					key := binary.BigEndian.AppendUint64(AppendPrefix(nil, SpaceLog, uint16(w)), 0)
					for i := uint64(1); next.Add(1) <= int64(b.N); i++ {
						binary.BigEndian.PutUint64(key[PrefixLen:], i)
						batch := e.DB().NewBatchWithSize(512)
						_ = batch.Set(key, value, nil)
						if err := batch.Commit(pebble.Sync); err != nil {
							b.Errorf("commit: %v", err)
						}
						_ = batch.Close()
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64((processCPU(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/commit")
			b.ReportMetric(float64(syncCount(b, e)-syncs)/float64(b.N), "syncs/commit")
			require.NoError(b, e.Close())
		})
	}
}

func BenchmarkHealth(b *testing.B) {
	e := mustOpen(b, DefaultOptions(b.TempDir()))
	b.ReportAllocs()
	for b.Loop() {
		if e.Health() != nil {
			b.Fatal("not healthy")
		}
	}
	require.NoError(b, e.Close())
}

func processCPU(b testing.TB) time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// syncCount returns how often the write-ahead log was synced.
func syncCount(b *testing.B, e *Engine) uint64 {
	var m dto.Metric
	require.NoError(b, e.Metrics().LogWriter.FsyncLatency.Write(&m))
	return m.GetHistogram().GetSampleCount()
}
