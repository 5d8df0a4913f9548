package archiver

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// tracker knows, for one group, which conversations the archive lacks something
// of. It only tracks while the group's lease is held here.
type tracker struct {
	a        *Archiver
	group    rpc.Group
	tracking atomic.Bool // lets Committed skip the lock

	mu      sync.Mutex // guards the rest
	epoch   uint64     // of the lease, 0 for none
	fenced  uint64     // a lease of this epoch or below was refused by the group
	entries map[rpc.Key]*entry
	queue   []*entry // waiting, in the order of their numbers
	pending uint64   // sum of entry.lag
	scan    scanState
	lastAck time.Time
	lastErr error
}

// entry is a conversation that is behind.
type entry struct {
	key      rpc.Key
	number   uint64    // order of arrival; 0 for one that need not wait for a tick
	since    time.Time // when it fell behind
	last     uint64    // newest message known
	archived uint64    // archived up to here, as far as known
	state    entryState
	changed  bool  // since a writer took it
	problem  error // why it was set aside
	retryAt  time.Time
}

type entryState uint8

const (
	waiting entryState = iota
	taken              // by a writer
	setAside
)

func (e *entry) lag() uint64 { return e.last - min(e.archived, e.last) }

// entryNews is what was learnt of a conversation.
type entryNews struct {
	key rpc.Key
	// first and last are sequences of messages that are not archived; 0 for
	// none.
	first, last uint64
	touched     bool // the conversation itself changed
	now         bool // need not wait for a tick
}

// scanState is how far the group was read for conversations that are behind.
type scanState struct {
	wanted bool
	again  bool // something was missed since it began
	cursor string
	done   bool // everything that is behind is known
}

func (t *tracker) init(a *Archiver, id rpc.Group) { t.a, t.group = a, id }

// hold begins to track, or goes on when the lease is the same. It reports
// whether the lease is new.
func (t *tracker) hold(epoch uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if epoch == t.epoch || epoch <= t.fenced {
		return false
	}
	t.clear()
	t.epoch = epoch
	t.entries = make(map[rpc.Key]*entry)
	t.scan = scanState{wanted: true}
	t.tracking.Store(true)
	return true
}

// drop ends tracking: the lease is gone.
func (t *tracker) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
}

// fence ends a lease that the group has refused.
func (t *tracker) fence(epoch uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fenced = max(t.fenced, epoch)
	if t.epoch <= t.fenced {
		t.clear()
	}
}

// clear is called with the lock.
func (t *tracker) clear() {
	t.tracking.Store(false)
	t.a.entries.Add(-int64(len(t.entries)))
	t.a.pending.Add(-int64(t.pending))
	for _, e := range t.queue {
		t.a.queued.Add(-int64(e.lag()))
	}
	t.epoch, t.entries, t.queue, t.pending, t.scan, t.lastErr = 0, nil, nil, 0, scanState{}, nil
}

// rescan makes the next scan begin anew.
func (t *tracker) rescan() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch != 0 {
		t.missed()
	}
}

// missed is called with the lock when something cannot be remembered.
func (t *tracker) missed() {
	t.scan.done = false
	if t.scan.wanted {
		t.scan.again = true
		return
	}
	t.scan = scanState{wanted: true}
}

// note adds news of a conversation.
func (t *tracker) note(n entryNews) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch != 0 {
		t.add(n)
	}
}

// add is called with the lock.
func (t *tracker) add(n entryNews) {
	e := t.entries[n.key]
	if e == nil {
		if t.a.entries.Load() >= maxEntries {
			t.missed()
			return
		}
		e = &entry{key: n.key, since: time.Now()}
		t.entries[n.key] = e
		t.a.entries.Add(1)
		t.enqueue(e, n.now)
	}
	e.changed = true
	t.count(e, func() {
		if e.last == 0 && n.first > 0 {
			e.archived = n.first - 1 // all before was archived, or it would be known
		}
		e.last = max(e.last, n.last)
	})
}

