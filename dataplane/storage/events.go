package storage

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// backgroundLogInterval bounds how often failing flushes and compactions, which
// Pebble starts again at once, are logged.
const backgroundLogInterval = 10 * time.Second

// pebbleLogger gives Pebble's messages to slog. Fatalf halts the engine.
type pebbleLogger struct{ *halter }

// Infof implements pebble.Logger.
func (l pebbleLogger) Infof(format string, args ...any) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.logger.Debug("pebble", "message", fmt.Sprintf(format, args...))
	}
}

// Errorf implements pebble.Logger.
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.logger.Error("pebble", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. It never returns.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.halt(fmt.Errorf(format, args...))
}

// events turns what Pebble reports into health and log lines. Whatever is not
// listed is ignored; Metrics has the numbers.
func (e *Engine) events() *pebble.EventListener {
	background := limitedLog{logger: e.logger}
	return &pebble.EventListener{
		BackgroundError: func(err error) { background.warn("storage background work failed and will be retried", err) },
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			e.health.setCorrupt(fmt.Errorf("%s: %w", info.Path, info.Details))
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			e.logger.Warn("storage writes stall", "reason", info.Reason)
		},
		WriteStallEnd: func() { e.logger.Info("storage writes go on") },
	}
}

// limitedLog logs at most one warning per backgroundLogInterval.
type limitedLog struct {
	logger *slog.Logger

	mu      sync.Mutex // guards what follows
	last    time.Time
	dropped int
}

func (l *limitedLog) warn(message string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last) < backgroundLogInterval && !l.last.IsZero() {
		l.dropped++
		return
	}
	l.logger.Warn(message, "error", err, "dropped", l.dropped)
	l.last, l.dropped = now, 0
}
