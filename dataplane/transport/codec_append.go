package transport

//lint:file-ignore SA1019 hashicorp/raft still sends its deprecated fields and falls back on them.

import (
	"bytes"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Flags of a log entry.
const (
	entryHasExtensions = 1 << 0
	entryHasAppendedAt = 1 << 1
)

// entryOverhead bounds what an entry takes beside its data and extensions. The
// smallest entry takes minEntryBytes.
const (
	entryOverhead = 64
	minEntryBytes = 5
)

func (e *encoder) appendRequest(r *raft.AppendEntriesRequest) {
	flags := e.ownFlag(r.Leader, flagOwnLeader)
	e.header(&r.RPCHeader, flags)
	e.leader(r.Leader, flags)
	e.uvarint(r.Term)
	e.uvarint(r.PrevLogEntry)
	e.uvarint(r.PrevLogTerm)
	e.uvarint(r.LeaderCommitIndex)
	if len(r.Entries) > maxEntries && e.err == nil {
		e.err = fmt.Errorf("%w: %d entries, limit %d", ErrTooLarge, len(r.Entries), maxEntries)
	}
	e.uvarint(uint64(len(r.Entries)))
	for _, l := range r.Entries {
		e.entry(l)
	}
}

func (e *encoder) entry(l *raft.Log) {
	var flags byte
	if len(l.Extensions) > 0 {
		flags |= entryHasExtensions
	}
	if !l.AppendedAt.IsZero() {
		flags |= entryHasAppendedAt
	}
	e.byte(byte(l.Type))
	e.byte(flags)
	e.uvarint(l.Index)
	e.uvarint(l.Term)
	if flags&entryHasAppendedAt != 0 {
		e.varint(l.AppendedAt.Unix())
		e.uvarint(uint64(l.AppendedAt.Nanosecond()))
	}
	e.bytes(l.Data, maxFrameLimit)
	if flags&entryHasExtensions != 0 {
		e.bytes(l.Extensions, maxFrameLimit)
	}
}

// newAppendRequest returns a request with n zero entries. The usual single
// entry shares the request's allocation.
func newAppendRequest(n int) *raft.AppendEntriesRequest {
	switch n {
	case 0:
		return new(raft.AppendEntriesRequest)
	case 1:
		one := new(struct {
			req  raft.AppendEntriesRequest
			log  raft.Log
			list [1]*raft.Log
		})
		one.list[0] = &one.log
		one.req.Entries = one.list[:]
		return &one.req
	}
	req := &raft.AppendEntriesRequest{Entries: make([]*raft.Log, n)}
	logs := make([]raft.Log, n)
	for i := range logs {
		req.Entries[i] = &logs[i]
	}
	return req
}

// appendRequest decodes an AppendEntriesRequest that shares no memory with the
// frame: Raft keeps the entries. It refuses what hashicorp/raft would panic
// on, because a panic stops every group of the node: entries that do not
// follow each other, entry types it does not know, configurations it cannot
// read.
func (d *decoder) appendRequest() *raft.AppendEntriesRequest {
	var head raft.AppendEntriesRequest
	flags := d.header(&head.RPCHeader, flagOwnLeader)
	head.Leader = d.own(flags, flagOwnLeader)
	head.Term = d.uvarint()
	head.PrevLogEntry = d.uvarint()
	head.PrevLogTerm = d.uvarint()
	head.LeaderCommitIndex = d.uvarint()
	n := d.uvarint()
	if n > maxEntries || n*minEntryBytes > uint64(len(d.rest)) {
		d.fail("%d entries in %d bytes", n, len(d.rest))
		n = 0
	}
	// One copy holds the data of all entries; they live and die together.
	d.rest = bytes.Clone(d.rest)
	req := newAppendRequest(int(n))
	req.RPCHeader, req.Leader = head.RPCHeader, head.Leader
	req.Term, req.LeaderCommitIndex = head.Term, head.LeaderCommitIndex
	req.PrevLogEntry, req.PrevLogTerm = head.PrevLogEntry, head.PrevLogTerm
	for i, l := range req.Entries {
		d.entry(l)
		if want := head.PrevLogEntry + 1 + uint64(i); l.Index != want && d.err == nil {
			d.fail("entry %d where %d must follow", l.Index, want)
		}
	}
	return req
}

func (d *decoder) entry(l *raft.Log) {
	l.Type = raft.LogType(d.byte())
	flags := d.byte()
	if flags&^(entryHasExtensions|entryHasAppendedAt) != 0 {
		d.fail("unknown entry flags %#x", flags)
	}
	l.Index = d.uvarint()
	l.Term = d.uvarint()
	if flags&entryHasAppendedAt != 0 {
		sec, nsec := d.varint(), d.uvarint()
		if nsec >= uint64(time.Second) {
			d.fail("bad time")
		} else {
			l.AppendedAt = time.Unix(sec, int64(nsec)).UTC()
		}
	}
	l.Data = d.view(maxFrameLimit)
	if flags&entryHasExtensions != 0 {
		l.Extensions = d.view(maxFrameLimit)
	}
	switch l.Type {
	case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
	case raft.LogConfiguration:
		d.configuration(l.Data)
	default:
		d.fail("entry of type %d", l.Type)
	}
}

// configuration checks that hashicorp/raft can decode b: it panics otherwise.
func (d *decoder) configuration(b []byte) {
	if d.err != nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			d.fail("unreadable configuration: %v", p)
		}
	}()
	raft.DecodeConfiguration(b)
}

func (e *encoder) appendReply(r *raft.AppendEntriesResponse) {
	e.header(&r.RPCHeader, yes(r.Success, flagYes)|yes(r.NoRetryBackoff, flagNoBackoff))
	e.uvarint(r.Term)
	e.uvarint(r.LastLog)
}

func (d *decoder) appendReply(r *raft.AppendEntriesResponse) {
	var out raft.AppendEntriesResponse
	flags := d.header(&out.RPCHeader, flagYes|flagNoBackoff)
	out.Success = flags&flagYes != 0
	out.NoRetryBackoff = flags&flagNoBackoff != 0
	out.Term = d.uvarint()
	out.LastLog = d.uvarint()
	*r = out
}
