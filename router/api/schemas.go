package api

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// The types below are the resources of the API as its document describes them.
// Answers are written by hand, so that stored bytes pass through untouched; the
// tests check every answer against these schemas.

// Conversation is the conversation resource.
type Conversation struct {
	ID          string   `json:"id" minLength:"1" maxLength:"512" example:"chat-123" doc:"The id, 1 to 512 bytes of UTF-8 without NUL."`
	Version     uint64   `json:"version" format:"int64" example:"2" doc:"Starts at 0 and rises by one with every append request, whatever the number of its messages."`
	Tombstoned  bool     `json:"tombstoned" doc:"Whether the conversation is closed for writing. It can still be read."`
	Metadata    Metadata `json:"metadata"`
	LastSeq     uint64   `json:"last_seq" format:"int64" example:"3" doc:"The sequence of the newest message, 0 when there is none."`
	ArchivedSeq uint64   `json:"archived_seq" format:"int64" example:"0" doc:"Messages up to this sequence are in the archive."`
	Head        string   `json:"head" minLength:"64" maxLength:"64" pattern:"^[0-9a-f]{64}$" example:"5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef" doc:"The hash chain at last_seq, in hex. Each message extends it: the SHA-256 of the hash before it (32 zero bytes before the first message), its seq as 8 big-endian bytes, and its JSON exactly as it is returned. 64 zeros when there is no message."`
	CreatedAt   string   `json:"created_at" format:"date-time" example:"2026-01-02T03:04:05.678901Z" doc:"UTC with microseconds."`
	UpdatedAt   string   `json:"updated_at" format:"date-time" example:"2026-01-02T03:04:06.789012Z" doc:"UTC with microseconds."`
}

// ConversationList is a page of conversations.
type ConversationList struct {
	Conversations []Conversation `json:"conversations" nullable:"false" doc:"Ascending by the bytes of their ids."`
	Next          string         `json:"next,omitempty" example:"kY2hhdC0xMjM" doc:"Pass it as after to get the next page. Absent on the last page."`
}

// PutConversation is the body of a put.
type PutConversation struct {
	Metadata *Metadata `json:"metadata,omitempty"`
}

// NewMessage is a message as it is appended.
type NewMessage struct {
	ID         string        `json:"id,omitempty" minLength:"1" maxLength:"128" example:"msg_01" doc:"Your own id of the message, at most 128 bytes. It makes the append safe to retry: the same id with the same content is stored once. The same id with other content is a revision."`
	Role       string        `json:"role" minLength:"1" maxLength:"64" example:"user" doc:"At most 64 bytes; any value."`
	Parts      []MessagePart `json:"parts" nullable:"false" minItems:"1"`
	Metadata   *Metadata     `json:"metadata,omitempty"`
	TokenCount uint64        `json:"token_count,omitempty" format:"int64" example:"5" doc:"Your own count. When absent or not an integer from 0 to 2^53-1, the server estimates it: the sum over the parts of the bytes of their text, divided by 4 and rounded down."`
}

// AppendMessage is the body of an append of one message.
type AppendMessage struct {
	Message   NewMessage `json:"message"`
	IfVersion *uint64    `json:"if_version,omitempty" nullable:"true" format:"int64" example:"2" doc:"Append only if the conversation has this version. Null is no guard."`
}

// AppendMessages is the body of an append of several messages.
type AppendMessages struct {
	Messages  []NewMessage `json:"messages" nullable:"false" minItems:"1" maxItems:"1000" doc:"Appended together or not at all."`
	IfVersion *uint64      `json:"if_version,omitempty" nullable:"true" format:"int64" example:"2" doc:"Append only if the conversation has this version. Null is no guard."`
}

// AppendRequest is the body of an append: one message or several.
type AppendRequest struct{}

// Schema adds the union under a name of its own. Of one that has none, oapi-codegen
// makes a type that is sent as an empty object.
func (AppendRequest) Schema(registry huma.Registry) *huma.Schema {
	const name = "AppendRequest"
	if registry.Map()[name] == nil {
		registry.Map()[name] = &huma.Schema{
			Description: "One message or several.",
			OneOf:       []*huma.Schema{schemaOf[AppendMessage](registry), schemaOf[AppendMessages](registry)},
		}
	}
	return &huma.Schema{Ref: schemaPrefix + name}
}

// Appended answers an append.
type Appended struct {
	Seq        uint64            `json:"seq" format:"int64" example:"3" doc:"The sequence of the message; of the first when there are several."`
	Version    uint64            `json:"version" format:"int64" example:"3" doc:"The version of the conversation after the append."`
	TokenCount uint64            `json:"token_count" format:"int64" example:"5" doc:"Of all messages of the request."`
	Duplicate  bool              `json:"duplicate,omitempty" doc:"True when everything was stored before and this repeats the first answer."`
	Revises    uint64            `json:"revises,omitempty" format:"int64" doc:"For a single message: the newest earlier sequence with the same id and other content."`
	LastSeq    uint64            `json:"last_seq,omitempty" format:"int64" doc:"For several messages: the sequence of the last."`
	Messages   []AppendedMessage `json:"messages,omitempty" nullable:"false" doc:"For several messages: what became of each, in order."`
}

