package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// receiveSnapshot serves a connection of the snapshot lane. The error is what
// the peer did wrong; a snapshot that is refused or fails is none.
func (m *Mux) receiveSnapshot(nc net.Conn, frames *frameReader, peer string) error {
	m.countReads(frames)
	r := &snapshotReceiver{mux: m, nc: nc, frames: frames, enc: encoder{own: m.self}}
	// The request comes right behind the hello.
	f, err := r.next(m.conf.Timeouts.Dial)
	if err != nil {
		return err
	}
	if f.kind != kindSnapshot {
		return fmt.Errorf("%w: %v on lane %v", ErrProtocol, f.kind, LaneSnapshot)
	}
	d := decoder{rest: f.body, peer: sharedID(peer)}
	req, err := d.request(f.kind)
	if err != nil {
		return err
	}
	r.group, r.left = f.group, req.(*raft.InstallSnapshotRequest).Size

	v := m.view(f.group)
	if v == nil {
		return r.refuse(refusedUnknownGroup)
	}
	select {
	case m.inbound <- struct{}{}:
		defer func() { <-m.inbound }()
	default:
		return r.refuse(refusedSnapshotLimit)
	}
	if !v.receiving.CompareAndSwap(false, true) {
		return r.refuse(refusedSnapshotLimit)
	}
	defer v.receiving.Store(false)
	return r.run(v, req)
}

// snapshotReceiver receives one snapshot. It is the io.Reader that Raft reads
// the data from.
//
// Goroutines: the one of Mux.Serve, and Raft's main loop, which owns frames and
// the fields of the stream from the hand-over until it has answered.
type snapshotReceiver struct {
	mux   *Mux
	group uint16
	nc    net.Conn

	frames   *frameReader
	left     int64  // bytes still to come
	chunk    []byte // bytes come but not read
	accepted bool
	err      error // ends the stream

	mu  sync.Mutex // guards enc and the writing to nc
	enc encoder
}

// run hands the request to Raft and reports its answer.
func (r *snapshotReceiver) run(v *View, req any) error {
	working := time.NewTicker(max(r.mux.conf.Timeouts.SnapshotStall/4, minTick))
	defer working.Stop()
	overdue := time.NewTimer(r.mux.snapshotTime(r.left))
	defer overdue.Stop()
	answer := make(chan raft.RPCResponse, 1)
	select {
	case v.consumer <- raft.RPC{Command: req, Reader: r, RespChan: answer}:
	default:
		return r.refuse(refusedGroupBusy)
	}
	for {
		select {
		case a := <-answer:
			return r.reply(a)
		case <-working.C:
			if r.write(kindSnapshotWorking, nil) != nil {
				return nil // the sender is gone; Raft will find out
			}
		case <-v.ctx.Done():
			return r.refuse(refusedGroupClosed)
		case <-overdue.C:
			return r.refuse(refusedGroupBusy)
		}
	}
}

// reply sends Raft's answer, and takes in what the sender has on the way: a
// connection closed with data unread would lose the answer.
func (r *snapshotReceiver) reply(a raft.RPCResponse) error {
	k, m := kindSnapshotReply, a.Response
	if got, ok := replyKind(m); a.Error == nil && (!ok || got != k) {
		a.Error = fmt.Errorf("answer of type %T", m)
	}
	if a.Error != nil {
		k, m = kindError, &failure{reason: refusedByRaft, text: a.Error.Error()}
	}
	if r.write(k, m) == nil {
		r.drain()
	}
	if errors.Is(r.err, ErrProtocol) {
		return r.err
	}
	return nil
}

// refuse sends an error reply in place of Raft's answer.
func (r *snapshotReceiver) refuse(reason refusal) error {
	r.mux.stats.refused.Add(1)
	_ = r.write(kindError, &failure{reason: reason}) // the sender may be gone
	return nil
}

func (r *snapshotReceiver) drain() {
	if r.nc.SetReadDeadline(time.Now().Add(r.mux.conf.Timeouts.SnapshotStall)) == nil {
		_, _ = io.Copy(io.Discard, r.nc)
	}
}

func (r *snapshotReceiver) write(k kind, m any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.enc.buf = r.enc.buf[:0]
	if err := r.enc.frame(k, r.group, 0, m, r.mux.conf.Limits.FrameBytes); err != nil {
		return err
	}
	if err := r.nc.SetWriteDeadline(time.Now().Add(r.mux.conf.Timeouts.Write)); err != nil {
		return err
	}
	_, err := r.nc.Write(r.enc.buf)
	return err
}

func (r *snapshotReceiver) next(timeout time.Duration) (frame, error) {
	if err := r.nc.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return frame{}, err
	}
	f, err := r.frames.next()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return f, err
}

// errUnwanted ends the stream of a snapshot that Raft does not want.
var errUnwanted = errors.New("snapshot is not wanted")

// Read returns the snapshot's data. It ends with io.EOF only when all of it has
// come, and fails when the sender stalls.
func (r *snapshotReceiver) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 {
		if r.err == nil {
			r.err = r.advance()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// WriteTo serves io.Copy. hashicorp/raft copies to io.Discard what it has no
// use for, to leave a shared connection in order; this connection is not
// shared, so the main loop need not wait for the data.
func (r *snapshotReceiver) WriteTo(w io.Writer) (int64, error) {
	if w == io.Discard {
		if r.err == nil {
			r.err = errUnwanted
		}
		return 0, nil
	}
	return io.Copy(w, struct{ io.Reader }{r})
}

// advance gets the next chunk.
func (r *snapshotReceiver) advance() error {
	if !r.accepted {
		r.accepted = true
		if err := r.write(kindSnapshotAccept, nil); err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
	}
	f, err := r.next(r.mux.conf.Timeouts.SnapshotStall)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	switch {
	case f.kind == kindSnapshotData && len(f.body) > 0 && int64(len(f.body)) <= r.left:
		r.left -= int64(len(f.body))
		r.chunk = f.body
		return nil
	case f.kind == kindSnapshotEnd && r.left == 0:
		return io.EOF
	}
	return fmt.Errorf("%w: %v of %d bytes with %d to come", ErrProtocol, f.kind, len(f.body), r.left)
}
