package group

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// The log is kept no longer than is worth it: once it is larger than the state
// it leads to, a follower that lacks it is served better by the state. That
// happens after the archive let most messages be trimmed.
const (
	// minLogBytes is what stays of a log at least, however small the state.
	minLogBytes = 256 << 10
	// So do usualLogEntries, so that followers that are a moment behind need no
	// snapshot, unless they are more than maxSmallLogBytes: of entries that large
	// fewer stay, but minLogEntries.
	usualLogEntries  = 64
	maxSmallLogBytes = 512 << 10
	minLogEntries    = 8
	// logSamples is how many entries are looked at to estimate a log's size.
	logSamples = 16
	// logLengthInterval is how often a log that grew is looked at.
	logLengthInterval = 10 * time.Second
)

// logLength is what the watcher remembers of the last look.
type logLength struct {
	at   time.Time
	last uint64
}

// shorten truncates the log when it is more than twice as large as is worth
// keeping. Called by runWatcher; the truncation itself runs beside it.
func (g *Group) shorten(now time.Time, seen *logLength) {
	r := g.raft.Load()
	if r == nil || now.Sub(seen.at) < logLengthInterval || g.failed() != nil {
		return
	}
	last, _ := g.entries.LastIndex()   // never fails
	first, _ := g.entries.FirstIndex() // never fails
	seen.at = now
	if last == seen.last || first == 0 || last-first < 2*minLogEntries {
		return
	}
	seen.last = last
	mean := g.meanEntryBytes(first, last)
	if mean == 0 {
		return
	}
	trailing := worthKeeping(mean, g.machine.Stats().Bytes)
	if last-first < 2*trailing {
		return
	}
	if err := g.visit(); err != nil {
		return
	}
	go func() {
		defer g.visitors.Done()
		if err := g.truncate(r, trailing); err != nil && !errors.Is(err, raft.ErrRaftShutdown) {
			g.log.Debug("log was not shortened", "error", err)
		}
	}()
}

// worthKeeping is how many entries of a mean size stay of a log that leads to a
// state of so many bytes.
func worthKeeping(mean, state uint64) uint64 {
	floor := max(min(maxSmallLogBytes/mean, usualLogEntries), minLogEntries)
	return min(max(max(minLogBytes, state)/mean, floor), trailingEntries)
}

// meanEntryBytes estimates the size of the log's entries.
func (g *Group) meanEntryBytes(first, last uint64) uint64 {
	var sum, n uint64
	for i := range uint64(logSamples) {
		var entry raft.Log
		if g.entries.GetLog(first+(last-first)*i/logSamples, &entry) == nil {
			sum += uint64(len(entry.Data)) + 64
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// truncate takes a snapshot, which writes nothing, that leaves the given number
// of entries in the log.
func (g *Group) truncate(r *raft.Raft, trailing uint64) error {
	g.reload.Lock()
	defer g.reload.Unlock()
	usual := r.ReloadableConfig()
	shorter := usual
	shorter.TrailingLogs = trailing
	if err := r.ReloadConfig(shorter); err != nil {
		return err
	}
	return errors.Join(r.Snapshot().Error(), r.ReloadConfig(usual))
}
