package stream

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"
)

// keeper runs delayed tasks and the sweep on one goroutine. Tasks must return at
// once.
type keeper struct {
	mu   sync.Mutex // guards due
	due  delays
	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

type delayed struct {
	at   time.Time
	task func()
}

// delays is a heap by time.
type delays []delayed

func (d delays) Len() int           { return len(d) }
func (d delays) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d delays) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *delays) Push(x any)        { *d = append(*d, x.(delayed)) }
func (d *delays) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = delayed{}
	*d = (*d)[:last]
	return x
}

func newKeeper(every time.Duration, sweep func(now time.Time)) *keeper {
	k := &keeper{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go k.run(every, sweep)
	return k
}

// after runs the task once the delay has passed, unless the keeper closes
// before. There is at most one delayed task per topic and per page being read.
func (k *keeper) after(delay time.Duration, task func()) {
	k.mu.Lock()
	at := time.Now().Add(delay)
	soonest := len(k.due) == 0 || at.Before(k.due[0].at)
	heap.Push(&k.due, delayed{at, task})
	k.mu.Unlock()
	if soonest {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

func (k *keeper) run(every time.Duration, sweep func(time.Time)) {
	defer close(k.done)
	sweeps := time.NewTicker(every)
	defer sweeps.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-k.stop:
			return
		case now := <-sweeps.C:
			sweep(now)
		case <-k.wake:
		case <-timer.C:
		}
		timer.Reset(k.runDue())
	}
}

// runDue runs what is due and returns the time until the next.
func (k *keeper) runDue() time.Duration {
	for {
		k.mu.Lock()
		if len(k.due) == 0 {
			k.mu.Unlock()
			return time.Hour
		}
		if left := time.Until(k.due[0].at); left > 0 {
			k.mu.Unlock()
			return left
		}
		next := heap.Pop(&k.due).(delayed)
		k.mu.Unlock()
		next.task()
	}
}

func (k *keeper) close() {
	close(k.stop)
	<-k.done
}

// backoff is the pause after the nth failure in a row: half to all of a
// doubling bound.
func (c *Config) backoff(n int) time.Duration {
	bound := c.BackoffMax
	if shift := max(n-1, 0); shift < 16 {
		bound = min(bound, c.BackoffMin<<shift)
	}
	return bound/2 + rand.N(bound/2+1)
}
