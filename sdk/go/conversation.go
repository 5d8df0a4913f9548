package fastpaca

import (
	"bytes"
	"context"
	"iter"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fastpaca/fastpaca/sdk/go/internal/contract"
)

// Conversation is a handle on one conversation. It holds no state of it and is
// safe for concurrent use.
type Conversation struct {
	client *Client
	id     string
}

// ID is the conversation's id.
func (c *Conversation) ID() string { return c.id }

const maxIDBytes = 512

// begin names an operation and refuses ids that would make it another one.
func (c *Conversation) begin(verb string) (op string, err error) {
	op = verb + " " + strconv.Quote(c.id)
	if c.id == "" || len(c.id) > maxIDBytes || !utf8.ValidString(c.id) || strings.ContainsRune(c.id, 0) {
		failed := invalid("a conversation id is 1 to %d bytes of valid UTF-8 without NUL", maxIDBytes)
		failed.Op = op
		return op, failed
	}
	return op, nil
}

const contentType = "application/json"

// Put creates the conversation if it does not exist. Metadata that encodes to a
// JSON object replaces what is there; nil leaves it, so that Put(ctx, nil)
// creates or gets. On a tombstoned conversation it fails with ErrTombstoned.
func (c *Conversation) Put(ctx context.Context, metadata any) (ConversationInfo, error) {
	op, err := c.begin("put")
	if err != nil {
		return ConversationInfo{}, err
	}
	body := []byte("{}")
	if metadata != nil {
		encoded, err := encode(metadata)
		if err != nil {
			failed := invalid("the metadata cannot be encoded: %v", err)
			failed.Op = op
			return ConversationInfo{}, failed
		}
		body = append(append([]byte(`{"metadata":`), encoded...), '}')
	}
	var info contract.Conversation
	err = decode(&info, op)(c.client.rest.PutConversationWithBody(ctx, c.id, contentType, bytes.NewReader(body)))
	return infoOf(info), err
}

// Get reads the conversation, or fails with ErrNotFound.
func (c *Conversation) Get(ctx context.Context, opts ...ReadOption) (ConversationInfo, error) {
	op, err := c.begin("get")
	if err != nil {
		return ConversationInfo{}, err
	}
	r := reading(opts)
	params := contract.GetConversationParams{
		Consistency:     given(contract.GetConversationParamsConsistency(r.consistency)),
		XFastpacaMinSeq: given(r.minSeq),
	}
	var info contract.Conversation
	err = decode(&info, op)(c.client.rest.GetConversation(ctx, c.id, &params))
	return infoOf(info), err
}

// Tombstone closes the conversation for writing, for ever. It can still be read.
// Repeating it changes nothing. An unknown conversation is ErrNotFound.
func (c *Conversation) Tombstone(ctx context.Context) error {
	op, err := c.begin("tombstone")
	if err != nil {
		return err
	}
	return decode(nil, op)(c.client.rest.TombstoneConversation(ctx, c.id))
}

// Consistency says how fresh a read must be.
type Consistency string

// The levels. The default is Leader.
const (
	Leader       Consistency = "leader"       // at the leader of the group, which its lease keeps from being stale
	Linearizable Consistency = "linearizable" // after the leader has asked a quorum
	Stale        Consistency = "stale"        // at any replica
)

// ReadOption configures a read.
type ReadOption func(*read)

type read struct {
	consistency Consistency
	minSeq      int64
}

func reading(opts []ReadOption) read {
	var r read
	for _, opt := range opts {
		opt(&r)
	}
	return r
}

// WithConsistency says how fresh the answer must be.
func WithConsistency(level Consistency) ReadOption { return func(r *read) { r.consistency = level } }

// AtLeast makes the server wait, for a few seconds at most, until the
// conversation has reached a sequence.
func AtLeast(seq int64) ReadOption { return func(r *read) { r.minSeq = seq } }

// maxPage is the most messages or conversations that the server returns at once.
const maxPage = 1000

