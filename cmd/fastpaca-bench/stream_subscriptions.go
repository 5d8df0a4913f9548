package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// What idle subscriptions may cost a router.
const (
	subscriptionKB   = 40.0 // resident, each
	subscriptionCore = 2.0  // percent of a core, all together
	// settleRounds bounds the wait for memory that was freed to be given back.
	settleRounds = 15
)

// subscriptionResult is what open subscriptions that nothing happens on cost a
// router, which serves nothing else.
type subscriptionResult struct {
	Transport     string  `json:"transport"`
	Subscriptions int     `json:"subscriptions"`
	EmptyMB       float64 `json:"empty_mb"`
	ResidentMB    float64 `json:"resident_mb"`
	KBEach        float64 `json:"kb_each"`
	// HeapKBEach and StackKBEach are what of it the Go runtime accounts for.
	HeapKBEach  float64 `json:"heap_kb_each"`
	StackKBEach float64 `json:"stack_kb_each"`
	// DataKBEach is what each costs the data node.
	DataKBEach       float64 `json:"data_node_kb_each"`
	EmptyCorePercent float64 `json:"empty_core_percent"`
	CorePercent      float64 `json:"core_percent"`
	OpenedPerSecond  float64 `json:"opened_per_second"`
}

// subscriptions opens one connection per conversation, each transport on a
// router of its own: memory that one has left could be used by the next.
func (b *bench) subscriptions(ctx context.Context) error {
	if err := raiseOpenFiles(b.Subscriptions); err != nil {
		return err
	}
	f, err := b.clusterOf(ctx, 1)
	if err != nil {
		return err
	}
	defer f.stop()
	ids := make([]string, b.Subscriptions)
	for i := range ids {
		ids[i] = conversation(i)
	}
	if err := f.prepareMany(ctx, ids); err != nil {
		return err
	}
	for _, t := range transports {
		result, err := b.subscribe(ctx, f, t, ids)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		b.report.Subscriptions = append(b.report.Subscriptions, result)
		b.progress("subscriptions: %d of %s: %.1f KB each (%.1f heap, %.1f stacks), %.2f %% of a core", result.Subscriptions, t.name, result.KBEach, result.HeapKBEach, result.StackKBEach, result.CorePercent)
		b.report.atMost(fmt.Sprintf("%d idle subscriptions, %s: resident each", result.Subscriptions, t.name), result.KBEach, subscriptionKB, "KB")
		b.report.atMost(fmt.Sprintf("%d idle subscriptions, %s: processor time", result.Subscriptions, t.name), result.CorePercent, subscriptionCore, "% of a core")
	}
	return nil
}

func (b *bench) subscribe(ctx context.Context, f *fastpacaCluster, t transport, ids []string) (subscriptionResult, error) {
	result := subscriptionResult{Transport: t.name, Subscriptions: len(ids)}
	router, err := startRouter(ctx, f)
	if err != nil {
		return result, err
	}
	defer router.Kill()
	data := f.Data[0]
	empty, err := settle(ctx, router)
	if err != nil {
		return result, err
	}
	dataEmpty, err := settle(ctx, data)
	if err != nil {
		return result, err
	}
	if result.EmptyCorePercent, err = coreShare(ctx, router.PID(), b.Duration/2); err != nil {
		return result, err
	}
	started := time.Now()
	a, err := gather(ctx, t, router.Address(), ids, idleBuffer)
	defer a.close()
	if err != nil {
		return result, err
	}
	result.OpenedPerSecond = float64(len(ids)) / time.Since(started).Seconds()
	a.listen(nil)
	full, err := settle(ctx, router)
	if err != nil {
		return result, err
	}
	dataFull, err := settle(ctx, data)
	if err != nil {
		return result, err
	}
	if result.CorePercent, err = coreShare(ctx, router.PID(), b.Duration); err != nil {
		return result, err
	}
	if b.ProfileDir != "" {
		if err := b.keepHeap(ctx, router, "subscriptions-"+t.name); err != nil {
			return result, err
		}
	}
	each := func(after, before int64) float64 { return float64(after-before) / 1e3 / float64(len(ids)) }
	result.EmptyMB, result.ResidentMB = float64(empty.resident)/1e6, float64(full.resident)/1e6
	result.KBEach, result.HeapKBEach, result.StackKBEach = each(full.resident, empty.resident), each(full.heap, empty.heap), each(full.stack, empty.stack)
	result.DataKBEach = each(dataFull.resident, dataEmpty.resident)
	return result, a.err()
}

func startRouter(ctx context.Context, f *fastpacaCluster) (*cluster.Node, error) {
	n, err := f.AddRouter()
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	if err = n.Start(); err == nil {
		err = n.WaitReady(ready)
	}
	if err != nil {
		n.Kill()
	}
	return n, err
}

// coreShare returns how much of a core a process uses, in percent.
func coreShare(ctx context.Context, pid int, d time.Duration) (float64, error) {
	before, err := processorTime(pid)
	if err != nil {
		return 0, err
	}
	started := time.Now()
	pause(ctx, d)
	after, err := processorTime(pid)
	return 100 * (after - before).Seconds() / time.Since(started).Seconds(), errors.Join(err, ctx.Err())
}

// memoryUse is what a process has in memory, in bytes.
type memoryUse struct{ resident, heap, stack int64 }

// settle has a process collect garbage and returns its memory once what was
// freed has gone back to the kernel.
func settle(ctx context.Context, n *cluster.Node) (memoryUse, error) {
	var last memoryUse
	for range settleRounds {
		text, err := fetch(ctx, "http://"+n.Ops()+"/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return last, err
		}
		now := memoryUse{heap: runtimeFigure(text, "HeapInuse"), stack: runtimeFigure(text, "Stack")}
		if now.resident, err = resident(n.PID()); err != nil {
			return last, err
		}
		const still = 100 // a hundredth less is no change
		if last.resident > 0 && now.resident > last.resident-last.resident/still {
			return now, nil
		}
		last = now
		pause(ctx, 2*time.Second)
	}
	return last, ctx.Err()
}

// runtimeFigure reads a line "# Name = 123" of a heap profile in text form, 0 if
// there is none.
func runtimeFigure(text []byte, name string) int64 {
	_, rest, _ := bytes.Cut(text, []byte("\n# "+name+" = "))
	digits, _ := parseDigits(rest)
	return int64(digits)
}

// fetch reads what a process tells on its ops listener.
func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = reply.Body.Close() }()
	text, err := io.ReadAll(reply.Body)
	if err == nil && reply.StatusCode != http.StatusOK {
		err = errors.New(url + " answered " + strconv.Itoa(reply.StatusCode))
	}
	return text, err
}
