package transport

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
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
	for _, groups := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) { benchmarkAppend(b, groups) })
	}
}

func benchmarkAppend(b *testing.B, groups int) {
	_, x, y := pairOf(b, nil)
	nodes := []*node{x, y}
	var echoes sync.WaitGroup
	var clients []raft.Transport
	for g := range groups {
		server := nodes[1-g%2].Group(uint16(g))
		echoes.Go(func() { serve(server) })
		clients = append(clients, nodes[g%2].Group(uint16(g)))
	}
	target := func(g int) raft.ServerAddress { return raft.ServerAddress(nodes[1-g%2].id) }
	for g, client := range clients { // connect
		require.NoError(b, client.AppendEntries("", target(g), appendRequest("a", 1, 1), new(raft.AppendEntriesResponse)))
	}
	before := x.Stats().Append
	drive(b, clients, target)
	after := x.Stats().Append
	b.ReportMetric(float64(after.FramesOut-before.FramesOut)/float64(after.Flushes-before.Flushes), "frames/flush")
	x.stop()
	y.stop()
	echoes.Wait()
}

// drive spreads b.N calls over the clients, one in flight on each.
func drive(b *testing.B, clients []raft.Transport, target func(int) raft.ServerAddress) {
	var callers sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	begin := make(chan struct{})
	for g, client := range clients {
		req, resp := appendRequest(string(client.LocalAddr()), 1, 400), new(raft.AppendEntriesResponse)
		callers.Go(func() {
			<-begin
			for left.Add(-1) >= 0 {
				if err := client.AppendEntries("", target(g), req, resp); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	cpu := cpuTime()
	b.ReportAllocs()
	b.ResetTimer()
	close(begin)
	callers.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
}

// BenchmarkNetworkTransport is the same work over raft's own transport, one
// for each group and node as it demands.
func BenchmarkNetworkTransport(b *testing.B) {
	for _, groups := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) {
			open := func() *raft.NetworkTransport {
				trans, err := raft.NewTCPTransportWithLogger("127.0.0.1:0", nil, 2, patience, hclog.NewNullLogger())
				require.NoError(b, err)
				return trans
			}
			var echoes sync.WaitGroup
			var clients []raft.Transport
			var servers []*raft.NetworkTransport
			done := make(chan struct{})
			for range groups {
				client, server := open(), open()
				echoes.Go(func() { echo(server.LocalAddr(), server.Consumer(), done) })
				clients, servers = append(clients, client), append(servers, server)
			}
			drive(b, clients, func(g int) raft.ServerAddress { return servers[g].LocalAddr() })
			for g := range groups {
				_ = clients[g].(*raft.NetworkTransport).Close()
				clients[g].(*raft.NetworkTransport).CloseStreams()
				_ = servers[g].Close()
			}
			close(done)
			echoes.Wait()
		})
	}
}

// BenchmarkIdleCluster measures three nodes with 256 idle groups in one
// process, everything but the network in memory. An iteration takes a second.
func BenchmarkIdleCluster(b *testing.B) {
	for _, gather := range []time.Duration{0, 2 * time.Millisecond} {
		b.Run(fmt.Sprintf("gather=%v", gather), func(b *testing.B) {
			c := newCluster(b, 256, time.Second, func(conf *Config) { conf.Timeouts.Gather = gather })
			for g := range c.groups {
				c.replica(c.ids[g%len(c.ids)], g).view.Campaign()
			}
			for g := range c.groups {
				c.apply(g, "ready", c.ids...)
			}
			before, cpu := c.nodes["a"].Stats(), cpuTime()
			b.ResetTimer()
			for range b.N {
				<-time.After(time.Second)
			}
			b.StopTimer()
			after := c.nodes["a"].Stats()
			n := float64(b.N)
			b.ReportMetric(float64(cpuTime()-cpu)/1e7/n, "cpu-%")
			b.ReportMetric(float64(after.Election.FramesOut-before.Election.FramesOut)/n, "heartbeat-frames/s/node")
			b.ReportMetric(float64(after.Election.Flushes-before.Election.Flushes)/n, "heartbeat-flushes/s/node")
			b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
		})
	}
}
