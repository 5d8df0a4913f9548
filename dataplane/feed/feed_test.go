package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is a state machine on a real store, with a feed behind it.
type harness struct {
	t       testing.TB
	engine  *storage.Engine
	machine *state.Machine
	feed    *Feed
	quota   *Quota
	index   uint64
}

func newHarness(t testing.TB) *harness {
	t.Helper()
	engine, err := storage.Open(storage.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	h := &harness{t: t, engine: engine, quota: NewQuota(1000)}
	h.feed = New(h.quota)
	h.machine, err = state.Open(engine.DB(), 7, state.Options{
		OnCommit: func(list []state.Committed) { h.feed.Committed(list, h.machine.Conversation) },
		OnReset:  func() { h.feed.Reset(h.machine.Conversation) },
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, h.machine.Close())
		require.NoError(t, engine.Close())
	})
	return h
}

func (h *harness) apply(ops ...state.Op) {
	h.t.Helper()
	h.index++
	data := state.EncodeCommand(nil, time.Unix(int64(h.index), 0), ops...)
	outcomes, err := h.machine.Apply([]state.Entry{{Index: h.index, Term: 1, Data: data}})
	require.NoError(h.t, err)
	for _, o := range outcomes[0] {
		require.NoError(h.t, o.Err)
	}
}

func appendOp(key rpc.Key, texts ...string) state.Op {
	req := &rpc.AppendRequest{Key: key}
	for _, text := range texts {
		req.Messages = append(req.Messages, rpc.NewMessage{Content: fmt.Appendf(nil, `"role":"user","parts":[%q]`, text)})
	}
	return state.AppendOp(req)
}

func (h *harness) put(keys ...rpc.Key) {
	for _, key := range keys {
		h.apply(state.PutOp(&rpc.PutRequest{Key: key}))
	}
}

func (h *harness) begin(key rpc.Key) func() (*rpc.SubscribeReply, error) {
	return func() (*rpc.SubscribeReply, error) {
		conv, err := h.machine.Conversation(key)
		if errors.Is(err, rpc.ErrNotFound) {
			return &rpc.SubscribeReply{}, nil
		}
		return &rpc.SubscribeReply{Exists: true, LastSeq: conv.LastSeq}, err
	}
}

func (h *harness) subscribe(key rpc.Key, to rpc.Subscriber) func() {
	h.t.Helper()
	_, stop, err := h.feed.Subscribe(key, to, h.begin(key))
	require.NoError(h.t, err)
	return stop
}

// recorder is a subscriber that remembers.
type recorder struct {
	mu   sync.Mutex // guards what follows
	news []rpc.News
	ends []error
}

func (r *recorder) Deliver(n rpc.News) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.news = append(r.news, n)
}

func (r *recorder) End(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends = append(r.ends, err)
}

func (r *recorder) take() ([]rpc.News, []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news, ends := r.news, r.ends
	r.news, r.ends = nil, nil
	return news, ends
}

func TestNewsAreWhatIsStored(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.put("a", "b")
	var one, other, elsewhere recorder
	h.subscribe("a", &one)
	h.subscribe("a", &other)
	h.subscribe("b", &elsewhere)
	h.apply(appendOp("a", "1", "2"), appendOp("b", "x"), appendOp("a", "3"))
	h.apply(appendOp("a", "4"))

	news, ends := one.take()
	require.Empty(t, ends)
	require.Len(t, news, 2, "one per commit")
	require.EqualValues(t, 3, news[0].LastSeq)
	require.EqualValues(t, 4, news[1].LastSeq)
	page, err := h.machine.Messages("a", 1, 10, 0)
	require.NoError(t, err)
	require.Equal(t, page.Messages, append(news[0].Messages, news[1].Messages...))
	same, _ := other.take()
	require.Equal(t, news, same)
	require.Same(t, &news[0].Messages[0], &same[0].Messages[0], "subscribers share one copy")
	few, _ := elsewhere.take()
	require.Len(t, few, 1)
	require.EqualValues(t, 1, few[0].LastSeq)
}

