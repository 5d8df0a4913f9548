package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

const (
	// replayTarget is how many messages a server must replay with a second of
	// processor time.
	replayTarget = 100_000.0
	// replayPatience bounds one replay.
	replayPatience = 2 * time.Minute
)

// replayRun is one replay of a conversation over one connection.
type replayRun struct {
	Transport    string  `json:"transport"`
	PerSecond    float64 `json:"messages_per_second"`
	PerCore      float64 `json:"messages_per_cpu_second"`
	MBPerSecond  float64 `json:"mb_per_second"`
	ClientMicros float64 `json:"client_cpu_us_per_message"`
}

// replay follows long conversations from their first message on, each of them
// once: a router keeps for a while what it has read.
func (b *bench) replay(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "replayed-")
	if err != nil {
		return err
	}
	ops, err := process.FreeAddress()
	if err != nil {
		return err
	}
	f, err := b.startFastpaca(ctx, filepath.Join(dir, "data"), "--ops-listen", ops)
	if err != nil {
		return err
	}
	defer f.stop()
	bodies := newTexts(b.TextBytes)
	for n := range b.Runs * len(transports) {
		if err := fillConversation(ctx, f, conversation(n), b.Replayed, bodies); err != nil {
			return err
		}
	}
	pause(ctx, b.Warmup) // what filling has left to be compacted is no cost of replaying
	byTransport := make(map[string][]replayRun)
	for n := range b.Runs {
		for i, t := range transports {
			run, err := b.replayOnce(ctx, f, t, conversation(n*len(transports)+i))
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			b.report.Replay = append(b.report.Replay, run)
			byTransport[t.name] = append(byTransport[t.name], run)
			b.progress("replay %d/%d: %s %.0f messages/s, %.0f with a second of processor time", n+1, b.Runs, t.name, run.PerSecond, run.PerCore)
		}
	}
	for _, t := range transports {
		b.report.atLeast(fmt.Sprintf("replay of %d messages, %s: messages per second of server CPU", b.Replayed, t.name),
			medianOf(byTransport[t.name], func(r replayRun) float64 { return r.PerCore }), replayTarget, "")
	}
	if b.ProfileDir == "" {
		return nil
	}
	for _, t := range transports {
		if err := b.profileReplay(ctx, f, t, conversation(0), ops); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) replayOnce(ctx context.Context, f *fastpaca, t transport, id string) (replayRun, error) {
	before, err := cost(f)
	if err != nil {
		return replayRun{}, err
	}
	own, started := ownProcessorTime(), time.Now()
	bytes, err := replayed(ctx, f.server.Address(), t, id, uint64(b.Replayed))
	if err != nil {
		return replayRun{}, err
	}
	elapsed, own := time.Since(started).Seconds(), ownProcessorTime()-own
	after, err := cost(f)
	n := float64(b.Replayed)
	return replayRun{
		Transport: t.name, PerSecond: n / elapsed, PerCore: n / max((after-before).Seconds(), tick.Seconds()),
		MBPerSecond: float64(bytes) / elapsed / 1e6, ClientMicros: microseconds(own) / n,
	}, err
}

// replayed follows a conversation from its first message up to a sequence, and
// returns how many bytes that took.
func replayed(ctx context.Context, address string, t transport, id string, upTo uint64) (int64, error) {
	f, err := t.follow(ctx, address, id, 1, busyBuffer)
	if err != nil {
		return 0, err
	}
	defer f.close()
	defer context.AfterFunc(ctx, f.close)()
	if err := f.conn.SetReadDeadline(time.Now().Add(replayPatience)); err != nil {
		return 0, err
	}
	for f.last < upTo {
		if _, err := f.next(); err != nil {
			return f.bytes, errors.Join(err, ctx.Err())
		}
	}
	return f.bytes, nil
}

// profileReplay replays as long as the server profiles itself.
func (b *bench) profileReplay(ctx context.Context, f *fastpaca, t transport, id, ops string) error {
	done := make(chan error, 1)
	go func() {
		done <- fetchProfile(ctx, ops, b.Duration, filepath.Join(b.ProfileDir, "replay-"+t.name+".pprof"))
	}()
	for {
		select {
		case err := <-done:
			return err
		default:
		}
		if _, err := replayed(ctx, f.server.Address(), t, id, uint64(b.Replayed)); err != nil {
			<-done
			return err
		}
	}
}
