package forward

import (
	"context"
	"errors"
	"sync"
	"time"

	control "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// errSuperseded is why a try was given up: the group is led by another node,
// and the one that was asked has not said a word since.
var errSuperseded = errors.New("the group is led by another node")

// flights are the tries under way. A node that is paused, or cut off from this
// router, keeps its connections: without this, what was asked of it would wait
// for the whole of the request's time although another node leads long since.
type flights struct {
	grace time.Duration
	group [rpc.Groups]struct {
		mu    sync.Mutex // guards tries
		tries map[*flight]struct{}
	}

	mu     sync.Mutex // guards the rest
	timers map[*time.Timer]struct{}
	closed bool
}

// flight is one try.
type flight struct {
	at   control.NodeID
	stop context.CancelCauseFunc
}

// begin enters a try. end must be called.
func (f *flights) begin(ctx context.Context, g rpc.Group, at control.NodeID) (_ context.Context, end func()) {
	ctx, stop := context.WithCancelCause(ctx)
	try := &flight{at: at, stop: stop}
	group := &f.group[g]
	group.mu.Lock()
	if group.tries == nil {
		group.tries = make(map[*flight]struct{})
	}
	group.tries[try] = struct{}{}
	group.mu.Unlock()
	return ctx, func() {
		group.mu.Lock()
		delete(group.tries, try)
		group.mu.Unlock()
		stop(nil)
	}
}

// superseded gives up, after the grace in which a node that still can answers
// by itself, the tries that are under way now at nodes which no longer lead.
func (f *flights) superseded(moves map[rpc.Group]control.NodeID) {
	var late []*flight
	for g, from := range moves {
		group := &f.group[g]
		group.mu.Lock()
		for try := range group.tries {
			if try.at == from {
				late = append(late, try)
			}
		}
		group.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(late) == 0 || f.closed {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(f.grace, func() {
		f.mu.Lock()
		delete(f.timers, timer)
		f.mu.Unlock()
		for _, try := range late {
			try.stop(errSuperseded) // nothing happens to one that has ended
		}
	})
	f.timers[timer] = struct{}{}
}

func (f *flights) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for timer := range f.timers {
		timer.Stop()
	}
	clear(f.timers)
}
