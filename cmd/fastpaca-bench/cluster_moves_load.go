package main

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// movesClients bounds the appends under way at a time, and movesWaiting those
	// that are due and wait for one of them.
	movesClients = 256
	movesWaiting = 60 * openLoopRate
	// movesRetry is the rest before an append is sent again, and movesGiveUp when
	// it counts as never healed.
	movesRetry  = 20 * time.Millisecond
	movesGiveUp = 30 * time.Second
)

// movesLoad appends to every group at the rate of the open loop until it is
// ended. Every append has an id and is sent until it is acknowledged; its latency
// counts from when it was due.
// Goroutines: one that schedules, and one per client.
type movesLoad struct {
	ids     []string
	bodies  texts
	address string
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	given   atomic.Int64 // appends that were given up, or found no place to wait
	done    [][]movesAppend
}

// movesAppend is one append that was acknowledged.
type movesAppend struct {
	number             int
	due, acked, failed time.Time // failed: the first time
	failures           int
}

func startMovesLoad(ctx context.Context, address string, ids []string, bodies texts) *movesLoad {
	ctx, cancel := context.WithCancel(ctx)
	l := &movesLoad{ids: ids, bodies: bodies, address: address, cancel: cancel, done: make([][]movesAppend, movesClients)}
	queue := make(chan due, movesWaiting)
	l.wg.Go(func() {
		defer close(queue)
		const gap = time.Second / openLoopRate
		first := time.Now()
		for n := 0; ; n++ {
			d := due{number: n, at: first.Add(time.Duration(n) * gap)}
			pause(ctx, time.Until(d.at))
			if ctx.Err() != nil {
				return
			}
			select {
			case queue <- d:
			default:
				l.given.Add(1)
			}
		}
	})
	for i := range movesClients {
		l.wg.Go(func() { l.run(i, queue) })
	}
	return l
}

// end stops asking for appends, and waits until those asked for are over.
func (l *movesLoad) end() {
	l.cancel()
	l.wg.Wait()
}

func (l *movesLoad) uncured() int { return int(l.given.Load()) }

func messageID(number int) string { return "moved-" + strconv.Itoa(number) }

// run is one client. It takes what is due until there is nothing more, also what
// became due before the load ended.
func (l *movesLoad) run(client int, queue <-chan due) {
	var (
		w    *wire
		body []byte
		p    probe // for its attempts
		ctx  = context.Background()
	)
	defer func() {
		if w != nil {
			w.close()
		}
	}()
	for d := range queue {
		a := movesAppend{number: d.number, due: d.at}
		body = append(append(body[:0], `{"message":{"id":"`...), messageID(d.number)...)
		body = append(appendParts(append(body, `","role":"user","parts":`...), l.bodies.at(d.number)), "}}"...)
		target := path(l.ids[d.number%len(l.ids)]) + "/messages"
		for !p.attempt(ctx, &w, l.address, target, body) {
			if a.failures++; a.failures == 1 {
				a.failed = time.Now()
			}
			if time.Since(a.failed) > movesGiveUp {
				break
			}
			pause(ctx, movesRetry)
		}
		if a.acked = time.Now(); a.failures > 0 && a.acked.Sub(a.failed) > movesGiveUp {
			l.given.Add(1)
			continue
		}
		l.done[client] = append(l.done[client], a)
	}
}
