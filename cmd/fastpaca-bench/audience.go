package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// audience is a number of open feeds that are read at the same time. Any error
// before close is kept.
// Goroutines: one per feed.
type audience struct {
	feeds []*feed
	wg    sync.WaitGroup

	mu      sync.Mutex // guards the rest
	failure error
	closed  bool
}

// openers is how many feeds are opened at a time.
const openers = 16

// gather opens a feed from now on for each conversation. The caller closes the
// audience, also after an error.
func gather(ctx context.Context, t transport, address string, ids []string, buffer int) (*audience, error) {
	a := &audience{feeds: make([]*feed, len(ids))}
	if err := raiseOpenFiles(len(ids)); err != nil {
		return a, err
	}
	return a, inParallel(openers, func(worker int) error {
		for i := worker; i < len(ids); i += openers {
			f, err := t.follow(ctx, address, ids[i], 0, buffer)
			if err != nil {
				return err
			}
			a.feeds[i] = f
		}
		return nil
	})
}

// inParallel runs n workers and joins their errors.
func inParallel(n int, work func(worker int) error) error {
	var (
		wg       sync.WaitGroup
		failures = make([]error, n)
	)
	for i := range n {
		wg.Go(func() { failures[i] = work(i) })
	}
	wg.Wait()
	return errors.Join(failures...)
}

// listen reads all feeds. heard is called with each message, of one feed from
// one goroutine; it may be nil.
func (a *audience) listen(heard func(feed int, seq uint64)) {
	for i, f := range a.feeds {
		a.wg.Go(func() {
			for {
				n, err := f.next()
				if err != nil {
					a.fail(fmt.Errorf("feed %d: %w", i, err))
					return
				}
				if heard != nil && !n.caughtUp {
					heard(i, n.seq)
				}
			}
		})
	}
}

func (a *audience) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure == nil && !a.closed {
		a.failure = err
	}
}

// err returns why a feed ended, if one has.
func (a *audience) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failure
}

// close closes all feeds and waits until nobody reads them.
func (a *audience) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	for _, f := range a.feeds {
		if f != nil {
			f.close()
		}
	}
	a.wg.Wait()
}

// sparedFiles is what a process opens beside feeds, generously.
const sparedFiles = 1000

// raiseOpenFiles has this process, and those that it starts from now on, open as
// many files as so many feeds take.
func raiseOpenFiles(feeds int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	want := uint64(feeds + sparedFiles)
	if limit.Cur >= want {
		return nil
	}
	if limit.Max < want {
		return fmt.Errorf("%d feeds need %d open files, and the hard limit is %d (ulimit -Hn)", feeds, want, limit.Max)
	}
	limit.Cur = want
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}
