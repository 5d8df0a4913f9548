package rpc

import (
	"context"
	"time"
)

// Bounds that both planes enforce.
const (
	// MaxMessageBytes bounds one message's Content.
	MaxMessageBytes = 1 << 20
	// MaxAppendMessages bounds the messages of one append.
	MaxAppendMessages = 1000
	// MaxAppendBytes bounds the Content of one append in sum.
	MaxAppendBytes = 8 << 20
	// MaxMetadataBytes bounds a conversation's encoded metadata.
	MaxMetadataBytes = 16 << 10
	// MaxMessageIDBytes bounds a client's message id.
	MaxMessageIDBytes = 128
	// MaxIdempotencyKeyBytes bounds an Idempotency-Key.
	MaxIdempotencyKeyBytes = 255
	// MaxPageMessages bounds the messages of one page.
	MaxPageMessages = 1000
	// MaxPageBytes bounds the JSON of one page; a page always holds at least
	// one message, so it may exceed the bound by one.
	MaxPageBytes = 16 << 20
)

// Conversation is what the state machine knows of one conversation.
type Conversation struct {
	Key         Key
	Version     uint64 // +1 per append command
	LastSeq     uint64 // newest message, 0 when empty
	FirstSeq    uint64 // lowest sequence in the hot log; LastSeq+1 when none is
	ArchivedSeq uint64 // everything up to it is in the archive
	Tombstoned  bool
	Metadata    []byte   // a JSON object, as the client sent it
	Head        [32]byte // hash chain at LastSeq, zero when empty
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// NewMessage is a validated message on its way into the log.
type NewMessage struct {
	// ID is the client's own message id, or empty.
	ID string
	// Content is the message's JSON members from "id" or "role" up to and with
	// "token_count", without braces, e.g.
	//   "role":"user","parts":[{"type":"text","text":"hi"}],"metadata":{},"token_count":0
	// Role, parts and metadata are the bytes the client sent. The state machine
	// wraps it as {"seq":N,<Content>,"inserted_at":"…"} and never parses it.
	Content []byte
	// Digest identifies role, parts and metadata, to tell a retry from a
	// revision. Only compared when ID is set.
	Digest [32]byte
	// TokenCount repeats the token_count inside Content.
	TokenCount uint64
}

// AppendRequest appends 1 to MaxAppendMessages messages atomically.
type AppendRequest struct {
	Key      Key
	Messages []NewMessage
	// IfVersion, when not nil, must equal the conversation's version.
	IfVersion *uint64
	// IdempotencyKey, when set, makes the whole request at-most-once;
	// BodyDigest tells a retry from a misuse.
	IdempotencyKey string
	BodyDigest     [32]byte
}

// Appended tells what became of one message of an append.
type Appended struct {
	Seq        uint64
	TokenCount uint64
	// Revises is the newest earlier sequence with the same id, or 0.
	Revises uint64
	// Duplicate: the id was already held with this content at Seq.
	Duplicate bool
}

// AppendReply answers an append. For a retry it repeats the first answer.
type AppendReply struct {
	Seq        uint64 // of the first message
	LastSeq    uint64 // of the last message
	Version    uint64 // of the conversation after that append
	TokenCount uint64 // of all its messages
	Duplicate  bool   // nothing was appended: all of it was known
	Messages   []Appended
	// Took is how long the node worked on it; the caller waited longer by the
	// way there and back. 0 when the node does not tell.
	Took time.Duration
}

// PutRequest creates a conversation or replaces its metadata.
type PutRequest struct {
	Key      Key
	Metadata []byte // a JSON object; nil leaves what is there
}

// PutReply answers a put.
type PutReply struct {
	Conversation Conversation
	Created      bool
}

// Consistency is how fresh a read must be.
type Consistency uint8

const (
	// Leader reads at the leader while its lease lives (the default).
	Leader Consistency = iota
	// Linearizable makes the leader confirm with a quorum first.
	Linearizable
	// Stale reads at any replica.
	Stale
)

// ReadOptions are common to all reads of one conversation.
type ReadOptions struct {
	Consistency Consistency
	// MinSeq makes the read wait, within the context's deadline, until the
	// conversation's last_seq reaches it.
	MinSeq uint64
}

// MessagesRequest reads forward: up to Limit messages with seq >= From.
type MessagesRequest struct {
	Key   Key
	From  uint64
	Limit int
	ReadOptions
}

// TailRequest reads the newest messages: up to Limit, skipping the newest
// Offset, or those below Before when it is not 0.
type TailRequest struct {
	Key    Key
	Before uint64
	Offset uint64
	Limit  int
	ReadOptions
}

// Message is one stored message. JSON is the exact bytes that are returned to
// clients and that the hash chain covers; it must not be modified.
type Message struct {
	Seq     uint64
	Version uint64
	JSON    []byte
}

// Page is a run of messages in ascending order without holes.
type Page struct {
	Messages []Message
	// LastSeq and Earliest describe the conversation when the page was read:
	// its newest sequence, and the lowest that can still be read.
	LastSeq  uint64
	Earliest uint64
}

// ListRequest lists conversations of some groups by key.
type ListRequest struct {
	Groups      []Group
	Prefix      string
	After       string // exclusive
	Limit       int
	Consistency Consistency
}

// ListReply holds conversations in ascending order of key.
type ListReply struct {
	Conversations []Conversation
}

// Node is one data node as its callers see it. Writes and reads name a
// conversation; the node finds the group. All methods may be called from any
// goroutine, honour the context's deadline, and return the sentinels of this
// package. A write whose context ends after it was proposed returns
// ErrOutcomeUnknown. The caller must not modify a request's byte slices until
// the method has returned, and owns what is returned.
type Node interface {
	Put(ctx context.Context, req *PutRequest) (*PutReply, error)
	Append(ctx context.Context, req *AppendRequest) (*AppendReply, error)
	Tombstone(ctx context.Context, key Key) error
	Conversation(ctx context.Context, key Key, opts ReadOptions) (*Conversation, error)
	Messages(ctx context.Context, req *MessagesRequest) (*Page, error)
	Tail(ctx context.Context, req *TailRequest) (*Page, error)
	List(ctx context.Context, req *ListRequest) (*ListReply, error)
}
