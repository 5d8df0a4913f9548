package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// startResult holds the times from exec to the first acknowledged append.
type startResult struct {
	EmptyMS      []float64 `json:"empty_ms"`
	RestartMS    []float64 `json:"restart_ms"`
	AfterKillMS  []float64 `json:"after_kill_ms"`
	LoadedWithIt int       `json:"messages"`
}

func (b *bench) start(ctx context.Context) error {
	result := &startResult{LoadedWithIt: b.Messages}
	for range b.Runs {
		dir, err := os.MkdirTemp(b.dir, "empty-")
		if err != nil {
			return err
		}
		took, f, err := b.firstAppend(ctx, filepath.Join(dir, "data"))
		if err != nil {
			return err
		}
		f.stop()
		result.EmptyMS = append(result.EmptyMS, milliseconds(took))
	}
	b.progress("start: empty %.0f ms", median(result.EmptyMS))
	if b.loaded == "" {
		b.progress("start: loading %d messages", b.Messages)
		_, dir, err := b.load(ctx)
		if err != nil {
			return err
		}
		b.loaded = dir
	}
	if err := b.restarts(ctx, result); err != nil {
		return err
	}
	b.report.Start = result
	b.report.atMost("empty directory to first ack", median(result.EmptyMS), 2000, "ms")
	b.report.atMost("restart to first ack", median(result.RestartMS), 4000, "ms")
	b.report.atMost("restart after SIGKILL to first ack", median(result.AfterKillMS), 4000, "ms")
	return nil
}

// restarts alternates between a directory that was left by a clean stop and
// one that was left by SIGKILL, after some appends each.
func (b *bench) restarts(ctx context.Context, result *startResult) error {
	bodies := newTexts(b.TextBytes)
	for range b.Runs {
		for _, clean := range []bool{true, false} {
			took, f, err := b.firstAppend(ctx, b.loaded)
			if err != nil {
				return err
			}
			times := &result.AfterKillMS
			if clean {
				times = &result.RestartMS
			}
			*times = append(*times, milliseconds(took))
			b.progress("start: %.0f ms (after a clean stop: %t)", milliseconds(took), clean)
			// What the next start finds: of a clean stop after the killed one,
			// and the other way round.
			err = loadRound(ctx, f, min(1000, loadedConversations), 1, bodies)
			if err == nil && !clean {
				err = f.drain(ctx)
			}
			f.stop()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// firstAppend starts a server and returns the time from before its exec to
// after the first acknowledged append, with the server running.
func (b *bench) firstAppend(ctx context.Context, dir string) (time.Duration, *fastpaca, error) {
	started := time.Now()
	server, err := process.Start(process.Config{Binary: b.Binary, DataDir: dir})
	if err != nil {
		return 0, nil, err
	}
	f := &fastpaca{server}
	ctx, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	for {
		err := tryAppend(ctx, f)
		if err == nil {
			return time.Since(started), f, nil
		}
		select {
		case <-server.Exited():
			return 0, nil, fmt.Errorf("the server exited:\n%s", server.Output())
		case <-ctx.Done():
			f.stop()
			return 0, nil, fmt.Errorf("no append was acknowledged: %w", err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// tryAppend creates a conversation and appends to it, over a connection of its
// own.
func tryAppend(ctx context.Context, f *fastpaca) error {
	w, err := dialWire(ctx, f.server.Address())
	if err != nil {
		return err
	}
	defer w.close()
	if _, err := w.must(200, "PUT", path("first"), []byte("{}")); err != nil {
		return err
	}
	_, err = w.must(201, "POST", path("first")+"/messages",
		[]byte(`{"message":{"role":"user","parts":[{"type":"text","text":"first"}]}}`))
	return err
}
