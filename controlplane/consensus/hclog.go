package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// repeatInterval is how often the same complaint of raft is written.
	repeatInterval = 10 * time.Second
	// maxRepeated bounds the messages whose repeats are counted. Raft's
	// messages are constants, so the bound is never met in practice; beyond it
	// messages are written each time.
	maxRepeated = 128
)

// raftLogger lets hashicorp/raft log through slog. Raft narrates every state
// change at INFO and every retry to a dead peer at ERROR; the member reports
// elections itself, so everything up to INFO goes to debug and a complaint is
// written once per repeatInterval. Safe for concurrent use.
type raftLogger struct {
	logger  *slog.Logger
	name    string
	implied []any
	shared  *raftLoggerShared
}

// raftLoggerShared is common to a logger and all derived from it.
type raftLoggerShared struct {
	// settled is set once a leader was seen. Before that, warnings about a
	// missing leader are how every start looks and go to debug.
	settled atomic.Bool

	mu      sync.Mutex // guards repeats
	repeats map[string]*repeat
}

// repeat counts what was not written of one message.
type repeat struct {
	written    time.Time
	suppressed int
}

var _ hclog.Logger = (*raftLogger)(nil)

func newRaftLogger(logger *slog.Logger) *raftLogger {
	return &raftLogger{
		logger: logger,
		name:   "raft",
		shared: &raftLoggerShared{repeats: make(map[string]*repeat)},
	}
}

// Log implements hclog.Logger.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	target := l.level(level)
	if !l.logger.Enabled(context.Background(), target) {
		return
	}
	if target >= slog.LevelWarn {
		write, suppressed := l.shared.admit(msg, time.Now())
		if !write {
			return
		}
		if suppressed > 0 {
			args = append(append([]any(nil), args...), "suppressed", suppressed)
		}
	}
	l.logger.Log(context.Background(), target, "raft: "+msg, attributes(l.implied, args)...)
}

// attributes joins two lists of keys and values and renders raft's deferred
// formats.
func attributes(implied, args []any) []any {
	all := make([]any, 0, len(implied)+len(args))
	all = append(append(all, implied...), args...)
	for i, arg := range all {
		if format, ok := arg.(hclog.Format); ok && len(format) > 0 {
			all[i] = fmt.Sprintf(fmt.Sprint(format[0]), format[1:]...)
		}
	}
	return all
}

func (l *raftLogger) level(level hclog.Level) slog.Level {
	switch {
	case level >= hclog.Error:
		return slog.LevelError
	case level == hclog.Warn && l.shared.settled.Load():
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// admit decides whether a complaint is written now and how many like it were
// not written since the last one.
func (s *raftLoggerShared) admit(msg string, now time.Time) (bool, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repeats[msg]
	if r == nil {
		if len(s.repeats) < maxRepeated {
			s.repeats[msg] = &repeat{written: now}
		}
		return true, 0
	}
	if now.Sub(r.written) < repeatInterval {
		r.suppressed++
		return false, 0
	}
	suppressed := r.suppressed
	r.written, r.suppressed = now, 0
	return true, suppressed
}

func (l *raftLogger) derive(name string, args []any) *raftLogger {
	implied := append(l.implied[:len(l.implied):len(l.implied)], args...)
	return &raftLogger{logger: l.logger, name: name, implied: implied, shared: l.shared}
}

// Trace implements hclog.Logger.
func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }

// Debug implements hclog.Logger.
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }

// Info implements hclog.Logger.
func (l *raftLogger) Info(msg string, args ...any) { l.Log(hclog.Info, msg, args...) }

// Warn implements hclog.Logger.
func (l *raftLogger) Warn(msg string, args ...any) { l.Log(hclog.Warn, msg, args...) }

// Error implements hclog.Logger.
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

// IsTrace implements hclog.Logger.
func (l *raftLogger) IsTrace() bool { return l.enabled(hclog.Trace) }

// IsDebug implements hclog.Logger.
func (l *raftLogger) IsDebug() bool { return l.enabled(hclog.Debug) }

// IsInfo implements hclog.Logger.
func (l *raftLogger) IsInfo() bool { return l.enabled(hclog.Info) }

// IsWarn implements hclog.Logger.
func (l *raftLogger) IsWarn() bool { return l.enabled(hclog.Warn) }

// IsError implements hclog.Logger.
func (l *raftLogger) IsError() bool { return l.enabled(hclog.Error) }

func (l *raftLogger) enabled(level hclog.Level) bool {
	return l.logger.Enabled(context.Background(), l.level(level))
}

// ImpliedArgs implements hclog.Logger.
func (l *raftLogger) ImpliedArgs() []any { return l.implied }

// With implements hclog.Logger.
func (l *raftLogger) With(args ...any) hclog.Logger { return l.derive(l.name, args) }

// Name implements hclog.Logger.
func (l *raftLogger) Name() string { return l.name }

// Named implements hclog.Logger.
func (l *raftLogger) Named(name string) hclog.Logger { return l.derive(l.name+"."+name, nil) }

// ResetNamed implements hclog.Logger.
func (l *raftLogger) ResetNamed(name string) hclog.Logger { return l.derive(name, nil) }

// SetLevel implements hclog.Logger. The level is the slog handler's.
func (l *raftLogger) SetLevel(hclog.Level) {}

// GetLevel implements hclog.Logger.
func (l *raftLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Debug, hclog.Warn, hclog.Error} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

// StandardLogger implements hclog.Logger.
func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.logger.Handler(), slog.LevelDebug)
}

// StandardWriter implements hclog.Logger.
func (l *raftLogger) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(opts).Writer()
}
