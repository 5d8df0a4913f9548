package feed

import "sync/atomic"

// MaxSubscriptions is how many subscriptions a node takes if nothing else is
// said. One costs about 200 bytes and its key.
const MaxSubscriptions = 1 << 18

// Quota bounds the subscriptions of all feeds of a node together.
type Quota struct {
	limit int64
	used  atomic.Int64
}

// NewQuota returns a quota of limit subscriptions.
func NewQuota(limit int) *Quota { return &Quota{limit: int64(limit)} }

// Used returns how many subscriptions there are.
func (q *Quota) Used() int { return int(q.used.Load()) }

func (q *Quota) take() bool {
	if q.used.Add(1) > q.limit {
		q.used.Add(-1)
		return false
	}
	return true
}

func (q *Quota) give(n int) { q.used.Add(-int64(n)) }
