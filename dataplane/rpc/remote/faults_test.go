package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// recorder is a node that remembers what it appended.
type recorder struct {
	stubNode
	seen sync.Map // rpc.Key -> *atomic.Int64
}

func newRecorder() *recorder {
	r := &recorder{}
	r.append = func(_ context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
		n, _ := r.seen.LoadOrStore(req.Key, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		return &rpc.AppendReply{Seq: 1}, nil
	}
	return r
}

func (r *recorder) count(key rpc.Key) int64 {
	n, ok := r.seen.Load(key)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// A server that dies under load and returns, again and again. Methodology: every
// append has a key of its own, and the node outlives its servers and counts. So
// each answer can be checked: acknowledged means done once, unavailable means
// never done, and unknown outcome at most once.
func TestServerDiesUnderLoad(t *testing.T) {
	t.Parallel()
	const callers, kills = 32, 4
	node := newRecorder()
	server := serve(t, "", node, ServerOptions{})
	client := dial(t, server.address, Options{ConnectWait: 50 * time.Millisecond, BackoffMax: 50 * time.Millisecond})
	stopped, stop := context.WithCancel(context.Background())
	defer stop()
	var acknowledged, unavailable, unknown atomic.Int64
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := 0; ; i++ {
				if stopped.Err() != nil {
					return
				}
				req := appendOf(fmt.Sprintf("%d/%d", caller, i), "x")
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				_, err := client.Append(ctx, req)
				cancel()
				times := node.count(req.Key)
				switch {
				case err == nil && times == 1:
					acknowledged.Add(1)
				case errors.Is(err, rpc.ErrOutcomeUnknown) && times <= 1:
					unknown.Add(1)
				case errors.Is(err, rpc.ErrUnavailable) && times == 0:
					unavailable.Add(1)
					sleep(stopped, time.Millisecond)
				default:
					t.Errorf("append done %d times answered %v", times, err)
				}
			}
		})
	}
	progress := func(counter *atomic.Int64) {
		t.Helper()
		from := counter.Load()
		require.Eventually(t, func() bool { return counter.Load() > from }, patience, time.Millisecond)
	}
	for range kills {
		progress(&acknowledged)
		server.kill()
		progress(&unavailable)
		server = serve(t, server.address, node, ServerOptions{})
	}
	progress(&acknowledged)
	stop()
	wg.Wait()
	t.Logf("%d acknowledged, %d unavailable, %d unknown", acknowledged.Load(), unavailable.Load(), unknown.Load())
}

// A peer that takes everything and answers nothing: deadlines answer, with the
// truth, and when the connection is replaced all is well again.
func TestHalfDeadPeer(t *testing.T) {
	t.Parallel()
	node := newRecorder()
	node.messages = func(context.Context, *rpc.MessagesRequest) (*rpc.Page, error) { return &rpc.Page{}, nil }
	p := startProxy(t, serve(t, "", node, ServerOptions{}).address)
	client := dial(t, p.address(), Options{})
	waitUp(t, client)
	_, err := client.Append(within10s(t), appendOf("before", "x"))
	require.NoError(t, err)

	p.swallow(true)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*time.Millisecond)
			defer cancel()
			_, err := client.Append(ctx, appendOf("during", "x"))
			if !errors.Is(err, rpc.ErrOutcomeUnknown) && !errors.Is(err, rpc.ErrUnavailable) {
				t.Errorf("append: %v", err)
			}
			_, err = client.Messages(ctx, &rpc.MessagesRequest{Key: "during"})
			if !errors.Is(err, rpc.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("messages: %v", err)
			}
		})
	}
	wg.Wait()
	require.Zero(t, node.count("during"))

	p.swallow(false)
	p.cut()
	require.Eventually(t, func() bool {
		_, err := client.Append(within10s(t), appendOf("after", "x"))
		return err == nil
	}, patience, time.Millisecond)
}

// Without a node, writes wait as long as they are told to, then fail fast; when
// it comes they work.
func TestNodeThatIsNotThere(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	client := dial(t, address, Options{ConnectWait: 100 * time.Millisecond, BackoffMax: 50 * time.Millisecond})
	for range 3 {
		_, err := client.Append(within10s(t), appendOf("k", "x"))
		require.ErrorIs(t, err, rpc.ErrUnavailable)
		require.NotErrorIs(t, err, rpc.ErrOutcomeUnknown)
		_, err = client.Messages(within10s(t), &rpc.MessagesRequest{Key: "k"})
		require.ErrorIs(t, err, rpc.ErrUnavailable)
	}
	require.Equal(t, Stats{}, client.Stats())

	node := newRecorder()
	serve(t, address, node, ServerOptions{})
	require.Eventually(t, func() bool {
		_, err := client.Append(within10s(t), appendOf("k", "x"))
		return err == nil
	}, patience, time.Millisecond)
	require.EqualValues(t, 1, node.count("k"))
}

