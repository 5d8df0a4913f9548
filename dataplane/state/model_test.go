package state

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// model is the state machine in its simplest form: slices and a map, no storage. The property tests compare the machine with it.
type model struct {
	convs map[rpc.Key]*modelConversation
	epoch uint64
}

type modelConversation struct {
	rpc.Conversation
	floor    uint64
	messages []modelMessage   // all ever appended
	byID     map[string][]int // of messages
	keys     []modelKey
	entry    uint64 // that touched it last
	before   uint64 // last_seq before that entry
}

type modelMessage struct {
	rpc.Message
	rpc.Appended
	id     string
	digest [32]byte
	end    uint64 // last sequence of its append
}

type modelKey struct {
	key    string
	digest [32]byte
	reply  rpc.AppendReply
	end    uint64
}

func newModel() *model { return &model{convs: map[rpc.Key]*modelConversation{}} }

// touch notes which entry works on a conversation.
func (m *model) touch(key rpc.Key, entry uint64) *modelConversation {
	c := m.convs[key]
	if c != nil && c.entry != entry {
		c.entry, c.before = entry, c.LastSeq
	}
	return c
}

func (c *modelConversation) stamp(at time.Time) time.Time {
	if at.Before(c.UpdatedAt) {
		return c.UpdatedAt
	}
	return at
}

func (m *model) apply(entry uint64, at time.Time, op Op) Outcome {
	at = at.Truncate(time.Microsecond).UTC()
	if op.Validate() != nil {
		return Outcome{Err: ErrInvalidOp}
	}
	switch op.kind {
	case opAppend:
		return m.append(entry, at, op.append)
	case opPut:
		return m.put(entry, at, op.put)
	case opTombstone:
		c := m.touch(op.key, entry)
		if c == nil {
			return Outcome{Err: rpc.ErrNotFound}
		}
		if !c.Tombstoned {
			c.Tombstoned, c.UpdatedAt = true, c.stamp(at)
		}
		return Outcome{}
	}
	return m.archive(entry, op.ack)
}

func (m *model) put(entry uint64, at time.Time, req *rpc.PutRequest) Outcome {
	c := m.touch(req.Key, entry)
	created := c == nil
	if created {
		c = &modelConversation{entry: entry, byID: map[string][]int{}}
		c.Conversation = rpc.Conversation{Key: req.Key, FirstSeq: 1, Metadata: []byte("{}"), CreatedAt: at, UpdatedAt: at}
		m.convs[req.Key] = c
	}
	if c.Tombstoned {
		return Outcome{Err: rpc.ErrTombstoned}
	}
	if req.Metadata != nil {
		c.Metadata, c.UpdatedAt = req.Metadata, c.stamp(at)
	}
	return Outcome{Reply: &rpc.PutReply{Conversation: c.Conversation, Created: created}}
}

func (m *model) archive(entry uint64, ack *ArchiveAck) Outcome {
	if ack.Epoch < m.epoch {
		return Outcome{Err: rpc.ErrEpochFenced}
	}
	m.epoch = ack.Epoch
	for _, w := range ack.Watermarks {
		c := m.touch(w.Key, entry)
		if c == nil || min(w.Seq, c.LastSeq) < c.ArchivedSeq {
			continue
		}
		c.ArchivedSeq = min(w.Seq, c.LastSeq)
		if c.ArchivedSeq >= ack.Keep && c.ArchivedSeq-ack.Keep+1 > c.FirstSeq {
			c.FirstSeq = c.ArchivedSeq - ack.Keep + 1
			c.forget(0)
		}
	}
	return Outcome{}
}

// find returns the newest remembered message with the id, and the one with this
// content.
func (c *modelConversation) find(id string, digest [32]byte) (newest, match *modelMessage) {
	if id == "" {
		return nil, nil
	}
	for _, i := range c.byID[id] {
		if x := &c.messages[i]; x.end > c.floor {
			newest = x
			if x.digest == digest {
				match = x
			}
		}
	}
	return newest, match
}

func (m *model) append(entry uint64, at time.Time, req *rpc.AppendRequest) Outcome {
	c := m.touch(req.Key, entry)
	if c == nil {
		return Outcome{Err: rpc.ErrNotFound}
	}
	for _, k := range c.keys {
		if req.IdempotencyKey != "" && k.key == req.IdempotencyKey && k.end > c.floor {
			if k.digest != req.BodyDigest {
				return Outcome{Err: rpc.ErrIdempotencyConflict}
			}
			reply := k.reply
			reply.Duplicate = true
			return Outcome{Reply: &reply}
		}
	}
	reply := rpc.AppendReply{Duplicate: true, Messages: make([]rpc.Appended, len(req.Messages))}
	for i := range req.Messages {
		_, match := c.find(req.Messages[i].ID, req.Messages[i].Digest)
		if match == nil {
			reply.Duplicate = false
			break
		}
		reply.Messages[i] = match.Appended
		reply.Messages[i].Duplicate = true
		reply.Version = max(reply.Version, match.Version)
	}
	if !reply.Duplicate {
		switch {
		case c.Tombstoned:
			return Outcome{Err: rpc.ErrTombstoned}
		case req.IfVersion != nil && *req.IfVersion != c.Version:
			return Outcome{Err: &rpc.VersionConflictError{Current: c.Version}}
		}
		c.Version++
		c.UpdatedAt = c.stamp(at)
		reply.Version = c.Version
		c.appendAll(req, reply.Messages)
	}
	for _, x := range reply.Messages {
		reply.TokenCount += x.TokenCount
	}
	reply.Seq, reply.LastSeq = reply.Messages[0].Seq, reply.Messages[len(reply.Messages)-1].Seq
	if !reply.Duplicate {
		if req.IdempotencyKey != "" {
			c.keys = append(c.keys, modelKey{req.IdempotencyKey, req.BodyDigest, reply, c.LastSeq})
		}
		c.forget(len(req.Messages))
	}
	return Outcome{Reply: &reply}
}

func (c *modelConversation) appendAll(req *rpc.AppendRequest, out []rpc.Appended) {
	first := len(c.messages)
	for i := range req.Messages {
		x := &req.Messages[i]
		newest, match := c.find(x.ID, x.Digest)
		if match != nil {
			out[i] = match.Appended
			out[i].Duplicate = true
			continue
		}
		c.LastSeq++
		out[i] = rpc.Appended{Seq: c.LastSeq, TokenCount: x.TokenCount}
		if newest != nil {
			out[i].Revises = newest.Appended.Seq
		}
		json := fmt.Sprintf(`{"seq":%d,%s,"inserted_at":"%s"}`, c.LastSeq, x.Content, c.UpdatedAt.Format("2006-01-02T15:04:05.000000Z"))
		link := binary.BigEndian.AppendUint64(c.Head[:], c.LastSeq)
		c.Head = sha256.Sum256(append(link, json...))
		if x.ID != "" {
			c.byID[x.ID] = append(c.byID[x.ID], len(c.messages))
		}
		c.messages = append(c.messages, modelMessage{
			Message:  rpc.Message{Seq: c.LastSeq, Version: c.Version, JSON: []byte(json)},
			Appended: out[i], id: x.ID, digest: x.Digest,
			end: 1 << 62, // found by later messages of its append
		})
	}
	for i := first; i < len(c.messages); i++ {
		c.messages[i].end = c.LastSeq
	}
}

func (c *modelConversation) forget(appended int) {
	if c.before < 10_000 {
		return
	}
	target := min(c.before-10_000, c.FirstSeq-1)
	if target >= c.floor+64 {
		c.floor = min(target, c.floor+uint64(max(1024, 2*appended)))
	}
}
