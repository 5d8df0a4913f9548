package transport

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// message appends the body of a frame: a pointer to one of Raft's requests or
// responses, a failure, a hello, raw bytes, or nil for an empty body.
func (e *encoder) message(m any) {
	switch m := m.(type) {
	case nil:
	case *raft.AppendEntriesRequest:
		e.appendRequest(m)
	case *raft.AppendEntriesResponse:
		e.appendReply(m)
	case *raft.RequestVoteRequest:
		e.voteRequest(m)
	case *raft.RequestVoteResponse:
		e.voteReply(m)
	case *raft.RequestPreVoteRequest:
		e.preVoteRequest(m)
	case *raft.RequestPreVoteResponse:
		e.preVoteReply(m)
	case *raft.TimeoutNowRequest:
		e.timeoutNowRequest(m)
	case *raft.TimeoutNowResponse:
		e.timeoutNowReply(m)
	case *raft.InstallSnapshotRequest:
		e.snapshotRequest(m)
	case *raft.InstallSnapshotResponse:
		e.snapshotReply(m)
	case *failure:
		e.byte(byte(m.reason))
		e.buf = append(e.buf, m.text[:min(len(m.text), maxErrorText)]...)
	case *hello:
		e.hello(m)
	case []byte:
		e.buf = append(e.buf, m...)
	default:
		e.err = fmt.Errorf("%w: message of type %T", ErrProtocol, m)
	}
}

// frame appends a whole frame, or nothing and an error when its body would
// exceed limit.
func (e *encoder) frame(k kind, group uint16, id uint64, m any, limit int) error {
	start := len(e.buf)
	e.buf = appendHeader(e.buf, k, group, id)
	e.message(m)
	err := e.err
	if size := len(e.buf) - start - headerLen; err == nil && size > limit {
		err = fmt.Errorf("%w: frame of %d bytes, limit %d", ErrTooLarge, size, limit)
	}
	if err != nil {
		e.err = nil
		e.buf = e.buf[:start]
		return err
	}
	sealFrame(e.buf, start)
	return nil
}

// request decodes the body of a request frame into what Raft expects on its
// Consumer channel.
func (d *decoder) request(k kind) (any, error) {
	var m any
	switch k {
	case kindAppend:
		m = d.appendRequest()
	case kindVote:
		m = d.voteRequest()
	case kindPreVote:
		m = d.preVoteRequest()
	case kindTimeoutNow:
		m = d.timeoutNowRequest()
	case kindSnapshot:
		m = d.snapshotRequest()
	default:
		d.fail("%v is not a request", k)
	}
	return m, d.finish()
}

// reply decodes the body of a reply frame into resp, which must be the response
// type that belongs to k and is overwritten whole.
func (d *decoder) reply(k kind, resp any) error {
	ok := true
	switch r := resp.(type) {
	case *raft.AppendEntriesResponse:
		if ok = k == kindAppendReply; ok {
			d.appendReply(r)
		}
	case *raft.RequestVoteResponse:
		if ok = k == kindVoteReply; ok {
			d.voteReply(r)
		}
	case *raft.RequestPreVoteResponse:
		if ok = k == kindPreVoteReply; ok {
			d.preVoteReply(r)
		}
	case *raft.TimeoutNowResponse:
		if ok = k == kindTimeoutNowReply; ok {
			d.timeoutNowReply(r)
		}
	case *raft.InstallSnapshotResponse:
		if ok = k == kindSnapshotReply; ok {
			d.snapshotReply(r)
		}
	default:
		ok = false
	}
	if !ok {
		d.fail("%v answered with %v", fmt.Sprintf("%T", resp), k)
	}
	return d.finish()
}

// failure decodes an error reply.
func (d *decoder) failure() error {
	reason := refusal(d.byte())
	text := string(d.rest[:min(len(d.rest), maxErrorText)])
	if d.err != nil {
		return d.err
	}
	return reason.err(text)
}

// replyKind returns the kind of frame that carries one of Raft's responses;
// false when resp is none, such as the nil that comes with an error.
func replyKind(resp any) (kind, bool) {
	switch resp.(type) {
	case *raft.AppendEntriesResponse:
		return kindAppendReply, true
	case *raft.RequestVoteResponse:
		return kindVoteReply, true
	case *raft.RequestPreVoteResponse:
		return kindPreVoteReply, true
	case *raft.TimeoutNowResponse:
		return kindTimeoutNowReply, true
	case *raft.InstallSnapshotResponse:
		return kindSnapshotReply, true
	}
	return 0, false
}
