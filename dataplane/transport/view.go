package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

var (
	_ raft.Transport   = (*View)(nil)
	_ raft.WithPreVote = (*View)(nil)
	_ raft.WithClose   = (*View)(nil)
)

// View is one group's raft.Transport. It serves one Raft instance: to restart
// the instance, close the view and get a new one from Mux.Group.
//
// Shutting down, raft waits for its goroutines before it closes the transport,
// and those may be waiting for peers. Close the view between Raft.Shutdown and
// waiting for its future.
//
// Goroutines: inbox.answer. Methods may be called from any goroutine.
type View struct {
	mux      *Mux
	group    uint16
	consumer chan raft.RPC
	inbox    inbox
	closed   atomic.Bool
	ctx      context.Context // ends with the view
	cancel   context.CancelFunc
	answered chan struct{} // closed when inbox.answer has ended

	receiving atomic.Bool // a snapshot is being received

	peerAddr atomic.Pointer[raft.ServerAddress] // last result of DecodePeer
}

// consumerSpare is room in the Consumer channel for what does not come from
// the inbox: a campaign and a snapshot.
const consumerSpare = 2

func newView(m *Mux, group uint16) *View {
	size := m.conf.Limits.GroupQueue
	v := &View{
		mux: m, group: group,
		consumer: make(chan raft.RPC, size+consumerSpare),
		answered: make(chan struct{}),
	}
	v.ctx, v.cancel = context.WithCancel(m.ctx)
	v.inbox.init(v, size)
	return v
}

// start begins serving. It reports false when the Mux is closed.
func (v *View) start() bool {
	return v.mux.spawn("answer", LaneAppend, func() {
		defer close(v.answered)
		v.inbox.answer()
	})
}

// Close ends the view: calls of its Raft instance fail at once, requests that
// Raft has not answered are refused, snapshots in transfer are aborted. It
// waits for the view's goroutine and always returns nil. Other groups do not
// notice.
func (v *View) Close() error {
	if v.closed.CompareAndSwap(false, true) {
		v.cancel()
		v.mux.forget(v)
		v.inbox.close()
		v.mux.failCalls(v)
	}
	<-v.answered
	return nil
}

func (v *View) isClosed() bool { return v.closed.Load() }

// Consumer returns the channel on which the local Raft instance receives every
// request of its peers, heartbeats included. It is never closed.
func (v *View) Consumer() <-chan raft.RPC { return v.consumer }

// LocalAddr returns the node id.
func (v *View) LocalAddr() raft.ServerAddress { return raft.ServerAddress(v.mux.conf.NodeID) }

// SetHeartbeatHandler ignores the handler: heartbeats go through Consumer like
// every other request. hashicorp/raft's handler would run beside its main loop
// and change the term under it (hashicorp/raft issue 695), after which logs can
// diverge.
func (v *View) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline reports that pipelines are not supported: a group has
// one entry in flight by design, so a pipeline would only add a goroutine per
// follower and group.
func (v *View) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// EncodePeer returns the address, a node id, as it is. The caller must not
// modify the result.
func (v *View) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte {
	if string(addr) == v.mux.conf.NodeID {
		return v.mux.self
	}
	return []byte(addr)
}

// DecodePeer is the inverse of EncodePeer.
func (v *View) DecodePeer(b []byte) raft.ServerAddress {
	if last := v.peerAddr.Load(); last != nil && string(*last) == string(b) {
		return *last
	}
	addr := raft.ServerAddress(b)
	v.peerAddr.Store(&addr)
	return addr
}

// AppendEntries sends heartbeats on the election lane and everything else on
// the append lane. Requests of more than Limits.AppendBytes go in parts.
func (v *View) AppendEntries(_ raft.ServerID, target raft.ServerAddress,
	args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t := &v.mux.conf.Timeouts
	if isHeartbeat(args) {
		return v.roundTrip(target, LaneElection, kindAppend, args, resp, t.Heartbeat)
	}
	if entriesWithin(args.Entries, v.mux.conf.Limits.AppendBytes) == len(args.Entries) {
		return v.roundTrip(target, LaneAppend, kindAppend, args, resp, t.Append)
	}
	return v.appendInParts(target, args, resp)
}

// isHeartbeat recognises what raft's heartbeat goroutine sends. A group may have
// added a commit index.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return len(a.Entries) == 0 && a.Term != 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0
}

// entriesWithin returns how many of the first entries fit into limit bytes, at
// least one.
func entriesWithin(entries []*raft.Log, limit int) int {
	sum := 0
	for i, l := range entries {
		sum += len(l.Data) + len(l.Extensions) + entryOverhead
		if sum > limit && i > 0 {
			return i
		}
	}
	return len(entries)
}