// Queued writes go out when the stream comes up, except those that were given
// up; a full queue refuses.
func TestQueueWhileThereIsNoStream(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	client := dial(t, address, Options{ConnectWait: time.Minute, MaxQueued: 3, Streams: 1, BackoffMax: 50 * time.Millisecond})
	queued := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { return client.Stats().Queued == n }, patience, time.Millisecond)
	}
	var wg sync.WaitGroup
	results := make([]error, 4)
	ctx, giveUp := context.WithCancel(context.Background())
	for i := range 3 {
		wg.Go(func() {
			ctx := ctx
			if i != 1 {
				ctx = within10s(t)
			}
			_, results[i] = client.Append(ctx, appendOf(fmt.Sprint(i), "x"))
		})
		queued(i + 1)
	}
	_, err := client.Append(within10s(t), appendOf("too many", "x"))
	require.ErrorIs(t, err, rpc.ErrOverloaded)
	giveUp()
	queued(2)
	wg.Go(func() { _, results[3] = client.Append(within10s(t), appendOf("3", "x")) })
	queued(3)

	node := newRecorder()
	serve(t, address, node, ServerOptions{})
	wg.Wait()
	for i, want := range []int64{1, 0, 1, 1} {
		require.Equal(t, want, node.count(rpc.Key(fmt.Sprint(i))), "append %d", i)
		if want == 1 {
			require.NoError(t, results[i])
		}
	}
	require.ErrorIs(t, results[1], rpc.ErrUnavailable)
	require.EqualValues(t, 1, client.Stats().Withdrawn)
	require.EqualValues(t, 3, client.Stats().Requests)

	_, err = client.Append(ctx, appendOf("dead on arrival", "x"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.Zero(t, node.count("dead on arrival"))
}

// The queue is bounded in bytes too, and takes one write whatever its size.
func TestQueueIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	client := dial(t, freeAddress(t), Options{ConnectWait: time.Minute, MaxQueuedBytes: 1000, Streams: 1})
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wg.Go(func() { _, _ = client.Append(ctx, &rpc.AppendRequest{Key: "k", Messages: repeat(1, 5000)}) })
	require.Eventually(t, func() bool { return client.Stats().Queued == 1 }, patience, time.Millisecond)
	_, err := client.Append(ctx, appendOf("k", "x"))
	require.ErrorIs(t, err, rpc.ErrOverloaded)
}

// A server that stops gracefully answers all that was sent, takes nothing more,
// and no caller is left not knowing.
func TestServerDrains(t *testing.T) {
	t.Parallel()
	const callers = 50
	node := newRecorder()
	arrived, release := make(chan struct{}, callers), make(chan struct{})
	record := node.append
	node.append = func(ctx context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
		if req.Key == "slow" {
			arrived <- struct{}{}
			<-release
		}
		return record(ctx, req)
	}
	server := serve(t, "", node, ServerOptions{})
	client := dial(t, server.address, Options{ConnectWait: 100 * time.Millisecond, BackoffMax: 50 * time.Millisecond})
	waitUp(t, client)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if _, err := client.Append(within10s(t), appendOf("slow", "x")); err != nil {
				t.Errorf("in flight when the drain began: %v", err)
			}
		})
	}
	for range callers {
		<-arrived
	}
	closed := make(chan error, 1)
	wg.Go(func() { closed <- server.Close(within10s(t)) })
	require.Eventually(t, func() bool { return client.Stats().Streams == 0 }, patience, time.Millisecond)
	late := make(chan error, 1)
	wg.Go(func() {
		_, err := client.Append(within10s(t), appendOf("late", "x"))
		late <- err
	})
	close(release)
	wg.Wait()
	require.NoError(t, <-closed)
	require.ErrorIs(t, <-late, rpc.ErrUnavailable)
	require.Zero(t, node.count("late"))
	require.EqualValues(t, callers, node.count("slow"))
	require.Error(t, server.Close(within10s(t)), "once is enough")
	_, err := client.Messages(within10s(t), &rpc.MessagesRequest{Key: "k"})
	require.ErrorIs(t, err, rpc.ErrClosed)
}

