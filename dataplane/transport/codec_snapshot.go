package transport

import "github.com/hashicorp/raft"

func (e *encoder) snapshotRequest(r *raft.InstallSnapshotRequest) {
	own := e.ownFlag(r.Leader, flagOwnLeader)
	e.header(&r.RPCHeader, own)
	e.leader(r.Leader, own)
	e.varint(int64(r.SnapshotVersion))
	e.uvarint(r.Term)
	e.uvarint(r.LastLogIndex)
	e.uvarint(r.LastLogTerm)
	e.bytes(r.Peers, maxPeersBytes)
	e.bytes(r.Configuration, maxConfigurationBytes)
	e.uvarint(r.ConfigurationIndex)
	e.varint(r.Size)
}

// snapshotRequest refuses a configuration that would make hashicorp/raft
// panic. Snapshots of version 0 have none.
func (d *decoder) snapshotRequest() *raft.InstallSnapshotRequest {
	r := new(raft.InstallSnapshotRequest)
	flags := d.header(&r.RPCHeader, flagOwnLeader)
	r.Leader = d.own(flags, flagOwnLeader)
	r.SnapshotVersion = raft.SnapshotVersion(d.varint())
	r.Term = d.uvarint()
	r.LastLogIndex = d.uvarint()
	r.LastLogTerm = d.uvarint()
	r.Peers = d.bytes(maxPeersBytes)
	r.Configuration = d.bytes(maxConfigurationBytes)
	r.ConfigurationIndex = d.uvarint()
	r.Size = d.varint()
	if r.Size < 0 {
		d.fail("snapshot of %d bytes", r.Size)
	}
	if r.SnapshotVersion > 0 {
		d.configuration(r.Configuration)
	}
	return r
}

func (e *encoder) snapshotReply(r *raft.InstallSnapshotResponse) {
	e.header(&r.RPCHeader, yes(r.Success, flagYes))
	e.uvarint(r.Term)
}

func (d *decoder) snapshotReply(r *raft.InstallSnapshotResponse) {
	var out raft.InstallSnapshotResponse
	flags := d.header(&out.RPCHeader, flagYes)
	out.Success = flags&flagYes != 0
	out.Term = d.uvarint()
	*r = out
}
