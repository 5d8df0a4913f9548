package fastpaca

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"github.com/fastpaca/fastpaca/sdk/go/internal/contract"
)

// Appended tells what became of a message.
type Appended struct {
	ID         string `json:"id"`      // the message's id, made for it if it had none
	Seq        int64  `json:"seq"`     // its place in the conversation
	Version    int64  `json:"version"` // of the conversation after the append
	TokenCount int64  `json:"token_count"`
	// Revises is the newest earlier sequence with the same id and other content,
	// 0 if there is none.
	Revises int64 `json:"revises,omitempty"`
	// Duplicate: the message was stored before, and this is what became of it then.
	Duplicate bool `json:"duplicate,omitempty"`
}

// AppendOption configures an append.
type AppendOption func(*appending)

type appending struct {
	guarded   bool
	ifVersion int64
	key       string
}

// IfVersion appends only if the conversation has this version, which no append
// in between has raised. Otherwise it fails with ErrConflict, and the Error's
// CurrentVersion tells the version.
func IfVersion(version int64) AppendOption {
	return func(a *appending) { a.guarded, a.ifVersion = true, version }
}

// IdempotencyKey makes a call strict: the same key with the same messages is
// answered as the first time, with others it fails (CodeIdempotencyConflict).
// Messages without an id get one that follows from the key, so the same call can
// be made again after any error.
func IdempotencyKey(key string) AppendOption { return func(a *appending) { a.key = key } }

// Append appends one message and returns when it is durable. It always sends a
// message id, so that repeats after a lost answer store the message once.
//
// After an error with CodeOutcomeUnknown, CodeNetwork, CodeTimeout or
// CodeCanceled the message may have been stored. Append it again with the same
// NewMessage.ID or IdempotencyKey to be sure: without either, a message gets a
// new id with every call.
func (c *Conversation) Append(ctx context.Context, m NewMessage, opts ...AppendOption) (Appended, error) {
	answer, ids, err := c.append(ctx, []NewMessage{m}, false, opts)
	if err != nil {
		return Appended{}, err
	}
	out := Appended{ID: ids[0], Seq: answer.Seq, Version: answer.Version, TokenCount: answer.TokenCount}
	out.Duplicate, out.Revises = value(answer.Duplicate), value(answer.Revises)
	return out, nil
}

// AppendBatch appends 1 to 1000 messages together: all or none, as one version
// step, at consecutive sequences but for those that are stored already. What
// became of each is at its index.
func (c *Conversation) AppendBatch(ctx context.Context, messages []NewMessage, opts ...AppendOption) ([]Appended, error) {
	answer, ids, err := c.append(ctx, messages, true, opts)
	if err != nil {
		return nil, err
	}
	out := make([]Appended, len(ids))
	for i, m := range *answer.Messages {
		out[i] = Appended{
			ID: ids[i], Seq: m.Seq, Version: answer.Version, TokenCount: m.TokenCount,
			Revises: value(m.Revises), Duplicate: value(m.Duplicate) || value(answer.Duplicate),
		}
	}
	return out, nil
}

func (c *Conversation) append(ctx context.Context, messages []NewMessage, many bool, opts []AppendOption) (*contract.Appended, []string, error) {
	op, err := c.begin("append to")
	if err != nil {
		return nil, nil, err
	}
	var a appending
	for _, opt := range opts {
		opt(&a)
	}
	ids := make([]string, len(messages))
	for i := range messages {
		if ids[i] = messages[i].ID; ids[i] == "" {
			ids[i] = newMessageID(a.key, i)
		}
	}
	body, err := a.body(messages, ids, many)
	if err != nil {
		return nil, nil, named(op, err)
	}
	params := contract.AppendMessagesParams{IdempotencyKey: given(a.key)}
	var answer contract.Appended
	err = decode(&answer, op)(c.client.rest.AppendMessagesWithBody(ctx, c.id, &params, contentType, bytes.NewReader(body)))
	if err != nil {
		return nil, nil, err
	}
	// An append that something in between answered must not pass for stored.
	if answer.Seq < 1 || (many && (answer.Messages == nil || len(*answer.Messages) != len(messages))) {
		return nil, nil, &Error{
			Op: op, Status: 200, Code: CodeUnexpectedResponse, Err: errNoAppend,
			Message: "the answer is a success, but not one of an append: is this the address of a Fastpaca server?",
		}
	}
	return &answer, ids, nil
}

var errNoAppend = errors.New("the answer has no sequence for each message")

// body is the JSON of an append. Retries send the same bytes.
func (a *appending) body(messages []NewMessage, ids []string, many bool) ([]byte, error) {
	if len(messages) == 0 {
		return nil, invalid("there is no message to append")
	}
	var err error
	b := []byte(`{"message":`)
	if many {
		b = []byte(`{"messages":[`)
	}
	for i := range messages {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = messages[i].appendJSON(b, ids[i]); err != nil {
			return nil, err
		}
	}
	if many {
		b = append(b, ']')
	}
	if a.guarded {
		b = strconv.AppendInt(append(b, `,"if_version":`...), a.ifVersion, 10)
	}
	return append(b, '}'), nil
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