// When the patience of Close ends, the writes and reads that are left are cut
// off.
func TestCloseCutsOff(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 2)
	server := serve(t, "", &stubNode{
		append: func(ctx context.Context, _ *rpc.AppendRequest) (*rpc.AppendReply, error) {
			arrived <- struct{}{}
			<-ctx.Done()
			return nil, rpc.ErrOutcomeUnknown
		},
		messages: func(ctx context.Context, _ *rpc.MessagesRequest) (*rpc.Page, error) {
			arrived <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}, ServerOptions{})
	client := dial(t, server.address, Options{})
	result, read := make(chan error, 1), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := client.Append(context.Background(), appendOf("k", "x"))
		result <- err
	})
	wg.Go(func() {
		_, err := client.Messages(context.Background(), &rpc.MessagesRequest{Key: "k"})
		read <- err
	})
	<-arrived
	<-arrived
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, server.Close(ctx), context.Canceled)
	require.ErrorIs(t, <-result, rpc.ErrOutcomeUnknown)
	require.ErrorIs(t, <-read, rpc.ErrUnavailable)
	wg.Wait()
}

// A client that is closed answers everybody.
func TestCloseOfTheClient(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	server := serve(t, "", &stubNode{append: func(ctx context.Context, _ *rpc.AppendRequest) (*rpc.AppendReply, error) {
		arrived <- struct{}{}
		<-ctx.Done()
		return nil, rpc.ErrOutcomeUnknown
	}}, ServerOptions{})
	client := dial(t, server.address, Options{})
	waiting := dial(t, freeAddress(t), Options{ConnectWait: time.Minute})
	sent, queued := make(chan error, 1), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := client.Append(context.Background(), appendOf("k", "x"))
		sent <- err
	})
	wg.Go(func() {
		_, err := waiting.Append(context.Background(), appendOf("k", "x"))
		queued <- err
	})
	<-arrived
	require.Eventually(t, func() bool { return waiting.Stats().Queued == 1 }, patience, time.Millisecond)
	require.NoError(t, client.Close())
	require.NoError(t, waiting.Close())
	require.ErrorIs(t, <-sent, rpc.ErrOutcomeUnknown)
	require.ErrorIs(t, <-queued, rpc.ErrClosed)
	_, err := client.Append(context.Background(), appendOf("k", "x"))
	require.ErrorIs(t, err, rpc.ErrClosed)
	wg.Wait()
}

// Writes beyond the bytes of the server, and reads beyond their number, are
// refused as overload.
func TestServerRefusesOverload(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	server := serve(t, "", &stubNode{
		append: func(context.Context, *rpc.AppendRequest) (*rpc.AppendReply, error) {
			arrived <- struct{}{}
			<-release
			return &rpc.AppendReply{}, nil
		},
		messages: func(context.Context, *rpc.MessagesRequest) (*rpc.Page, error) {
			arrived <- struct{}{}
			<-release
			return &rpc.Page{}, nil
		},
	}, ServerOptions{MaxTotalBytes: 1000, MaxReads: 1})
	client := dial(t, server.address, Options{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := client.Append(within10s(t), &rpc.AppendRequest{Key: "k", Messages: repeat(1, 800)}); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if _, err := client.Messages(within10s(t), &rpc.MessagesRequest{Key: "k"}); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	<-arrived
	_, err := client.Append(within10s(t), &rpc.AppendRequest{Key: "k", Messages: repeat(1, 800)})
	require.ErrorIs(t, err, rpc.ErrOverloaded)
	_, err = client.Messages(within10s(t), &rpc.MessagesRequest{Key: "k"})
	require.ErrorIs(t, err, rpc.ErrOverloaded)
	close(release)
	wg.Wait()
}

// Big requests have a stream of their own; small ones spread over the others.
func TestLanes(t *testing.T) {
	t.Parallel()
	client := dial(t, freeAddress(t), Options{Streams: 4})
	require.Same(t, client.lanes[3], client.lane(maxSmallRequest+1))
	used := map[*lane]int{}
	for range 30 {
		used[client.lane(100)]++
	}
	require.Equal(t, map[*lane]int{client.lanes[0]: 10, client.lanes[1]: 10, client.lanes[2]: 10}, used)
	single := dial(t, freeAddress(t), Options{Streams: 1})
	require.Same(t, single.lane(1), single.lane(1<<20))
}