// appendInParts sends the entries as consecutive requests, each of them one
// that the leader might have sent. The answer is the first that is not a
// success, or the last: success then covers all entries.
func (v *View) appendInParts(target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	part := *args
	for rest := args.Entries; ; {
		n := entriesWithin(rest, v.mux.conf.Limits.AppendBytes)
		last := rest[n-1]
		part.Entries, rest = rest[:n], rest[n:]
		part.LeaderCommitIndex = args.LeaderCommitIndex
		if len(rest) > 0 {
			// A follower may only commit what it is known to share with the leader.
			part.LeaderCommitIndex = min(args.LeaderCommitIndex, last.Index)
		}
		err := v.roundTrip(target, LaneAppend, kindAppend, &part, resp, v.mux.conf.Timeouts.Append)
		if err != nil || len(rest) == 0 || !resp.Success || resp.Term > args.Term {
			return err
		}
		part.PrevLogEntry, part.PrevLogTerm = last.Index, last.Term
	}
}

// RequestVote asks for a vote.
func (v *View) RequestVote(_ raft.ServerID, target raft.ServerAddress,
	args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return v.roundTrip(target, LaneElection, kindVote, args, resp, v.mux.conf.Timeouts.Vote)
}

// RequestPreVote asks whether a vote would be granted. Without this method
// hashicorp/raft turns pre-votes off.
func (v *View) RequestPreVote(_ raft.ServerID, target raft.ServerAddress,
	args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return v.roundTrip(target, LaneElection, kindPreVote, args, resp, v.mux.conf.Timeouts.Vote)
}

// TimeoutNow asks the target to take over leadership.
func (v *View) TimeoutNow(_ raft.ServerID, target raft.ServerAddress,
	args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return v.roundTrip(target, LaneElection, kindTimeoutNow, args, resp, v.mux.conf.Timeouts.Vote)
}

// InstallSnapshot sends a snapshot over a connection of its own.
func (v *View) InstallSnapshot(_ raft.ServerID, target raft.ServerAddress,
	args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	start := time.Now()
	err := v.sendSnapshot(string(target), args, resp, data)
	return v.finished(string(target), LaneSnapshot, kindSnapshot, start, err)
}

// Campaign makes the local Raft instance stand for election at once, without a
// pre-vote and with the privilege of a leadership transfer: peers vote even if
// they know a leader. It is meant for a sole voter at start and for a preferred
// leader of a group that has none. The instance must know its configuration and
// must not lead. Campaign does not wait; it does nothing when the view is
// closed or its queue is full.
func (v *View) Campaign() {
	if v.isClosed() {
		return
	}
	rpc := raft.RPC{
		Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: v.mux.self, Addr: v.mux.self,
		}},
		RespChan: make(chan raft.RPCResponse, 1), // nobody waits for it
	}
	select {
	case v.consumer <- rpc:
	default:
	}
}

// roundTrip sends a request and waits for the answer, for the connection
// included.
func (v *View) roundTrip(target raft.ServerAddress, lane Lane, k kind, req, resp any, timeout time.Duration) error {
	var start time.Time
	if v.mux.conf.Observer.RoundTrip != nil {
		start = time.Now()
	}
	err := v.call(string(target), lane, k, req, resp, timeout)
	return v.finished(string(target), lane, k, start, err)
}

// maxSends is how often an append is sent when its connection ends before the
// answer comes: once more on the next one. It does no harm to append twice, and
// Raft itself tries again a commit timeout later only.
const maxSends = 2

func (v *View) call(target string, lane Lane, k kind, req, resp any, timeout time.Duration) error {
	if v.isClosed() {
		return ErrClosed
	}
	l, err := v.mux.link(target, lane)
	if err != nil {
		return err
	}
	deadline := v.mux.now() + timeout
	for sent := 1; ; sent++ {
		c := l.current()
		if c == nil {
			if c, err = l.wait(v, timeout); err != nil {
				return err
			}
		}
		err := c.roundTrip(v, k, req, resp, deadline)
		if lane != LaneAppend || sent == maxSends || !errors.Is(err, ErrConnectionLost) {
			return err
		}
		if timeout = deadline - v.mux.now(); timeout <= 0 {
			return err
		}
	}
}

// finished observes a call and wraps its error.
func (v *View) finished(target string, lane Lane, k kind, start time.Time, err error) error {
	if observe := v.mux.conf.Observer.RoundTrip; observe != nil {
		observe(target, lane, k.String(), time.Since(start), err)
	}
	if err != nil {
		return fmt.Errorf("group %d: %v to node %s: %w", v.group, k, target, err)
	}
	return nil
}
