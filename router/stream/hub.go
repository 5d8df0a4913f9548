package stream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Hub follows conversations for all clients of a router. All its methods may be
// called from any goroutine.
//
// Goroutines: the keeper; and while there is work, workers that open
// subscriptions, read pages and wake cursors. Close stops and waits for all.
// Locks are taken in the order Hub, topic, pager, Session.
type Hub struct {
	cfg     Config
	metrics *metrics
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	keeper     *keeper
	subscribes lanes
	wakes      workers
	pages      *pager
	ringBytes  atomic.Int64
	cursors    atomic.Int64

	mu     sync.Mutex // guards topics and closed
	topics map[rpc.Key]*topic
	closed bool
}

// State is a conversation as its topic knows it. All fields but Exists are zero
// while it does not exist.
type State struct {
	Exists     bool
	LastSeq    uint64
	Version    uint64
	Tombstoned bool
}

// wakeWorkers bounds the goroutines that wake the cursors of topics that many
// follow.
const wakeWorkers = 2

// NewHub returns a running Hub.
func NewHub(cfg Config) (*Hub, error) {
	cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("stream hub: %w", err)
	}
	h := &Hub{cfg: cfg, topics: make(map[rpc.Key]*topic), metrics: newMetrics()}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.subscribes.init(cfg.Subscribes)
	h.wakes.max = wakeWorkers
	h.pages = newPager(h)
	// From here on somebody may read it.
	if err := h.metrics.register(cfg.Registerer, h); err != nil {
		h.cancel()
		return nil, fmt.Errorf("stream metrics: %w", err)
	}
	h.keeper = newKeeper(cfg.Sweep, h.sweep)
	return h, nil
}

// Close ends all subscriptions. Sessions must have been closed before.
func (h *Hub) Close() {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	h.closed = true
	topics := h.topics
	h.topics = nil
	h.mu.Unlock()
	h.cancel()
	h.keeper.close()
	h.subscribes.close()
	h.pages.reads.close()
	for _, t := range topics {
		if stop := t.end(); stop != nil {
			stop()
		}
	}
	h.wakes.close()
}

// follow returns the conversation's topic, held until release.
func (h *Hub) follow(key rpc.Key) (*topic, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("follow: %w", rpc.ErrClosed)
	}
	t := h.topics[key]
	if t == nil {
		if len(h.topics) >= h.cfg.MaxTopics {
			return nil, fmt.Errorf("follow: %d conversations are followed: %w", len(h.topics), rpc.ErrOverloaded)
		}
		t = &topic{hub: h, key: key, group: key.Group(), found: make(chan struct{})}
		h.topics[key] = t
		h.subscribes.do(t.group, t.subscribe)
	}
	t.mu.Lock()
	t.followers++
	t.mu.Unlock()
	return t, nil
}

// Await returns how the conversation stands once that is known. The hold keeps
// it followed until release is called, which must be once. It returns
// rpc.ErrNotFound when the conversation does not exist, rpc.ErrUnavailable when
// that could not be found out before ctx ended, and rpc.ErrOverloaded when too
// many are followed.
func (h *Hub) Await(ctx context.Context, key rpc.Key) (state State, release func(), err error) {
	t, err := h.follow(key)
	if err != nil {
		return State{}, nil, err
	}
	state, err = t.await(ctx)
	if err != nil {
		t.release()
		return State{}, nil, err
	}
	return state, t.release, nil
}

func (t *topic) await(ctx context.Context) (State, error) {
	select {
	case <-t.found:
	case <-t.hub.ctx.Done():
		return State{}, fmt.Errorf("follow: %w", rpc.ErrClosed)
	case <-ctx.Done():
		return State{}, fmt.Errorf("follow: %w: %w", rpc.ErrUnavailable, ctx.Err())
	}
	t.mu.Lock()
	state := t.state
	t.mu.Unlock()
	if state.Exists {
		return state, nil
	}
	// It may have been created since: a creation is no news.
	if _, err := t.hub.cfg.Node.Conversation(ctx, t.key, rpc.ReadOptions{}); err != nil {
		return State{}, fmt.Errorf("follow: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state.Exists = true
	return t.state, nil
}

// sweep forgets topics that nobody follows, lets go of what only late clients
// could want, and gives up on joins that wait too long. The keeper calls it.
func (h *Hub) sweep(now time.Time) {
	var stops []func()
	h.mu.Lock()
	for key, t := range h.topics {
		if stop, gone := t.sweep(now); gone {
			delete(h.topics, key)
			if stop != nil {
				stops = append(stops, stop)
			}
		}
	}
	h.mu.Unlock()
	for _, stop := range stops {
		h.subscribes.well.do(stop)
	}
	h.pages.sweep(now)
}

// Topics is the number of conversations followed.
func (h *Hub) Topics() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.topics)
}
