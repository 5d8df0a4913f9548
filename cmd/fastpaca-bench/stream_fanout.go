package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	// fanoutTarget is how many frames a router must send with a core.
	fanoutTarget = 100_000.0
	// fanoutBatch is how many messages each append brings.
	fanoutBatch = 20
	// fanoutLead bounds how many messages the slowest client may be behind: an
	// appender knows nothing of clients and would outrun them for ever.
	fanoutLead = 1000
	// fanoutPatience bounds the wait for clients that get nothing.
	fanoutPatience = 30 * time.Second
)

// fanoutRun is one conversation that many follow.
type fanoutRun struct {
	Batch         int     `json:"messages_per_append"`
	Messages      int     `json:"messages"`
	Frames        int     `json:"frames"`
	FramesPerSec  float64 `json:"frames_per_second"`
	FramesPerCore float64 `json:"frames_per_second_and_core"` // of the router
	RouterCores   float64 `json:"router_cores"`
	DataCores     float64 `json:"data_node_cores"`
	ClientCores   float64 `json:"client_cores"`
	MBPerSecond   float64 `json:"mb_per_second"`
}

// fanout appends as fast as is acknowledged to a conversation that many clients
// follow: in batches, which is judged, and one message at a time, where each
// message takes a write of the router for each client.
func (b *bench) fanout(ctx context.Context) error {
	f, err := b.clusterOf(ctx, 1)
	if err != nil {
		return err
	}
	defer f.stop()
	id := conversation(0)
	if err := f.prepare(ctx, []string{id}); err != nil {
		return err
	}
	ids := make([]string, b.FanoutClients)
	for i := range ids {
		ids[i] = id
	}
	a, err := gather(ctx, overWebSocket, f.address(), ids, busyBuffer)
	defer a.close()
	if err != nil {
		return err
	}
	crowd := newCrowd(a, len(ids), newTexts(b.TextBytes))
	a.listen(crowd.heard)
	if _, err := crowd.run(ctx, f, id, fanoutBatch, b.Warmup); err != nil {
		return err
	}
	for n := range b.Runs {
		for _, batch := range []int{fanoutBatch, 1} {
			stopProfiles := func() error { return nil }
			if b.ProfileDir != "" && n == 0 {
				unwarmed := *b
				unwarmed.Warmup = 0
				stopProfiles = unwarmed.profile(ctx, f, filepath.Join(b.ProfileDir, fmt.Sprintf("fanout-%d", batch)))
			}
			run, err := crowd.run(ctx, f, id, batch, b.Duration)
			if profileErr := stopProfiles(); err == nil {
				err = profileErr
			}
			if err != nil {
				return err
			}
			b.report.Fanout = append(b.report.Fanout, run)
			b.progress("fanout %d/%d: %d messages an append to %d clients: %.0f frames/s, %.0f with a core of the router", n+1, b.Runs, batch, len(ids), run.FramesPerSec, run.FramesPerCore)
		}
	}
	var judged []fanoutRun
	for _, run := range b.report.Fanout {
		if run.Batch == fanoutBatch {
			judged = append(judged, run)
		}
	}
	b.report.atLeast(fmt.Sprintf("fanout to %d clients: frames/s with a core of the router", len(ids)),
		medianOf(judged, func(r fanoutRun) float64 { return r.FramesPerCore }), fanoutTarget, "")
	return nil
}

// crowd is an audience of one conversation.
type crowd struct {
	*audience
	at     []atomic.Uint64 // sequence read last, of each feed
	bodies texts
	last   uint64 // sequence appended last
}

func newCrowd(a *audience, clients int, bodies texts) *crowd {
	return &crowd{audience: a, at: make([]atomic.Uint64, clients), bodies: bodies}
}

func (c *crowd) heard(feed int, seq uint64) { c.at[feed].Store(seq) }

// slowest is the sequence up to which everyone has read.
func (c *crowd) slowest() uint64 {
	least := c.last
	for i := range c.at {
		least = min(least, c.at[i].Load())
	}
	return least
}

// await waits until everyone has read up to a sequence.
func (c *crowd) await(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, fanoutPatience)
	defer cancel()
	for {
		slowest := c.slowest()
		if slowest >= seq {
			return nil
		}
		if err := c.err(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("a client has read %d of %d messages: %w", slowest, c.last, ctx.Err())
		}
		pause(ctx, time.Millisecond)
	}
}

// run appends for a while and waits until everyone has read everything.
func (c *crowd) run(ctx context.Context, f *fastpacaCluster, id string, batch int, d time.Duration) (fanoutRun, error) {
	w, err := dialWire(ctx, f.address())
	if err != nil {
		return fanoutRun{}, err
	}
	defer w.close()
	var (
		body       []byte
		target     = path(id) + "/messages"
		first      = c.last
		used       = usage(f)
		ownBefore  = ownProcessorTime()
		dataBefore = mustUse(f.Data[0].PID())
		started    = time.Now()
	)
	for time.Since(started) < d && ctx.Err() == nil {
		body = appendBatch(body[:0], batch, int(c.last), c.bodies)
		if _, err := w.must(201, "POST", target, body); err != nil {
			return fanoutRun{}, err
		}
		c.last += uint64(batch)
		if err := c.await(ctx, max(c.last, fanoutLead)-fanoutLead); err != nil {
			return fanoutRun{}, err
		}
	}
	if err := c.await(ctx, c.last); err != nil {
		return fanoutRun{}, err
	}
	elapsed := time.Since(started).Seconds()
	router, _ := used()
	messages := int(c.last - first)
	frames := messages * len(c.feeds)
	return fanoutRun{
		Batch: batch, Messages: messages, Frames: frames,
		FramesPerSec:  float64(frames) / elapsed,
		FramesPerCore: float64(frames) / router.Seconds(),
		RouterCores:   router.Seconds() / elapsed,
		DataCores:     (mustUse(f.Data[0].PID()) - dataBefore).Seconds() / elapsed,
		ClientCores:   (ownProcessorTime() - ownBefore).Seconds() / elapsed,
		MBPerSecond:   float64(frames) * float64(len(body)/batch) / elapsed / 1e6,
	}, nil
}

// mustUse returns 0 for a process that is gone, which its clients report better.
func mustUse(pid int) time.Duration {
	used, err := processorTime(pid)
	if err != nil {
		return 0
	}
	return used
}
