package api

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// store is a data node in memory that follows the rules of the state machine
// closely enough for tests of the surface in front of it.
type store struct {
	mu      sync.Mutex // guards the rest
	byKey   map[rpc.Key]*held
	changes int // rises with every change of state
	calls   int
	fault   func(ctx context.Context, method string) error // answers instead, when not nil
	before  func(method string, req any)                   // sees every request
	clock   time.Time
}

type held struct {
	conv     rpc.Conversation
	messages []rpc.Message
	earliest uint64
	ids      map[string][]heldID
	keys     map[string]heldKey
}

type heldID struct {
	digest   [32]byte
	appended rpc.Appended
	version  uint64
}

type heldKey struct {
	digest [32]byte
	reply  rpc.AppendReply
}

func newStore() *store {
	return &store{byKey: map[rpc.Key]*held{}, clock: time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.FixedZone("somewhere", 3600))}
}

func (s *store) enter(ctx context.Context, method string, req any) error {
	s.calls++
	if s.before != nil {
		s.before(method, req)
	}
	if s.fault != nil {
		return s.fault(ctx, method)
	}
	return nil
}

func (s *store) changed() time.Time {
	s.changes++
	s.clock = s.clock.Add(time.Millisecond)
	return s.clock
}

func (s *store) state() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

// trim forgets the messages below the sequence.
func (s *store) trim(key rpc.Key, earliest uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byKey[key].earliest = earliest
}

func (s *store) setFault(fault func(ctx context.Context, method string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func (s *store) Put(ctx context.Context, req *rpc.PutRequest) (*rpc.PutReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "put", req); err != nil {
		return nil, err
	}
	h := s.byKey[req.Key]
	created := h == nil
	if created {
		now := s.changed()
		h = &held{earliest: 1, ids: map[string][]heldID{}, keys: map[string]heldKey{}}
		h.conv = rpc.Conversation{Key: req.Key, Metadata: []byte("{}"), CreatedAt: now, UpdatedAt: now}
		s.byKey[req.Key] = h
	}
	if h.conv.Tombstoned {
		return nil, rpc.ErrTombstoned
	}
	if req.Metadata != nil {
		h.conv.Metadata = slices.Clone(req.Metadata)
		h.conv.UpdatedAt = s.changed()
	}
	return &rpc.PutReply{Conversation: h.conv, Created: created}, nil
}

func (s *store) Append(ctx context.Context, req *rpc.AppendRequest) (*rpc.AppendReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "append", req); err != nil {
		return nil, err
	}
	h := s.byKey[req.Key]
	if h == nil {
		return nil, rpc.ErrNotFound
	}
	if known, ok := h.keys[req.IdempotencyKey]; ok && req.IdempotencyKey != "" {
		if known.digest != req.BodyDigest {
			return nil, rpc.ErrIdempotencyConflict
		}
		reply := known.reply
		reply.Duplicate = true
		return &reply, nil
	}
	if reply := h.known(req.Messages); reply != nil {
		return reply, nil
	}
	if h.conv.Tombstoned {
		return nil, rpc.ErrTombstoned
	}
	if req.IfVersion != nil && *req.IfVersion != h.conv.Version {
		return nil, &rpc.VersionConflictError{Current: h.conv.Version}
	}
	now := s.changed()
	h.conv.UpdatedAt = now
	h.conv.Version++
	reply := h.append(req.Messages, now)
	if req.IdempotencyKey != "" {
		h.keys[req.IdempotencyKey] = heldKey{digest: req.BodyDigest, reply: *reply}
	}
	return reply, nil
}

// known answers an append all of whose messages are held already.
func (h *held) known(messages []rpc.NewMessage) *rpc.AppendReply {
	reply := &rpc.AppendReply{Duplicate: true}
	for _, m := range messages {
		id, ok := h.find(m)
		if !ok {
			return nil
		}
		appended := id.appended
		appended.Duplicate = true
		reply.Messages = append(reply.Messages, appended)
		reply.TokenCount += appended.TokenCount
		reply.Version = id.version
	}
	reply.Seq, reply.LastSeq = reply.Messages[0].Seq, reply.Messages[len(reply.Messages)-1].Seq
	return reply
}

func (h *held) find(m rpc.NewMessage) (heldID, bool) {
	if m.ID == "" {
		return heldID{}, false
	}
	for _, id := range h.ids[m.ID] {
		if id.digest == m.Digest {
			return id, true
		}
	}
	return heldID{}, false
}