// Tail returns the newest messages in ascending order, at most limit of them; 0
// for the server's default, values above 1000 are taken as that. There may be
// fewer than limit also when there are more to come: a page is bounded in bytes.
func (c *Conversation) Tail(ctx context.Context, limit int, opts ...ReadOption) ([]Message, error) {
	return c.tail(ctx, 0, limit, opts)
}

// TailBefore is Tail of what is below a sequence: pass the lowest that you have
// to page back, stably while messages arrive. It returns none at the beginning.
func (c *Conversation) TailBefore(ctx context.Context, before int64, limit int, opts ...ReadOption) ([]Message, error) {
	if before <= 1 {
		return nil, nil // nothing is below the first message
	}
	return c.tail(ctx, before, limit, opts)
}

func (c *Conversation) tail(ctx context.Context, before int64, limit int, opts []ReadOption) ([]Message, error) {
	op, err := c.begin("read the tail of")
	if err != nil {
		return nil, err
	}
	r := reading(opts)
	params := contract.TailMessagesParams{
		Before: given(before), Limit: given(int64(limit)),
		Consistency:     given(contract.TailMessagesParamsConsistency(r.consistency)),
		XFastpacaMinSeq: given(r.minSeq),
	}
	var page struct {
		Messages []Message `json:"messages"`
	}
	err = decode(&page, op)(c.client.rest.TailMessages(ctx, c.id, &params))
	return page.Messages, err
}

// Page is what one Replay returns.
type Page struct {
	Messages []Message // ascending, without gaps
	NextFrom int64     // for the next Replay; the end is reached when it exceeds LastSeq
	LastSeq  int64     // the newest message when the page was read
}

// Replay returns one page of messages from a sequence on, at most limit; 0 for
// the server's default. It never skips: below what is still held it fails with
// ErrCursorExpired, and the Error's EarliestSeq tells where to go on.
func (c *Conversation) Replay(ctx context.Context, from int64, limit int, opts ...ReadOption) (Page, error) {
	op, err := c.begin("replay")
	if err != nil {
		return Page{}, err
	}
	r := reading(opts)
	params := contract.ReplayMessagesParams{
		From: given(from), Limit: given(int64(limit)),
		Consistency:     given(contract.ReplayMessagesParamsConsistency(r.consistency)),
		XFastpacaMinSeq: given(r.minSeq),
	}
	var page struct {
		Messages []Message `json:"messages"`
		NextFrom int64     `json:"next_from"`
		LastSeq  int64     `json:"last_seq"`
	}
	err = decode(&page, op)(c.client.rest.ReplayMessages(ctx, c.id, &params))
	if err == nil && len(page.Messages) == 0 && page.NextFrom <= page.LastSeq {
		err = &Error{Op: op, Status: 200, Code: CodeUnexpectedResponse, Message: "the page is empty before the end"}
	}
	return Page(page), err
}

// Messages ranges over the messages from a sequence on (0 and 1 are the first)
// to the end of the conversation, page by page. An error ends it.
func (c *Conversation) Messages(ctx context.Context, from int64, opts ...ReadOption) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for next := from; ; {
			page, err := c.Replay(ctx, next, maxPage, opts...)
			if err != nil {
				yield(Message{}, err)
				return
			}
			for _, m := range page.Messages {
				if !yield(m, nil) {
					return
				}
			}
			if next = page.NextFrom; next > page.LastSeq {
				return
			}
		}
	}
}

// Backward ranges over the messages below a sequence, newest first, page by
// page; 0 begins with the newest. An error ends it.
func (c *Conversation) Backward(ctx context.Context, before int64, opts ...ReadOption) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for next := before; next != 1; {
			page, err := c.tail(ctx, next, 0, opts)
			if err != nil {
				yield(Message{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			for i := len(page) - 1; i >= 0; i-- {
				if !yield(page[i], nil) {
					return
				}
			}
			next = page[0].Seq
		}
	}
}
