package archiver

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// maxProblems bounds the conversations that a status names.
const maxProblems = 100

// Status is what an archiver knows of its work.
type Status struct {
	Archive string // where to, without a password
	Ready   bool   // the archive was prepared
	// Error is why the archive cannot be written now, "" when it can. Leases is
	// the same for the control plane.
	Error  string
	Leases string
	Groups []GroupStatus // whose lease is held, ascending
	// Problems are conversations that cannot be archived, at most 100.
	Problems []Problem
	Totals   Totals
}

// GroupStatus is the archive of one group.
type GroupStatus struct {
	Group   rpc.Group
	Epoch   uint64
	Leading bool
	// Conversations are behind by Pending messages, the oldest since Behind.
	// While not Complete there may be more: the group is still being read.
	Conversations int
	Pending       uint64
	Behind        time.Time
	Complete      bool
	LastAck       time.Time
	Error         string
}

// Problem is a conversation that cannot be archived.
type Problem struct {
	Group        rpc.Group
	Conversation string
	Error        string
}

// Totals count since the process started.
type Totals struct {
	Messages, Bytes, Batches, Acks, Failures, Problems uint64
}

// Pending sums up the messages that are known not to be archived.
func (s Status) Pending() uint64 {
	var n uint64
	for i := range s.Groups {
		n += s.Groups[i].Pending
	}
	return n
}

// Status returns the state of this moment.
func (a *Archiver) Status() Status {
	s := Status{Archive: a.opts.Store.Target(), Totals: a.totals.read()}
	s.Error, s.Leases = a.health.read()
	if s.Leases == "" && a.Resigned() {
		s.Leases = "none are asked for until the archive can be written from here"
	}
	select {
	case <-a.ready:
		s.Ready = true
	default:
	}
	for i := range a.trackers {
		t := &a.trackers[i]
		g, held := t.status()
		if !held {
			continue
		}
		if replica := a.opts.Group(t.group); replica != nil {
			g.Leading = replica.Leading()
		}
		s.Groups = append(s.Groups, g)
		for _, p := range t.problems(maxProblems - len(s.Problems)) {
			p.Group = t.group
			s.Problems = append(s.Problems, p)
		}
	}
	return s
}

func (t *tracker) status() (GroupStatus, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := GroupStatus{
		Group: t.group, Epoch: t.epoch, Conversations: len(t.entries), Pending: t.pending,
		Complete: t.scan.done, LastAck: t.lastAck,
	}
	if t.lastErr != nil {
		s.Error = t.lastErr.Error()
	}
	for _, e := range t.entries {
		if s.Behind.IsZero() || e.since.Before(s.Behind) {
			s.Behind = e.since
		}
	}
	return s, t.epoch != 0
}

// totals count what was done.
type totals struct {
	messages, bytes, batches, acks, failures, divergences atomic.Uint64
}

func (t *totals) wrote(rows, bytes int) {
	t.messages.Add(uint64(rows))
	t.bytes.Add(uint64(bytes))
	t.batches.Add(1)
}

func (t *totals) read() Totals {
	return Totals{
		Messages: t.messages.Load(), Bytes: t.bytes.Load(), Batches: t.batches.Load(),
		Acks: t.acks.Load(), Failures: t.failures.Load(), Problems: t.divergences.Load(),
	}
}

// health is what is wrong now. It logs when that changes.
type health struct {
	mu                  sync.Mutex // guards the rest
	storeErr, leasesErr string
	since               time.Time // the store fails without a success; zero when it does not
}

// failing returns for how long the store has failed without a success.
func (h *health) failing(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() {
		return 0
	}
	return now.Sub(h.since)
}

func (h *health) store(log *slog.Logger, err error) {
	h.mu.Lock()
	if err == nil {
		h.since = time.Time{}
	} else if h.since.IsZero() {
		h.since = time.Now()
	}
	h.mu.Unlock()
	h.change(log, &h.storeErr, err, "archive", "messages stay in the hot log until it is back")
}

func (h *health) leases(log *slog.Logger, err error) {
	h.change(log, &h.leasesErr, err, "archiver leases", "nothing is archived without them")
}

func (h *health) change(log *slog.Logger, field *string, err error, what, consequence string) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	h.mu.Lock()
	before := *field
	*field = text
	h.mu.Unlock()
	switch {
	case err != nil && before == "":
		log.Warn(what+" cannot be used, "+consequence, "error", err)
	case err == nil && before != "":
		log.Info(what + " can be used again")
	}
}

func (h *health) read() (store, leases string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.storeErr, h.leasesErr
}
