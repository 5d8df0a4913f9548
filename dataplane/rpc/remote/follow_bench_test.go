package remote

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// BenchmarkNewsHop measures what one news of a message of 400 bytes costs both
// sides: the feed, the server, gRPC over a loopback socket, the client. At a rate,
// that many are told per second, which is where batches are small; the figure is
// cpu-ns/op.
func BenchmarkNewsHop(b *testing.B) {
	for _, c := range []struct{ conversations, rate int }{{1000, 500}, {1000, 10_000}, {1000, 0}} {
		b.Run(fmt.Sprintf("rate=%d", c.rate), func(b *testing.B) { benchmarkNews(b, c.conversations, c.rate) })
	}
}

func benchmarkNews(b *testing.B, conversations, rate int) {
	node := newFeedNode()
	client := pair(b, node)
	keys := make([]rpc.Key, conversations)
	room := make(chan struct{}, 1000) // a token for each news under way
	for i := range keys {
		keys[i] = rpc.Key(fmt.Sprintf("conversation-%04d", i))
		mustSubscribe(b, client, keys[i], &taker{room: room})
	}
	message := rpc.Message{JSON: make([]byte, 400)}
	b.ReportAllocs()
	b.ResetTimer()
	before, began := cpuTime(b), time.Now()
	const burst = 10
	tick := time.NewTicker(time.Duration(max(burst*int(time.Second)/max(rate, 1), 1)))
	defer tick.Stop()
	for i := range b.N {
		if rate > 0 && i%burst == 0 {
			<-tick.C
		}
		room <- struct{}{}
		node.tell(keys[i%conversations], uint64(i/conversations)+1, message)
	}
	for range cap(room) {
		room <- struct{}{}
	}
	b.StopTimer()
	reportCPU(b, before)
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "news/s")
}

// taker gives back a token for every message it is told of.
type taker struct {
	room chan struct{}
	last uint64
}

func (t *taker) Deliver(n rpc.News) {
	for ; t.last < n.LastSeq; t.last++ {
		<-t.room
	}
}

func (t *taker) End(error) {}

// BenchmarkIdleSubscriptions reports what 5,000 subscriptions cost while nothing
// happens: memory on both sides, and the CPU of half a second.
func BenchmarkIdleSubscriptions(b *testing.B) {
	const subscriptions = 5000
	for b.Loop() {
		node := newFeedNode()
		client := pair(b, node)
		mustSubscribe(b, client, "first", newListener())
		before, goroutines := heap(), runtime.NumGoroutine()
		for i := range subscriptions {
			mustSubscribe(b, client, rpc.Key(fmt.Sprintf("conversation-%04d", i)), deaf{})
		}
		b.ReportMetric(float64(heap()-before)/subscriptions, "B/subscription")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines), "goroutines")
		cpu := cpuTime(b)
		timer := time.NewTimer(500 * time.Millisecond)
		<-timer.C
		b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/0.5, "idle-cpu-us/s")
	}
}

// deaf is a subscriber that takes no notice.
type deaf struct{}

func (deaf) Deliver(rpc.News) {}
func (deaf) End(error)        {}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
