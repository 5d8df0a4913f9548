package client

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// pageLimit is the most messages a server gives in one page.
const pageLimit = 1000

// Conversation is the public resource.
type Conversation struct {
	ID          string          `json:"id"`
	Version     uint64          `json:"version"`
	Tombstoned  bool            `json:"tombstoned"`
	Metadata    json.RawMessage `json:"metadata"`
	LastSeq     uint64          `json:"last_seq"`
	ArchivedSeq uint64          `json:"archived_seq"`
	Head        string          `json:"head"`
	CreatedAt   string          `json:"created_at"`
	UpdatedAt   string          `json:"updated_at"`
}

// Message is one message with the bytes it was served as.
type Message struct {
	Seq        uint64          `json:"seq"`
	ID         string          `json:"id"`
	Role       string          `json:"role"`
	Parts      json.RawMessage `json:"parts"`
	Metadata   json.RawMessage `json:"metadata"`
	TokenCount uint64          `json:"token_count"`
	InsertedAt string          `json:"inserted_at"`
	Raw        json.RawMessage `json:"-"`
}

// Messages is the body of the two reads. NextFrom is only in one of them.
type Messages struct {
	Messages []Message
	NextFrom *uint64
	LastSeq  *uint64
}

// DecodeMessages decodes the body of a read, keeping each message's bytes.
func DecodeMessages(body []byte) (Messages, error) {
	var page struct {
		Messages []json.RawMessage `json:"messages"`
		NextFrom *uint64           `json:"next_from"`
		LastSeq  *uint64           `json:"last_seq"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return Messages{}, fmt.Errorf("decode messages: %w", err)
	}
	if page.Messages == nil {
		return Messages{}, errors.New("decode messages: there is no array named messages")
	}
	out := Messages{NextFrom: page.NextFrom, LastSeq: page.LastSeq, Messages: make([]Message, len(page.Messages))}
	for i, raw := range page.Messages {
		if err := json.Unmarshal(raw, &out.Messages[i]); err != nil {
			return Messages{}, fmt.Errorf("decode message %d: %w", i, err)
		}
		out.Messages[i].Raw = raw
	}
	return out, nil
}

// StatusError is an answer that was not the one a method needs.
type StatusError struct {
	Operation string
	Reply     Reply
}

func (e *StatusError) Error() string { return e.Operation + ": " + e.Reply.String() }

// Conversation reads a conversation; any answer but 200 is a *StatusError.
func (c *Client) Conversation(ctx context.Context, id string) (Conversation, error) {
	var out Conversation
	reply, err := c.Do(ctx, http.MethodGet, Path(id), nil)
	switch {
	case err != nil:
		return out, err
	case reply.Status != http.StatusOK:
		return out, &StatusError{"read conversation " + id, reply}
	}
	if err := json.Unmarshal(reply.Body, &out); err != nil {
		return out, fmt.Errorf("decode conversation %s: %w", id, err)
	}
	return out, nil
}

// Log reads all messages of a conversation forward, page by page; any answer
// but 200 is a *StatusError.
func (c *Client) Log(ctx context.Context, id string) ([]Message, error) {
	var all []Message
	for from := uint64(1); ; {
		target := fmt.Sprintf("%s/messages?from=%d&limit=%d", Path(id), from, pageLimit)
		reply, err := c.Do(ctx, http.MethodGet, target, nil)
		switch {
		case err != nil:
			return nil, err
		case reply.Status != http.StatusOK:
			return nil, &StatusError{"read messages of " + id, reply}
		}
		page, err := DecodeMessages(reply.Body)
		if err != nil {
			return nil, err
		}
		if len(page.Messages) == 0 {
			return all, nil
		}
		all = append(all, page.Messages...)
		next := page.Messages[len(page.Messages)-1].Seq + 1
		if next <= from {
			return nil, fmt.Errorf("read messages of %s: a page from %d ended at %d", id, from, next-1)
		}
		from = next
	}
}

// Verified reads a conversation whole and verifies it: sequences are dense
// from 1 to last_seq, and the hash chain over the bytes served ends in head.
// The conversation must not be written to at the time.
func (c *Client) Verified(ctx context.Context, id string) (Conversation, []Message, error) {
	conversation, err := c.Conversation(ctx, id)
	if err != nil {
		return conversation, nil, err
	}
	log, err := c.Log(ctx, id)
	if err != nil {
		return conversation, nil, err
	}
	for i, m := range log {
		if m.Seq != uint64(i)+1 {
			return conversation, nil, fmt.Errorf("conversation %s: message %d has seq %d", id, i+1, m.Seq)
		}
	}
	if uint64(len(log)) != conversation.LastSeq {
		return conversation, nil, fmt.Errorf("conversation %s: last_seq is %d, %d messages were served", id, conversation.LastSeq, len(log))
	}
	if head := Head(log); head != conversation.Head {
		return conversation, nil, fmt.Errorf("conversation %s: head is %s, its messages hash to %s", id, conversation.Head, head)
	}
	return conversation, log, nil
}

// Head computes the head of a conversation from all of its messages, in hex:
// the chain starts with 32 zero bytes, and each message makes it the SHA-256
// of the chain so far, its seq as eight big-endian bytes, and its JSON.
func Head(log []Message) string {
	var head [sha256.Size]byte
	for _, m := range log {
		link := make([]byte, 0, len(head)+8+len(m.Raw))
		link = append(link, head[:]...)
		link = binary.BigEndian.AppendUint64(link, m.Seq)
		link = append(link, m.Raw...)
		head = sha256.Sum256(link)
	}
	return hex.EncodeToString(head[:])
}
