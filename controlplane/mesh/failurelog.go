package mesh

import (
	"sync"
	"time"
)

// failureLog decides which failures are worth a log line: one per key and
// interval, so that neither a scanner nor a misconfigured process that retries
// can fill a disk. It remembers a bounded number of keys; the rest share one.
type failureLog struct {
	every time.Duration
	now   func() time.Time

	mu   sync.Mutex // guards keys
	keys map[string]*failures
}

// maxFailureKeys bounds the hosts remembered one by one.
const maxFailureKeys = 256

type failures struct {
	logged     time.Time
	suppressed int
}

func newFailureLog(every time.Duration, now func() time.Time) *failureLog {
	return &failureLog{every: every, now: now, keys: make(map[string]*failures)}
}

// allow reports whether to log a failure of key now, and how many were left out
// since the last line.
func (f *failureLog) allow(key string) (suppressed int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	entry := f.keys[key]
	if entry == nil {
		if len(f.keys) >= maxFailureKeys && !f.forget(now) {
			key = "" // no address; holds for all that found no room
			entry = f.keys[key]
		}
		if entry == nil {
			f.keys[key] = &failures{logged: now}
			return 0, true
		}
	}
	if now.Sub(entry.logged) < f.every {
		entry.suppressed++
		return 0, false
	}
	suppressed = entry.suppressed
	entry.logged, entry.suppressed = now, 0
	return suppressed, true
}

// forget drops the keys that would be logged at once again and reports whether
// there is room now.
func (f *failureLog) forget(now time.Time) bool {
	for key, entry := range f.keys {
		if now.Sub(entry.logged) >= f.every {
			delete(f.keys, key)
		}
	}
	return len(f.keys) < maxFailureKeys
}