func TestTombstoneIsNews(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.put("a", "b")
	var a, b recorder
	h.subscribe("a", &a)
	h.subscribe("b", &b)
	h.apply(appendOp("a", "1"), appendOp("b", "1"))
	a.take()
	b.take()
	h.apply(state.TombstoneOp("a"), appendOp("b", "2"), state.TombstoneOp("b"))
	news, _ := a.take()
	require.Equal(t, []rpc.News{{LastSeq: 1, Tombstoned: true}}, news)
	news, _ = b.take()
	require.Len(t, news, 1)
	require.Len(t, news[0].Messages, 1)
	require.EqualValues(t, 2, news[0].LastSeq)
	require.True(t, news[0].Tombstoned)
}

// A conversation need not exist to be followed.
func TestNewsOfAConversationThatBegins(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var r recorder
	reply, stop, err := h.feed.Subscribe("a", &r, h.begin("a"))
	require.NoError(t, err)
	defer stop()
	require.Equal(t, &rpc.SubscribeReply{}, reply)
	h.put("a")
	h.apply(appendOp("a", "1"))
	news, _ := r.take()
	require.Len(t, news, 1)
}

func TestStop(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.put("a")
	recorders := make([]recorder, 5)
	var stops []func()
	for i := range recorders {
		stops = append(stops, h.subscribe("a", &recorders[i]))
	}
	for _, i := range []int{1, 4, 0} {
		stops[i]()
		stops[i]()
	}
	require.Equal(t, 2, h.quota.Used())
	h.apply(appendOp("a", "1"))
	for i := range recorders {
		news, ends := recorders[i].take()
		require.Empty(t, ends)
		require.Equal(t, i == 2 || i == 3, len(news) == 1, "subscriber %d", i)
	}
	stops[2]()
	stops[3]()
	require.Zero(t, h.quota.Used())
	require.Zero(t, h.feed.count.Load())
	require.Empty(t, h.feed.subs)
}

// stopper wants a lock in its delivery that its owner holds while it stops.
type stopper struct {
	mu        sync.Mutex
	delivered chan struct{}
	once      sync.Once
}

func (s *stopper) Deliver(rpc.News) {
	s.once.Do(func() { close(s.delivered) })
	s.mu.Lock()
	defer s.mu.Unlock()
}

func (s *stopper) End(error) {}

func TestStopWaitsForNoDelivery(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.put("a")
	s := &stopper{delivered: make(chan struct{})}
	stop := h.subscribe("a", s)
	s.mu.Lock()
	var wg sync.WaitGroup
	wg.Go(func() { h.apply(appendOp("a", "1")) })
	<-s.delivered
	stop()
	s.mu.Unlock()
	wg.Wait()
}

func TestEndAndClose(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.put("a")
	var a, b, stopped recorder
	stopA := h.subscribe("a", &a)
	h.subscribe("b", &b)
	h.subscribe("a", &stopped)()
	lost := &rpc.NotLeaderError{Group: 7, Leader: "n2"}
	h.feed.End(lost)
	for _, r := range []*recorder{&a, &b} {
		_, ends := r.take()
		require.Equal(t, []error{lost}, ends)
	}
	stopA()
	_, ends := stopped.take()
	require.Empty(t, ends)
	require.Zero(t, h.quota.Used())
	require.Zero(t, h.feed.count.Load())

	h.apply(appendOp("a", "1"))
	news, _ := a.take()
	require.Empty(t, news)

	h.subscribe("a", &a)
	h.feed.Close(rpc.ErrClosed)
	_, ends = a.take()
	require.Equal(t, []error{rpc.ErrClosed}, ends)
	_, _, err := h.feed.Subscribe("a", &a, h.begin("a"))
	require.ErrorIs(t, err, rpc.ErrClosed)
	require.Zero(t, h.quota.Used())
}

// A subscription that ends before it has begun is told by the error of Subscribe
// alone.
func TestEndBeforeSubscribeReturns(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	lost := &rpc.NotLeaderError{Group: 7}
	var r recorder
	_, _, err := h.feed.Subscribe("a", &r, func() (*rpc.SubscribeReply, error) {
		h.feed.End(lost)
		return &rpc.SubscribeReply{}, nil
	})
	require.Equal(t, error(lost), err)
	_, _, err = h.feed.Subscribe("a", &r, func() (*rpc.SubscribeReply, error) { return nil, rpc.ErrCorrupt })
	require.ErrorIs(t, err, rpc.ErrCorrupt)
	_, ends := r.take()
	require.Empty(t, ends)
	require.Zero(t, h.quota.Used())
	require.Empty(t, h.feed.subs)
}

