package stream

import (
	"context"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// upstream is one subscription of a topic. It implements rpc.Subscriber; what
// comes after it was replaced is ignored.
type upstream struct {
	topic *topic
	since time.Time
	stop  func() // nil until Subscribe has returned; the topic's mutex guards it
}

// Deliver implements rpc.Subscriber.
func (u *upstream) Deliver(n rpc.News) {
	t := u.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.up != u {
		return
	}
	t.inform(n)
	if t.known {
		t.wake()
	}
}

// End implements rpc.Subscriber.
func (u *upstream) End(err error) {
	t := u.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.up != u {
		return
	}
	if time.Since(u.since) > t.hub.cfg.BackoffMax {
		t.failures = 0
	}
	t.again("subscription ended", err)
}

// again subscribes anew after a pause. The mutex is held.
func (t *topic) again(what string, err error) {
	t.up = nil
	if t.ended {
		return
	}
	t.failures++
	t.hub.metrics.resubscribes.Inc()
	// One line per topic would be a flood when a node goes down.
	t.hub.cfg.Log.Debug(what, "conversation", string(t.key), "failures", t.failures, "error", err)
	t.hub.keeper.after(t.hub.cfg.backoff(t.failures), func() { t.hub.subscribes.do(t.group, t.subscribe) })
}

// subscribe opens a subscription. A worker calls it; there is one at a time per
// topic.
func (t *topic) subscribe() {
	u := &upstream{topic: t, since: time.Now()}
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	t.up = u
	t.mu.Unlock()

	ctx, cancel := context.WithTimeout(t.hub.ctx, t.hub.cfg.CallTimeout)
	reply, stop, err := t.hub.cfg.Feed.Subscribe(ctx, t.key, u)
	cancel()
	t.hub.subscribes.tell(t.group, err != nil)

	t.mu.Lock()
	switch {
	case t.up != u: // ended meanwhile, by itself or with the topic
		t.mu.Unlock()
		if err == nil {
			stop()
		}
		return
	case err != nil:
		t.again("subscribing failed", err)
	default:
		u.stop = stop
		t.learn(reply)
		t.wake()
	}
	t.mu.Unlock()
}
