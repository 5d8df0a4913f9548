package raftlog

import (
	"sync"

	"github.com/hashicorp/raft"
)

// Bounds of the newest entries kept in memory per group. A leader reads each
// entry back once per follower, a follower once to apply it, both right after
// it was stored. 256 groups hold at most 16 MiB.
const (
	maxRecentEntries = 64
	maxRecentBytes   = 64 << 10
)

// recent is a window over the newest entries of the log, contiguous by index.
type recent struct {
	mu      sync.Mutex // guards the fields below
	entries []raft.Log // entries[i].Index = entries[0].Index + i
	bytes   int
}

func entryBytes(l *raft.Log) int { return len(l.Data) + len(l.Extensions) + 64 }

// add takes entries that follow the window, or start a new one. The entries'
// bytes are shared with Raft, which never changes them.
func (r *recent) add(logs []*raft.Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.entries); n > 0 && logs[0].Index != r.entries[n-1].Index+1 {
		r.clear()
	}
	for _, l := range logs {
		r.entries = append(r.entries, *l)
		r.bytes += entryBytes(l)
	}
	drop, bytes := 0, r.bytes
	for len(r.entries)-drop > maxRecentEntries || (bytes > maxRecentBytes && drop < len(r.entries)) {
		bytes -= entryBytes(&r.entries[drop])
		drop++
	}
	if drop > 0 {
		r.keep(drop, len(r.entries))
	}
}

// get fills l and reports true when the window holds the index.
func (r *recent) get(index uint64, l *raft.Log) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries) == 0 || index < r.entries[0].Index || index-r.entries[0].Index >= uint64(len(r.entries)) {
		return false
	}
	*l = r.entries[index-r.entries[0].Index]
	return true
}

// forget drops the entries of the range, and the whole window if the range is
// inside of it.
func (r *recent) forget(low, high uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.entries)
	if n == 0 || low > r.entries[n-1].Index || high < r.entries[0].Index {
		return
	}
	switch first, last := r.entries[0].Index, r.entries[n-1].Index; {
	case low <= first && high < last:
		r.keep(int(high-first)+1, n)
	case low > first && high >= last:
		r.keep(0, int(low-first))
	default:
		r.clear()
	}
}

// keep drops all but entries[from:to].
func (r *recent) keep(from, to int) {
	for i := range r.entries {
		if i < from || i >= to {
			r.bytes -= entryBytes(&r.entries[i])
		}
	}
	n := copy(r.entries, r.entries[from:to])
	clear(r.entries[n:])
	r.entries = r.entries[:n]
}

func (r *recent) clear() {
	clear(r.entries)
	r.entries, r.bytes = r.entries[:0], 0
}