func (h *held) append(messages []rpc.NewMessage, now time.Time) *rpc.AppendReply {
	reply := &rpc.AppendReply{Version: h.conv.Version}
	for _, m := range messages {
		id, ok := h.find(m)
		if ok {
			id.appended.Duplicate = true
			reply.Messages = append(reply.Messages, id.appended)
			continue
		}
		h.conv.LastSeq++
		seq := h.conv.LastSeq
		json := []byte(`{"seq":` + strconv.FormatUint(seq, 10) + "," + string(m.Content) + `,"inserted_at":"` + now.UTC().Format(timeFormat) + `"}`)
		h.messages = append(h.messages, rpc.Message{Seq: seq, Version: h.conv.Version, JSON: json})
		h.conv.Head = sha256.Sum256(append(binary.BigEndian.AppendUint64(h.conv.Head[:], seq), json...))
		appended := rpc.Appended{Seq: seq, TokenCount: m.TokenCount}
		if m.ID != "" {
			if n := len(h.ids[m.ID]); n > 0 {
				appended.Revises = h.ids[m.ID][n-1].appended.Seq
			}
			h.ids[m.ID] = append(h.ids[m.ID], heldID{digest: m.Digest, appended: appended, version: h.conv.Version})
		}
		reply.Messages = append(reply.Messages, appended)
	}
	for _, m := range reply.Messages {
		reply.TokenCount += m.TokenCount
	}
	reply.Seq, reply.LastSeq = reply.Messages[0].Seq, reply.Messages[len(reply.Messages)-1].Seq
	return reply
}

func (s *store) Tombstone(ctx context.Context, key rpc.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "tombstone", key); err != nil {
		return err
	}
	h := s.byKey[key]
	if h == nil {
		return rpc.ErrNotFound
	}
	if !h.conv.Tombstoned {
		h.conv.Tombstoned = true
		h.conv.UpdatedAt = s.changed()
	}
	return nil
}

func (s *store) Conversation(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) (*rpc.Conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "conversation", opts); err != nil {
		return nil, err
	}
	h, err := s.visible(key, opts)
	if err != nil {
		return nil, err
	}
	conv := h.conv
	return &conv, nil
}

// visible finds a conversation that has reached the sequence asked for. The
// double does not wait: nobody writes meanwhile.
func (s *store) visible(key rpc.Key, opts rpc.ReadOptions) (*held, error) {
	h := s.byKey[key]
	switch {
	case h == nil:
		return nil, rpc.ErrNotFound
	case h.conv.LastSeq < opts.MinSeq:
		return nil, rpc.ErrMinSeqTimeout
	}
	return h, nil
}

func (s *store) Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "messages", req); err != nil {
		return nil, err
	}
	h, err := s.visible(req.Key, req.ReadOptions)
	if err != nil {
		return nil, err
	}
	if req.From < h.earliest {
		return nil, &rpc.CursorExpiredError{Earliest: h.earliest}
	}
	first := min(int(min(req.From, h.conv.LastSeq+1))-1, len(h.messages))
	return h.page(first, min(first+req.Limit, len(h.messages))), nil
}

func (s *store) Tail(ctx context.Context, req *rpc.TailRequest) (*rpc.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "tail", req); err != nil {
		return nil, err
	}
	h, err := s.visible(req.Key, req.ReadOptions)
	if err != nil {
		return nil, err
	}
	end := len(h.messages)
	switch {
	case req.Before != 0:
		end = min(end, int(min(req.Before, h.conv.LastSeq+1))-1)
	case req.Offset < uint64(end):
		end -= int(req.Offset)
	default:
		end = 0
	}
	return h.page(max(end-req.Limit, 0), end), nil
}

func (h *held) page(first, end int) *rpc.Page {
	return &rpc.Page{Messages: slices.Clone(h.messages[first:end]), LastSeq: h.conv.LastSeq, Earliest: h.earliest}
}

func (s *store) List(ctx context.Context, req *rpc.ListRequest) (*rpc.ListReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "list", req); err != nil {
		return nil, err
	}
	reply := &rpc.ListReply{}
	for key, h := range s.byKey {
		if strings.HasPrefix(string(key), req.Prefix) && string(key) > req.After && slices.Contains(req.Groups, key.Group()) {
			reply.Conversations = append(reply.Conversations, h.conv)
		}
	}
	slices.SortFunc(reply.Conversations, func(a, b rpc.Conversation) int { return strings.Compare(string(a.Key), string(b.Key)) })
	if len(reply.Conversations) > req.Limit {
		reply.Conversations = reply.Conversations[:req.Limit]
	}
	return reply, nil
}
