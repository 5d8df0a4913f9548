package group

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// lease tells whether this replica, while it leads, can be sure that no other
// leader has been elected: it has heard from a quorum within the heartbeat
// timeout, counted from the moment each request was sent. A follower that has
// answered grants no vote before its own heartbeat timeout, counted from the
// later moment it received the request, so the lease ends first. Leadership
// transfer breaks that rule on purpose; it revokes the lease before it starts.
//
// hashicorp/raft steps a leader down by a timer of its main loop. The lease is
// checked at the read itself, so it also holds for a process that was paused.
type lease struct {
	mu    sync.Mutex // guards the fields below
	term  uint64
	heard map[raft.ServerID]time.Time
	match map[raft.ServerID]uint64 // newest entry each follower is known to hold
	told  map[raft.ServerID]uint64 // commit index each follower is known to know

	held atomic.Pointer[chan struct{}] // while requests to followers are held; closed when they may go
}

// holdHeartbeats holds what is sent to followers, and so lets the lease run out,
// until releaseHeartbeats.
func (l *lease) holdHeartbeats() {
	held := make(chan struct{})
	l.held.Store(&held)
}

func (l *lease) releaseHeartbeats() {
	if held := l.held.Swap(nil); held != nil {
		close(*held)
	}
}

// leaseTransport records which followers answered, when they were asked, and
// what they hold, which hashicorp/raft does not tell.
type leaseTransport struct {
	Transport
	lease  *lease
	commit func() uint64 // the group's commit index, as far as known here
	once   sync.Once
	closed chan struct{}
}

func (l *lease) wrap(t Transport, commit func() uint64) *leaseTransport {
	return &leaseTransport{Transport: t, lease: l, commit: commit, closed: make(chan struct{})}
}

// Close ends what is held too.
func (t *leaseTransport) Close() error {
	t.once.Do(func() { close(t.closed) })
	return t.Transport.Close()
}

// AppendEntries renews the lease of the answering follower.
func (t *leaseTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress,
	args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if held := t.lease.held.Load(); held != nil {
		select {
		case <-*held:
		case <-t.closed:
			return fmt.Errorf("append entries: %w", rpc.ErrClosed)
		}
	}
	if len(args.Entries) == 0 && args.LeaderCommitIndex == 0 {
		if news := t.lease.news(id, args.Term, t.commit()); news > 0 {
			copied := *args // raft uses its own again
			copied.LeaderCommitIndex = news
			args = &copied
		}
	}
	asked := time.Now()
	err := t.Transport.AppendEntries(id, target, args, resp)
	if err != nil {
		t.lease.untell(id)
	}
	if err == nil && resp.Term == args.Term && resp.Success {
		match := args.PrevLogEntry
		if n := len(args.Entries); n > 0 {
			match = args.Entries[n-1].Index
		}
		t.lease.renew(id, args.Term, asked, match)
		t.lease.tell(id, args.Term, args.LeaderCommitIndex)
	}
	return err
}

// news returns the commit index that a heartbeat should tell a follower, or 0. A
// heartbeat of raft has none, and says nothing of the log: the follower would take
// all it holds up to there for committed, so it is told no more than what it is
// known in this term to share with the leader.
func (l *lease) news(id raft.ServerID, term, commit uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term {
		return 0
	}
	if shared := min(commit, l.match[id]); shared > l.told[id] {
		return shared
	}
	return 0
}

// untell is for a follower that may have begun anew: what is committed is not on
// its disk.
func (l *lease) untell(id raft.ServerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.told, id)
}

func (l *lease) tell(id raft.ServerID, term, commit uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == term && commit > l.told[id] {
		if l.told == nil {
			l.told = make(map[raft.ServerID]uint64, 2)
		}
		l.told[id] = commit
	}
}

func (l *lease) renew(id raft.ServerID, term uint64, asked time.Time, match uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term < l.term {
		return
	}
	if term > l.term {
		l.term, l.heard, l.match, l.told = term, nil, nil, nil
	}
	if l.heard == nil {
		l.heard = make(map[raft.ServerID]time.Time, 2)
	}
	if l.match == nil {
		l.match = make(map[raft.ServerID]uint64, 2)
	}
	l.match[id] = max(l.match[id], match)
	if asked.After(l.heard[id]) {
		l.heard[id] = asked
	}
}

// matched returns the newest entry that the follower is known to hold in this
// term; false when it has not answered yet.
func (l *lease) matched(id raft.ServerID, term uint64) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	match, ok := l.match[id]
	return match, ok && l.term == term
}

// live reports whether the follower answered in this term a request that was
// sent within the last d.
func (l *lease) live(id raft.ServerID, term uint64, now time.Time, d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term == term && now.Sub(l.heard[id]) < d
}

// forget drops what is known of a follower that leaves or begins anew.
func (l *lease) forget(id raft.ServerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.heard, id)
	delete(l.match, id)
	delete(l.told, id)
}

// revoke forgets who answered: the lease is over until followers answer anew.
func (l *lease) revoke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = nil
}

// valid reports whether a quorum of the voters, self included, answered in
// this term within the last d.
func (l *lease) valid(self raft.ServerID, term uint64, voters []raft.Server, now time.Time, d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	total, live := 0, 0
	for _, s := range voters {
		if s.Suffrage != raft.Voter {
			continue
		}
		total++
		if s.ID == self {
			live++
		} else if l.term == term && now.Sub(l.heard[s.ID]) < d {
			live++
		}
	}
	return live > total/2
}
