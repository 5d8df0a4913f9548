package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// A snapshot has a connection to itself:
//
//	sender                         receiver
//	request                   ->
//	                          <-   working, repeatedly, until the reply
//	                          <-   accept, once Raft begins to read
//	data ... data, end        ->
//	                          <-   reply, when installed, or an error at any time
//
// The sender waits for accept, so a receiver that is busy or has no use for the
// snapshot costs no transfer.

// snapshotChunkBytes is the data of one frame.
const snapshotChunkBytes = 256 << 10

// sendSnapshot sends a snapshot and waits until it is installed.
func (v *View) sendSnapshot(target string, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	m := v.mux
	if err := v.awaitTurn(); err != nil {
		return err
	}
	defer func() { <-m.outbound }()

	ctx, cancel := context.WithTimeout(v.ctx, m.snapshotTime(args.Size))
	defer cancel()
	nc, frames, err := m.dialSnapshot(ctx, target)
	if err == nil {
		s := &snapshotSender{
			mux: m, group: v.group, nc: nc, frames: frames,
			dec:      decoder{peer: sharedID(target)},
			accepted: make(chan struct{}), result: make(chan error, 1),
		}
		stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
		err = s.run(args, resp, data)
		stop()
	}
	switch {
	case err == nil:
		return nil
	case v.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}

// awaitTurn takes one of the places for outbound snapshots.
func (v *View) awaitTurn() error {
	timer := time.NewTimer(v.mux.conf.Timeouts.SnapshotWait)
	defer timer.Stop()
	select {
	case <-v.ctx.Done():
		return ErrClosed
	case v.mux.outbound <- struct{}{}:
		return nil
	case <-timer.C:
		// Raft asks again, with a fresher snapshot.
		return ErrSnapshotLimit
	}
}

// snapshotTime bounds a transfer by its size.
func (m *Mux) snapshotTime(size int64) time.Duration {
	seconds := float64(max(size, 0)) / float64(m.conf.Limits.SnapshotRate)
	return m.conf.Timeouts.Snapshot + time.Duration(seconds*float64(time.Second))
}

func (m *Mux) dialSnapshot(ctx context.Context, target string) (net.Conn, *frameReader, error) {
	p := (*m.peers.Load())[target]
	if p == nil || p.address() == "" {
		return nil, nil, ErrUnknownPeer
	}
	if m.conf.Dial == nil {
		return nil, nil, fmt.Errorf("%w: this node does not dial", ErrUnreachable)
	}
	ctx, cancel := context.WithTimeout(ctx, m.conf.Timeouts.Dial)
	defer cancel()
	nc, err := m.conf.Dial(ctx, target, p.address(), LaneSnapshot)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: dial: %w", ErrUnreachable, err)
	}
	frames, err := m.greet(ctx, nc, target, LaneSnapshot)
	if err != nil {
		_ = nc.Close()
		return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	m.countReads(frames)
	return nc, frames, nil
}

func (m *Mux) countReads(frames *frameReader) {
	stats := &m.stats.lanes[LaneSnapshot]
	frames.received = func(n int) {
		stats.reads.Add(1)
		stats.bytesIn.Add(uint64(n))
	}
}

// snapshotSender sends one snapshot. Goroutines: the caller writes; listen
// (owner of frames, dec and the response) reads.
type snapshotSender struct {
	mux      *Mux
	group    uint16
	nc       net.Conn
	frames   *frameReader
	dec      decoder
	accepted chan struct{} // closed when the receiver wants the data
	result   chan error    // capacity 1: the outcome, nil when resp holds the reply
}

func (s *snapshotSender) run(args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		s.result <- s.listen(resp)
	}()
	err := s.send(args, data)
	if err == nil {
		err = <-s.result
	}
	_ = s.nc.Close()
	<-listening // it must not write to resp any more
	return err
}

// send writes everything, or stops when the outcome is known before that: it
// then leaves it in result.
func (s *snapshotSender) send(args *raft.InstallSnapshotRequest, data io.Reader) error {
	e := encoder{own: s.mux.self}
	if err := e.frame(kindSnapshot, s.group, 0, args, s.mux.conf.Limits.FrameBytes); err != nil {
		return err
	}
	if err := s.write(e.buf); err != nil {
		return err
	}
	select {
	case <-s.accepted:
	case err := <-s.result:
		s.result <- err
		return nil
	}
	buf := make([]byte, headerLen+snapshotChunkBytes)
	for left := args.Size; left > 0; {
		n := int(min(left, snapshotChunkBytes))
		if _, err := io.ReadFull(data, buf[headerLen:headerLen+n]); err != nil {
			return fmt.Errorf("%w: %d bytes are missing: %w", ErrSnapshotSize, left, err)
		}
		left -= int64(n)
		frame := buf[:headerLen+n]
		appendHeader(buf[:0], kindSnapshotData, s.group, 0)
		sealFrame(frame, 0)
		select {
		case err := <-s.result:
			s.result <- err
			return nil
		default:
		}
		if err := s.write(frame); err != nil {
			return s.explain(err)
		}
	}
	if _, err := io.ReadFull(data, buf[:1]); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than %d bytes: %v", ErrSnapshotSize, args.Size, err)
	}
	end := appendHeader(buf[:0], kindSnapshotEnd, s.group, 0)
	sealFrame(end, 0)
	return s.write(end)
}

// explainTime is how long a failed write waits for the reason.
const explainTime = 100 * time.Millisecond

// explain prefers what the receiver has said over the failed write that came
// of it. It leaves the outcome in result, or returns err when there is none.
func (s *snapshotSender) explain(err error) error {
	timer := time.NewTimer(explainTime)
	defer timer.Stop()
	select {
	case said := <-s.result:
		if errors.Is(said, ErrConnectionLost) {
			return err
		}
		s.result <- said
		return nil
	case <-timer.C:
		return err
	}
}

func (s *snapshotSender) write(b []byte) error {
	if err := s.nc.SetWriteDeadline(time.Now().Add(s.mux.conf.Timeouts.SnapshotStall)); err != nil {
		return fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	if _, err := s.nc.Write(b); err != nil {
		return fmt.Errorf("%w: write: %w", ErrConnectionLost, err)
	}
	stats := &s.mux.stats.lanes[LaneSnapshot]
	stats.flushes.Add(1)
	stats.framesOut.Add(1)
	stats.bytesOut.Add(uint64(len(b)))
	return nil
}

// listen reads what the receiver says until the outcome is known.
func (s *snapshotSender) listen(resp *raft.InstallSnapshotResponse) error {
	accepted := false
	for {
		if err := s.nc.SetReadDeadline(time.Now().Add(s.mux.conf.Timeouts.SnapshotStall)); err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
		f, err := s.frames.next()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
		s.dec.rest, s.dec.err = f.body, nil
		switch {
		case f.kind == kindSnapshotWorking:
		case f.kind == kindSnapshotAccept && !accepted:
			accepted = true
			close(s.accepted)
		case f.kind == kindSnapshotReply:
			return s.dec.reply(f.kind, resp)
		case f.kind == kindError:
			return s.dec.failure()
		default:
			return fmt.Errorf("%w: %v during a snapshot", ErrProtocol, f.kind)
		}
	}
}