func TestQuotaIsShared(t *testing.T) {
	t.Parallel()
	quota := NewQuota(2)
	one, two := New(quota), New(quota)
	ok := func() (*rpc.SubscribeReply, error) { return &rpc.SubscribeReply{}, nil }
	_, stop, err := one.Subscribe("a", &recorder{}, ok)
	require.NoError(t, err)
	_, _, err = two.Subscribe("a", &recorder{}, ok)
	require.NoError(t, err)
	_, _, err = one.Subscribe("b", &recorder{}, ok)
	require.ErrorIs(t, err, rpc.ErrOverloaded)
	stop()
	_, _, err = one.Subscribe("b", &recorder{}, ok)
	require.NoError(t, err)
	two.End(rpc.ErrClosed)
	require.Equal(t, 1, quota.Used())
}

// A snapshot that replaces the state skips commits: subscribers hear where their
// conversation stands.
func TestResetTellsWhereThingsStand(t *testing.T) {
	t.Parallel()
	ahead, h := newHarness(t), newHarness(t)
	for _, x := range []*harness{ahead, h} {
		x.put("a", "b")
		x.apply(appendOp("a", "1"))
	}
	var a, b, c recorder
	h.subscribe("a", &a)
	h.subscribe("b", &b)
	h.subscribe("c", &c)
	ahead.apply(appendOp("a", "2", "3"), state.TombstoneOp("b"))

	snapshot, err := ahead.machine.OpenSnapshot()
	require.NoError(t, err)
	installer, err := h.machine.NewInstaller()
	require.NoError(t, err)
	_, err = snapshot.WriteTo(installer)
	require.NoError(t, err)
	require.NoError(t, snapshot.Close())
	require.NoError(t, installer.Commit(nil))

	for r, want := range map[*recorder]rpc.News{&a: {LastSeq: 3}, &b: {Tombstoned: true}, &c: {}} {
		news, ends := r.take()
		require.Equal(t, []rpc.News{want}, news)
		require.Empty(t, ends)
	}
}

// What cannot be read cannot be told: the subscriber has to come again, the others
// stay.
func TestUnreadableConversationEndsItsSubscriptions(t *testing.T) {
	t.Parallel()
	f := New(NewQuota(10))
	ok := func() (*rpc.SubscribeReply, error) { return &rpc.SubscribeReply{}, nil }
	var bad, good recorder
	for key, r := range map[rpc.Key]*recorder{"bad": &bad, "good": &good} {
		_, _, err := f.Subscribe(key, r, ok)
		require.NoError(t, err)
	}
	f.Reset(func(key rpc.Key) (rpc.Conversation, error) {
		if key == "bad" {
			return rpc.Conversation{}, rpc.ErrCorrupt
		}
		return rpc.Conversation{LastSeq: 4}, nil
	})
	_, ends := bad.take()
	require.Len(t, ends, 1)
	require.ErrorIs(t, ends[0], rpc.ErrUnavailable)
	require.ErrorIs(t, ends[0], rpc.ErrCorrupt)
	news, ends := good.take()
	require.Len(t, news, 1)
	require.Empty(t, ends)
	require.Equal(t, 1, f.quota.Used())
}

func TestNothingIsAllocatedForNobody(t *testing.T) {
	f := New(NewQuota(10))
	list := []state.Committed{{Key: "a", Messages: []rpc.Message{{Seq: 1, JSON: []byte("{}")}}}}
	require.Zero(t, testing.AllocsPerRun(100, func() { f.Committed(list, nil) }))
	_, stop, err := f.Subscribe("b", &recorder{}, func() (*rpc.SubscribeReply, error) { return nil, nil })
	require.NoError(t, err)
	defer stop()
	require.Zero(t, testing.AllocsPerRun(100, func() { f.Committed(list, nil) }))
}

// The harness as a Source of package feedtest.
func (h *harness) Subscribe(_ context.Context, key rpc.Key, to rpc.Subscriber) (*rpc.SubscribeReply, func(), error) {
	return h.feed.Subscribe(key, to, h.begin(key))
}

func (h *harness) Messages(_ context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
	page, err := h.machine.Messages(req.Key, req.From, req.Limit, 0)
	return &page, err
}