// AppendedMessage tells what became of one message of several.
type AppendedMessage struct {
	Seq        uint64 `json:"seq" format:"int64" example:"3"`
	ID         string `json:"id,omitempty" example:"msg_01"`
	TokenCount uint64 `json:"token_count" format:"int64" example:"5"`
	Revises    uint64 `json:"revises,omitempty" format:"int64" doc:"The newest earlier sequence with the same id and other content."`
	Duplicate  bool   `json:"duplicate,omitempty" doc:"True when the message was stored before."`
}

// Message is a stored message.
type Message struct {
	Seq        uint64        `json:"seq" format:"int64" minimum:"1" example:"3" doc:"The place in the conversation: 1, 2, 3 and so on without gaps."`
	ID         string        `json:"id,omitempty" example:"msg_01" doc:"The id it was appended with, if any."`
	Role       string        `json:"role" example:"user"`
	Parts      []MessagePart `json:"parts" nullable:"false" minItems:"1" doc:"The bytes that were appended."`
	Metadata   Metadata      `json:"metadata"`
	TokenCount uint64        `json:"token_count" format:"int64" example:"5"`
	InsertedAt string        `json:"inserted_at" format:"date-time" example:"2026-01-02T03:04:05.678901Z" doc:"UTC with microseconds."`
}

// MessageTail is a page read from the end.
type MessageTail struct {
	Messages []Message `json:"messages" nullable:"false" doc:"Ascending by seq."`
}

// MessagePage is a page read forward.
type MessagePage struct {
	Messages []Message `json:"messages" nullable:"false" doc:"Ascending by seq, without gaps."`
	NextFrom uint64    `json:"next_from" format:"int64" example:"4" doc:"Pass it as from to read on. You are at the end when it exceeds last_seq."`
	LastSeq  uint64    `json:"last_seq" format:"int64" example:"3" doc:"The newest sequence when the page was read."`
}

// Error is the body of every failure.
type Error struct {
	Error          string `json:"error" example:"conversation_not_found" doc:"A stable code to program against."`
	Message        string `json:"message" example:"The conversation does not exist." doc:"A sentence for people; it may change."`
	CurrentVersion uint64 `json:"current_version,omitempty" format:"int64" doc:"With conflict: the version of the conversation."`
	EarliestSeq    uint64 `json:"earliest_seq,omitempty" format:"int64" doc:"With cursor_expired: the lowest sequence still held."`
	RequestID      string `json:"request_id,omitempty" doc:"With 5xx: also in the X-Request-Id header of every answer."`
}

// MessagePart is one part of a message, of any kind.
type MessagePart struct{}

// Schema refers to the component that registerOpenSchemas adds.
func (MessagePart) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Ref: schemaPrefix + "MessagePart"}
}

// Metadata is a free-form object.
type Metadata struct{}

// Schema refers to the component that registerOpenSchemas adds.
func (Metadata) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Ref: schemaPrefix + "Metadata"}
}

const schemaPrefix = "#/components/schemas/"

// registerOpenSchemas adds the two schemas that no Go type describes. They are
// open, because what is in them passes through byte for byte; x-go-type makes
// Go clients keep the bytes too.
//
// The other schemas neither forbid further members, since requests may hold and
// later versions may answer with more, nor name them as wanted, since that makes
// generators add a catch-all member to every type.
func registerOpenSchemas(registry huma.Registry) {
	for _, s := range registry.Map() {
		s.AdditionalProperties = nil
	}
	registry.Map()["MessagePart"] = &huma.Schema{
		Type:        huma.TypeObject,
		Description: "One part of a message: an object with a type of your choice. All other members are kept byte for byte, numbers of any size and the order of members included.",
		Required:    []string{"type"},
		Properties: map[string]*huma.Schema{
			"type": {Type: huma.TypeString, Examples: []any{"text"}, Description: "What kind of part it is."},
		},
		AdditionalProperties: true,
		Extensions:           map[string]any{"x-go-type": "json.RawMessage"},
	}
	registry.Map()["Metadata"] = &huma.Schema{
		Type:                 huma.TypeObject,
		Description:          "An object of your own, kept byte for byte.",
		AdditionalProperties: true,
		Extensions:           map[string]any{"x-go-type": "json.RawMessage"},
	}
	for _, s := range registry.Map() {
		s.PrecomputeMessages()
	}
}

// schemaOf returns a reference to the component of the type.
func schemaOf[T any](registry huma.Registry) *huma.Schema {
	return registry.Schema(reflect.TypeFor[T](), true, "")
}
