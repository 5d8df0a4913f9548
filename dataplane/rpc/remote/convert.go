package remote

import (
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// Between package rpc and the generated messages of the unary calls. What is
// decoded from the peer is checked; byte slices move without a copy, because
// neither side keeps its other form.

func digestToWire(d *[32]byte) []byte {
	if *d == ([32]byte{}) {
		return nil
	}
	return d[:]
}

func timeToWire(t time.Time) *pb.Time {
	if t.IsZero() {
		return nil
	}
	return &pb.Time{Seconds: t.Unix(), Nanos: uint32(t.Nanosecond())}
}

func timeFromWire(t *pb.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Unix(t.GetSeconds(), int64(t.GetNanos())).UTC()
}

func conversationToWire(c *rpc.Conversation) *pb.Conversation {
	return &pb.Conversation{
		Key:         []byte(c.Key),
		Version:     c.Version,
		LastSeq:     c.LastSeq,
		FirstSeq:    c.FirstSeq,
		ArchivedSeq: c.ArchivedSeq,
		Tombstoned:  c.Tombstoned,
		Metadata:    c.Metadata,
		Head:        digestToWire(&c.Head),
		CreatedAt:   timeToWire(c.CreatedAt),
		UpdatedAt:   timeToWire(c.UpdatedAt),
	}
}

func conversationFromWire(p *pb.Conversation) (*rpc.Conversation, error) {
	c := &rpc.Conversation{
		Key:         rpc.Key(p.GetKey()),
		Version:     p.GetVersion(),
		LastSeq:     p.GetLastSeq(),
		FirstSeq:    p.GetFirstSeq(),
		ArchivedSeq: p.GetArchivedSeq(),
		Tombstoned:  p.GetTombstoned(),
		Metadata:    p.GetMetadata(),
		CreatedAt:   timeFromWire(p.GetCreatedAt()),
		UpdatedAt:   timeFromWire(p.GetUpdatedAt()),
	}
	if n := copy(c.Head[:], p.GetHead()); n != len(p.GetHead()) || n != 0 && n != len(c.Head) {
		return nil, fmt.Errorf("conversation: a head of %d bytes", len(p.GetHead()))
	}
	return c, nil
}

func optionsToWire(o rpc.ReadOptions) *pb.ReadOptions {
	if o == (rpc.ReadOptions{}) {
		return nil
	}
	return &pb.ReadOptions{Consistency: pb.Consistency(o.Consistency), MinSeq: o.MinSeq}
}

func optionsFromWire(p *pb.ReadOptions) rpc.ReadOptions {
	return rpc.ReadOptions{Consistency: consistencyFromWire(p.GetConsistency()), MinSeq: p.GetMinSeq()}
}

// consistencyFromWire maps what this version does not know to a value that
// validation refuses.
func consistencyFromWire(c pb.Consistency) rpc.Consistency {
	if c < 0 || c > pb.Consistency_CONSISTENCY_STALE {
		return rpc.Stale + 1
	}
	return rpc.Consistency(c)
}

// pageToWire copies the messages' JSON into one run of bytes and nothing else.
func pageToWire(page *rpc.Page) *pb.Page {
	n, size := len(page.Messages), 0
	for i := range page.Messages {
		size += len(page.Messages[i].JSON)
	}
	p := &pb.Page{
		Seqs:     make([]uint64, n),
		Versions: make([]uint64, n),
		Sizes:    make([]uint32, n),
		Json:     make([]byte, 0, size),
		LastSeq:  page.LastSeq,
		Earliest: page.Earliest,
	}
	for i := range page.Messages {
		m := &page.Messages[i]
		p.Seqs[i], p.Versions[i], p.Sizes[i] = m.Seq, m.Version, uint32(len(m.JSON))
		p.Json = append(p.Json, m.JSON...)
	}
	return p
}

// pageFromWire slices the run of bytes up again; the messages share it.
func pageFromWire(p *pb.Page) (*rpc.Page, error) {
	n := len(p.GetSeqs())
	if len(p.GetVersions()) != n || len(p.GetSizes()) != n {
		return nil, fmt.Errorf("page: columns of %d, %d and %d", n, len(p.GetVersions()), len(p.GetSizes()))
	}
	page := &rpc.Page{LastSeq: p.GetLastSeq(), Earliest: p.GetEarliest()}
	if n > 0 {
		page.Messages = make([]rpc.Message, n)
	}
	rest := p.GetJson()
	for i := range page.Messages {
		size := uint64(p.Sizes[i])
		if size > uint64(len(rest)) {
			return nil, fmt.Errorf("page: message %d is cut off", i)
		}
		page.Messages[i] = rpc.Message{Seq: p.Seqs[i], Version: p.Versions[i], JSON: rest[:size:size]}
		rest = rest[size:]
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("page: %d bytes belong to no message", len(rest))
	}
	return page, nil
}

func listToWire(req *rpc.ListRequest) *pb.ListRequest {
	p := &pb.ListRequest{
		Groups:      make([]uint32, len(req.Groups)),
		Prefix:      []byte(req.Prefix),
		After:       []byte(req.After),
		Limit:       int64(req.Limit),
		Consistency: pb.Consistency(req.Consistency),
	}
	for i, g := range req.Groups {
		p.Groups[i] = uint32(g)
	}
	return p
}

func listFromWire(p *pb.ListRequest) (*rpc.ListRequest, error) {
	req := &rpc.ListRequest{
		Prefix:      string(p.GetPrefix()),
		After:       string(p.GetAfter()),
		Limit:       int(p.GetLimit()),
		Consistency: consistencyFromWire(p.GetConsistency()),
	}
	if n := len(p.GetGroups()); n > rpc.Groups {
		return nil, fmt.Errorf("%w: %d groups", ErrInvalidRequest, n)
	}
	for _, g := range p.GetGroups() {
		if g >= rpc.Groups {
			return nil, fmt.Errorf("%w: group %d", ErrInvalidRequest, g)
		}
		req.Groups = append(req.Groups, rpc.Group(g))
	}
	return req, validateList(req)
}
