package transport

//lint:file-ignore SA1019 hashicorp/raft still sends its deprecated fields and falls back on them.

import "github.com/hashicorp/raft"

func (e *encoder) voteRequest(r *raft.RequestVoteRequest) {
	own := e.ownFlag(r.Candidate, flagOwnLeader)
	e.header(&r.RPCHeader, own|yes(r.LeadershipTransfer, flagYes))
	e.leader(r.Candidate, own)
	e.uvarint(r.Term)
	e.uvarint(r.LastLogIndex)
	e.uvarint(r.LastLogTerm)
}

func (d *decoder) voteRequest() *raft.RequestVoteRequest {
	r := new(raft.RequestVoteRequest)
	flags := d.header(&r.RPCHeader, flagOwnLeader|flagYes)
	r.Candidate = d.own(flags, flagOwnLeader)
	r.LeadershipTransfer = flags&flagYes != 0
	r.Term = d.uvarint()
	r.LastLogIndex = d.uvarint()
	r.LastLogTerm = d.uvarint()
	return r
}

func (e *encoder) voteReply(r *raft.RequestVoteResponse) {
	e.header(&r.RPCHeader, yes(r.Granted, flagYes))
	e.uvarint(r.Term)
	e.bytes(r.Peers, maxPeersBytes)
}

func (d *decoder) voteReply(r *raft.RequestVoteResponse) {
	var out raft.RequestVoteResponse
	flags := d.header(&out.RPCHeader, flagYes)
	out.Granted = flags&flagYes != 0
	out.Term = d.uvarint()
	out.Peers = d.bytes(maxPeersBytes)
	*r = out
}

func (e *encoder) preVoteRequest(r *raft.RequestPreVoteRequest) {
	e.header(&r.RPCHeader, 0)
	e.uvarint(r.Term)
	e.uvarint(r.LastLogIndex)
	e.uvarint(r.LastLogTerm)
}

func (d *decoder) preVoteRequest() *raft.RequestPreVoteRequest {
	r := new(raft.RequestPreVoteRequest)
	d.header(&r.RPCHeader, 0)
	r.Term = d.uvarint()
	r.LastLogIndex = d.uvarint()
	r.LastLogTerm = d.uvarint()
	return r
}

func (e *encoder) preVoteReply(r *raft.RequestPreVoteResponse) {
	e.header(&r.RPCHeader, yes(r.Granted, flagYes))
	e.uvarint(r.Term)
}

func (d *decoder) preVoteReply(r *raft.RequestPreVoteResponse) {
	var out raft.RequestPreVoteResponse
	flags := d.header(&out.RPCHeader, flagYes)
	out.Granted = flags&flagYes != 0
	out.Term = d.uvarint()
	*r = out
}

func (e *encoder) timeoutNowRequest(r *raft.TimeoutNowRequest) { e.header(&r.RPCHeader, 0) }

func (d *decoder) timeoutNowRequest() *raft.TimeoutNowRequest {
	r := new(raft.TimeoutNowRequest)
	d.header(&r.RPCHeader, 0)
	return r
}

func (e *encoder) timeoutNowReply(r *raft.TimeoutNowResponse) { e.header(&r.RPCHeader, 0) }

func (d *decoder) timeoutNowReply(r *raft.TimeoutNowResponse) {
	var out raft.TimeoutNowResponse
	d.header(&out.RPCHeader, 0)
	*r = out
}
