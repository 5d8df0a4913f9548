package remote

import (
	"sync"
	"sync/atomic"
)

// maxIdleWorkers bounds the workers that are kept for the next writes.
const maxIdleWorkers = 1024

// workers run writes, each in a goroutine of its own for as long as the node
// takes. The goroutines are used again: one that has run an append has a stack
// that fits, and a new one would grow it anew, which costs more than the rest of
// the hop. How many there are is bounded by the writes in flight.
type workers struct {
	jobs chan *job // unbuffered: a job is never queued behind a busy worker
	idle atomic.Int64
	wg   sync.WaitGroup
}

func newWorkers() *workers { return &workers{jobs: make(chan *job)} }

// run hands j to an idle worker or to a new one. It does not wait.
func (w *workers) run(j *job) {
	select {
	case w.jobs <- j:
	default:
		w.wg.Go(func() { w.work(j) })
	}
}

func (w *workers) work(j *job) {
	for ok := true; ok; {
		j.run()
		if w.idle.Add(1) > maxIdleWorkers {
			ok = false
		} else {
			j, ok = <-w.jobs
		}
		w.idle.Add(-1)
	}
}

// close lets the workers go. No job may be running or come any more.
func (w *workers) close() {
	close(w.jobs)
	w.wg.Wait()
}
