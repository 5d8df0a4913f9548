package remote

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// instantNode answers at once; committingNode answers what has gathered every
// millisecond, as a group does that commits in batches.
type instantNode struct {
	rpc.Node
	seq atomic.Uint64
}

func (n *instantNode) Append(_ context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
	seq := n.seq.Add(1)
	return &rpc.AppendReply{Seq: seq, LastSeq: seq, Version: seq, Messages: []rpc.Appended{{Seq: seq}}}, nil
}

type committingNode struct {
	rpc.Node
	seq   atomic.Uint64
	queue chan chan *rpc.AppendReply
}

func (n *committingNode) Append(ctx context.Context, _ *rpc.AppendRequest) (*rpc.AppendReply, error) {
	done := make(chan *rpc.AppendReply, 1)
	n.queue <- done
	select {
	case r := <-done:
		return r, nil
	case <-ctx.Done():
		return nil, rpc.ErrOutcomeUnknown
	}
}

func (n *committingNode) run(ctx context.Context) {
	var batch []chan *rpc.AppendReply
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case c := <-n.queue:
			batch = append(batch, c)
		case <-tick.C:
			for _, c := range batch {
				seq := n.seq.Add(1)
				c <- &rpc.AppendReply{Seq: seq, LastSeq: seq, Version: seq, Messages: []rpc.Appended{{Seq: seq}}}
			}
			batch = batch[:0]
		case <-ctx.Done():
			return
		}
	}
}

// BenchmarkAppendHop measures what the hop adds to an append of 300 bytes, on
// both sides together: the client's call, gRPC over a loopback socket, the
// server, and back. The node costs next to nothing.
func BenchmarkAppendHop(b *testing.B) {
	for _, callers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("instant/callers=%d", callers), func(b *testing.B) {
			benchmarkHop(b, &instantNode{}, callers)
		})
	}
	for _, callers := range []int{64, 1024} {
		b.Run(fmt.Sprintf("committing/callers=%d", callers), func(b *testing.B) {
			node := &committingNode{queue: make(chan chan *rpc.AppendReply, 4096)}
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			wg.Go(func() { node.run(ctx) })
			benchmarkHop(b, node, callers)
			cancel()
			wg.Wait()
		})
	}
}

func benchmarkHop(b *testing.B, node rpc.Node, callers int) {
	client := pair(b, node)
	waitUp(b, client)
	req := &rpc.AppendRequest{Key: "conversation-0123456789", Messages: []rpc.NewMessage{{Content: make([]byte, 300)}}}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	_, err := client.Append(ctx, req)
	require.NoError(b, err)

	b.ReportAllocs()
	before, stats := cpuTime(b), client.Stats()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var calls sync.WaitGroup
	for range callers {
		calls.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := client.Append(ctx, req); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	calls.Wait()
	b.StopTimer()
	reportCPU(b, before)
	after := client.Stats()
	b.ReportMetric(float64(after.Requests-stats.Requests)/float64(max(after.Frames-stats.Frames, 1)), "requests/frame")
}

func reportCPU(b *testing.B, before time.Duration) {
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPageHop measures a read of a page of 400-byte messages.
func BenchmarkPageHop(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("messages=%d", n), func(b *testing.B) {
			page := &rpc.Page{Messages: make([]rpc.Message, n)}
			for i := range page.Messages {
				page.Messages[i] = rpc.Message{Seq: uint64(i) + 1e6, Version: uint64(i) + 1e6, JSON: make([]byte, 400)}
			}
			client := pair(b, &stubNode{messages: func(context.Context, *rpc.MessagesRequest) (*rpc.Page, error) { return page, nil }})
			req := &rpc.MessagesRequest{Key: "k", Limit: n}
			b.ReportAllocs()
			defer reportCPU(b, cpuTime(b))
			for b.Loop() {
				if _, err := client.Messages(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFrame measures writing and reading frames of 64 appends of 300 bytes
// by hand, and the same with the generated code.
func BenchmarkFrame(b *testing.B) {
	req := &rpc.AppendRequest{Key: "conversation-0123456789", Messages: []rpc.NewMessage{{Content: make([]byte, 300)}}}
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		defer reportCPU(b, cpuTime(b))
		buf := make([]byte, 0, 64<<10)
		for b.Loop() {
			buf = appendWaited(buf[:0])
			for id := range uint64(64) {
				w := write{kind: opAppend, append: req}
				buf = appendRequest(buf, id+1, 1e6, &w, w.size())
			}
			if _, _, err := decodeJobs(append([]byte(nil), buf...)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		defer reportCPU(b, cpuTime(b))
		buf := make([]byte, 0, 64<<10)
		for b.Loop() {
			var p, q pb.RequestFrame
			for id := range uint64(64) {
				p.Requests = append(p.Requests, &pb.WriteRequest{Id: id + 1, TimeoutUs: 1e6, Op: &pb.WriteRequest_Append{Append: toPB(req)}})
			}
			var err error
			if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], &p); err != nil {
				b.Fatal(err)
			}
			if err = proto.Unmarshal(buf, &q); err != nil {
				b.Fatal(err)
			}
		}
	})
}
