package transport

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func cpuTime() int64 {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return ru.Utime.Nano() + ru.Stime.Nano()
}

// BenchmarkAppendEntries measures round trips of 400-byte entries between two
// nodes over loopback TCP, one in flight per group, half of the groups led on
// each side. cpu-ns/op is the process time of both sides together.
func BenchmarkAppendEntries(b *testing.B) {
	for _, groups := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) { benchmarkAppend(b, groups) })
	}
}

func benchmarkAppend(b *testing.B, groups int) {
	_, x, y := pairOf(b, nil)
	nodes := []*node{x, y}
	var callers, echoes sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	begin := make(chan struct{})
	for g := range groups {
		from, to := nodes[g%2], nodes[1-g%2]
		client, server := from.Group(uint16(g)), to.Group(uint16(g))
		echoes.Go(func() { echo(server) })
		req, resp := appendRequest(from.id, 1, 400), new(raft.AppendEntriesResponse)
		require.NoError(b, client.AppendEntries("", raft.ServerAddress(to.id), req, resp))
		callers.Go(func() {
			<-begin
			for left.Add(-1) >= 0 {
				if err := client.AppendEntries("", raft.ServerAddress(to.id), req, resp); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	before, cpu := x.Stats(), cpuTime()
	b.ReportAllocs()
	b.ResetTimer()
	close(begin)
	callers.Wait()
	b.StopTimer()
	after := x.Stats()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(after.Append.FramesOut-before.Append.FramesOut)/
		float64(after.Append.Flushes-before.Append.Flushes), "frames/flush")
	x.stop()
	y.stop()
	echoes.Wait()
}
