package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

const (
	// routerStarts is how many routers are started, one after the other.
	routerStarts = 7
	// What a router must reach: milliseconds from exec to the first answered
	// append, and resident MB after it has been used.
	routerStartTarget  = 250.0
	routerMemoryTarget = 60.0
	// routerPoll is how often an append is tried on a starting router.
	routerPoll = time.Millisecond
)

// routerStartResult holds times from exec to the first answered append, and
// resident memory after it and after a load.
type routerStartResult struct {
	Milliseconds []float64 `json:"ms"`
	ResidentMB   []float64 `json:"resident_mb"`
	LoadedMB     float64   `json:"resident_mb_after_load"`
}

// routerStart starts routers beside a running cluster.
func (b *bench) routerStart(ctx context.Context) error {
	f, err := b.freshCluster(ctx)
	if err != nil {
		return err
	}
	defer f.stop()
	ids := b.conversationIDs()
	if err := f.prepare(ctx, ids); err != nil {
		return err
	}
	result := &routerStartResult{}
	for i := range routerStarts {
		n, err := f.AddRouter()
		if err != nil {
			return err
		}
		took, err := firstAppendOf(ctx, n, ids[i%len(ids)])
		if err != nil {
			return err
		}
		memory, err := resident(n.PID())
		if err != nil {
			return err
		}
		n.Kill()
		result.Milliseconds = append(result.Milliseconds, milliseconds(took))
		result.ResidentMB = append(result.ResidentMB, float64(memory)/1e6)
		b.progress("routerstart %d/%d: %.0f ms, %.0f MB", i+1, routerStarts, milliseconds(took), float64(memory)/1e6)
	}
	f.Routers = f.Routers[:1]
	if _, err := b.measureAppends(ctx, f, ids); err != nil {
		return err
	}
	memory, err := resident(f.Routers[0].PID())
	if err != nil {
		return err
	}
	result.LoadedMB = float64(memory) / 1e6
	b.report.RouterStart = result
	b.report.atMost("router: exec to first answered append", median(result.Milliseconds), routerStartTarget, "ms")
	b.report.atMost(fmt.Sprintf("router: resident after %d clients", b.Clients), result.LoadedMB, routerMemoryTarget, "MB")
	return nil
}

// firstAppendOf starts a router and returns the time from before its exec to
// after the first append that it answered with an ack.
func firstAppendOf(ctx context.Context, n *cluster.Node, id string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	started := time.Now()
	if err := n.Start(); err != nil {
		return 0, err
	}
	for {
		err := appendTo(ctx, n.Address(), id)
		if err == nil {
			return time.Since(started), nil
		}
		if !n.Running() || ctx.Err() != nil {
			return 0, fmt.Errorf("router took no append: %w:\n%s", errors.Join(err, ctx.Err()), n.Output())
		}
		pause(ctx, routerPoll)
	}
}

func appendTo(ctx context.Context, address, id string) error {
	w, err := dialWire(ctx, address)
	if err != nil {
		return err
	}
	defer w.close()
	_, err = w.must(201, "POST", path(id)+"/messages", []byte(`{"message":{"role":"user","parts":[{"type":"text","text":"first"}]}}`))
	return err
}