// count keeps the sums right while change changes an entry's lag.
func (t *tracker) count(e *entry, change func()) {
	before := e.lag()
	change()
	grown := e.lag() - before
	t.pending += grown
	t.a.pending.Add(int64(grown))
	if e.state == waiting {
		t.a.queued.Add(int64(grown))
	}
}

func (t *tracker) enqueue(e *entry, now bool) {
	e.state = waiting
	if e.number = 0; !now {
		e.number = t.a.numbers.Add(1)
	}
	t.queue = append(t.queue, e)
	t.a.queued.Add(int64(e.lag()))
}

// take hands out waiting conversations, at most about rows messages of them,
// for a lease of the epoch returned. Each is given back with finish.
func (t *tracker) take(rows int, all bool, due uint64) (out []*entry, epoch uint64, left int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) > 0 && rows > 0 {
		e := t.queue[0]
		if !all && e.number > due {
			break
		}
		t.queue[0] = nil
		t.queue = t.queue[1:]
		e.state, e.changed = taken, false
		t.a.queued.Add(-int64(e.lag()))
		out = append(out, e)
		rows -= int(min(max(e.lag(), 1), uint64(rows)))
	}
	return out, t.epoch, rows
}

// outcome is what became of a conversation that was taken.
type outcome struct {
	archived uint64 // acknowledged up to here; 0 when nothing was
	last     uint64 // newest message, when it was looked up
	clean    bool   // nothing is left to do unless it changed meanwhile
	problem  error  // it cannot be archived now, for a reason of its own
}

// finish takes back a conversation that take handed out under a lease.
func (t *tracker) finish(e *entry, epoch uint64, o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch != epoch || t.entries[e.key] != e {
		return // another lease, which knows by itself
	}
	t.count(e, func() {
		e.archived = max(e.archived, o.archived)
		e.last = max(e.last, o.last)
	})
	switch {
	case o.problem != nil:
		if e.state != setAside {
			e.state, e.problem, e.retryAt = setAside, o.problem, time.Now().Add(setAsideFor)
			t.lastErr = o.problem
		}
	case o.clean && !e.changed && e.lag() == 0:
		delete(t.entries, e.key)
		t.a.entries.Add(-1)
	default:
		e.problem = nil
		// What came meanwhile may gather until the next tick, the rest has.
		t.enqueue(e, !o.clean || !e.changed || e.lag() >= uint64(t.a.opts.BatchRows))
	}
}

// acked remembers that the group took an acknowledgement, or why not.
func (t *tracker) acked(epoch uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch != epoch {
		return
	}
	if t.lastErr = err; err == nil {
		t.lastAck = time.Now()
	}
}

// retry lets conversations that were set aside be tried again.
func (t *tracker) retry(now time.Time) {
	if !t.tracking.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if e.state == setAside && now.After(e.retryAt) {
			t.enqueue(e, true)
		}
	}
}

// nextScan returns where to read on, for a lease of the epoch returned.
func (t *tracker) nextScan() (cursor string, epoch uint64, wanted bool) {
	if !t.tracking.Load() {
		return "", 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.scan.cursor, t.epoch, t.scan.wanted && t.a.entries.Load() < maxEntries-scanPage
}

// scanned takes what a page of a scan found. last is the page's last key, "" at
// the end of the group.
func (t *tracker) scanned(epoch uint64, found []entryNews, last string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch != epoch {
		return
	}
	for _, n := range found {
		t.add(n)
	}
	switch {
	case last != "":
		t.scan.cursor = last
	case t.scan.again:
		t.scan = scanState{wanted: true}
	default:
		t.scan = scanState{done: true}
	}
}

// problems lists conversations that were set aside.
func (t *tracker) problems(most int) []Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Problem
	for _, e := range t.entries {
		if e.problem != nil {
			out = append(out, Problem{Conversation: string(e.key), Error: e.problem.Error()})
		}
	}
	slices.SortFunc(out, func(a, b Problem) int {
		if a.Conversation < b.Conversation {
			return -1
		}
		return 1
	})
	return out[:min(len(out), most)]
}
