package stream

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// workers runs tasks on at most max goroutines, which exist only while there is
// something to do. What queues is bounded by those who hand in: a topic has one
// subscription being opened, a cursor waits for one page.
type workers struct {
	max int

	mu      sync.Mutex // guards the rest
	queue   []func()
	running int
	closed  bool
	wg      sync.WaitGroup
}

// do queues a task. After close it is dropped.
func (w *workers) do(task func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.queue = append(w.queue, task)
	if w.running < w.max {
		w.running++
		w.wg.Go(w.run)
	}
}

func (w *workers) run() {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.queue = nil // lets go of what a burst grew
			w.running--
			w.mu.Unlock()
			return
		}
		task := w.queue[0]
		w.queue[0] = nil
		w.queue = w.queue[1:]
		w.mu.Unlock()
		task()
	}
}

// close drops what is queued and waits for what runs.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.queue = nil
	w.mu.Unlock()
	w.wg.Wait()
}

// lanes are workers that keep groups that fail from holding up those that do
// not: a call to a group without a leader takes as long as it is tried, and
// while one is down there may be thousands.
type lanes struct {
	well, ill workers
	failed    [rpc.Groups]atomic.Int64 // when, in Unix milliseconds; 0 since it last succeeded
}

const (
	// illShare is how many of the workers serve groups that fail.
	illShare = 4
	// illFor is how long a group counts as failing after a failure.
	illFor = 5 * time.Second
)

func (l *lanes) init(max int) {
	l.well.max = max
	l.ill.max = (max + illShare - 1) / illShare
}

// do queues a task that calls the group.
func (l *lanes) do(g rpc.Group, task func()) {
	if at := l.failed[g].Load(); at != 0 && time.Since(time.UnixMilli(at)) < illFor {
		l.ill.do(task)
		return
	}
	l.well.do(task)
}

// tell remembers how a call to the group went.
func (l *lanes) tell(g rpc.Group, failed bool) {
	switch {
	case failed:
		l.failed[g].Store(time.Now().UnixMilli())
	case l.failed[g].Load() != 0:
		l.failed[g].Store(0)
	}
}

func (l *lanes) close() {
	l.well.close()
	l.ill.close()
}
