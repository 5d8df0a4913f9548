package fastpaca

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Message is one message of a conversation, as the server returns it.
type Message struct {
	Seq        int64           `json:"seq"` // 1, 2, 3 and so on without gaps
	ID         string          `json:"id,omitempty"`
	Role       string          `json:"role"`
	Parts      []Part          `json:"parts"`
	Metadata   json.RawMessage `json:"metadata"` // a JSON object, byte for byte
	TokenCount int64           `json:"token_count"`
	InsertedAt time.Time       `json:"inserted_at"`

	raw json.RawMessage
}

// Raw is the message's JSON exactly as it is stored and hashed; nil for a
// message that did not come from a server. It is not a copy. Only Subscribe and
// Events change a byte: a carriage return between JSON tokens, which the format
// of their stream does not carry, arrives as a line feed.
func (m Message) Raw() json.RawMessage { return m.raw }

// Text joins the texts of the message's text parts.
func (m Message) Text() string {
	var b strings.Builder
	for _, p := range m.Parts {
		b.WriteString(p.Text())
	}
	return b.String()
}

// UnmarshalJSON also keeps the bytes, for Raw.
func (m *Message) UnmarshalJSON(data []byte) error {
	type plain Message // without this method
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*m = Message(p)
	m.raw = bytes.Clone(data)
	return nil
}

// Part is one part of a message: a JSON object with a string "type" and
// anything else, kept byte for byte both ways, numbers of any size included.
// Make one with Text, NewPart, or by converting JSON that you have.
type Part json.RawMessage

// Text returns a part {"type":"text","text":…}.
func Text(text string) Part {
	b := append([]byte(`{"type":"text","text":`), quoted(text)...)
	return append(b, '}')
}

// NewPart encodes a value as a part, without escaping <, > and &.
func NewPart(value any) (Part, error) {
	b, err := encode(value)
	if err != nil {
		return nil, invalid("a part cannot be encoded: %v", err)
	}
	return b, nil
}

// Type is the part's type, empty if it has none.
func (p Part) Type() string {
	var head struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(p, &head) // what is no object has no type
	return head.Type
}

// Text is the text of a part of type text, empty for others.
func (p Part) Text() string {
	var text struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(p, &text) != nil || text.Type != "text" {
		return ""
	}
	return text.Text
}

// Decode reads the part into a value, by the rules of encoding/json. To keep
// numbers beyond 2^53, decode them into json.Number, an integer or
// json.RawMessage, not into any.
func (p Part) Decode(into any) error { return json.Unmarshal(p, into) }

// MarshalJSON returns the part itself.
func (p Part) MarshalJSON() ([]byte, error) { return json.RawMessage(p).MarshalJSON() }

// UnmarshalJSON keeps the bytes.
func (p *Part) UnmarshalJSON(data []byte) error {
	*p = bytes.Clone(data)
	return nil
}

// String is the part's JSON.
func (p Part) String() string { return string(p) }

// NewMessage is a message to append.
type NewMessage struct {
	// ID is your own id of the message, at most 128 bytes; an AI SDK UIMessage id
	// fits. The same id with the same content is stored once, however often it is
	// sent; with other content it is a revision, at a new sequence. A random one
	// is made when it is empty.
	ID string
	// Role is 1 to 64 bytes, of any value.
	Role string
	// Parts must not be empty.
	Parts []Part
	// Metadata is nil, or encodes to a JSON object. A json.RawMessage is sent as it is.
	Metadata any
	// TokenCount is your own count; nil lets the server estimate it.
	TokenCount *int64
}

// TextMessage returns a message of one text part.
func TextMessage(role, text string) NewMessage {
	return NewMessage{Role: role, Parts: []Part{Text(text)}}
}

// newMessageID returns an id of 26 characters: random, or when there is an
// idempotency key made from that, so that repeating the call repeats its bytes.
func newMessageID(key string, index int) string {
	if key == "" {
		return rand.Text()
	}
	sum := sha256.Sum256([]byte(strconv.Itoa(index) + " " + key))
	return base32.StdEncoding.EncodeToString(sum[:])[:26]
}

// appendJSON appends the message as it is sent. It is written by hand because
// encoding/json rewrites the JSON inside.
func (m *NewMessage) appendJSON(dst []byte, id string) ([]byte, error) {
	if !utf8.ValidString(m.Role) || !utf8.ValidString(id) {
		return nil, invalid("role and id of a message must be valid UTF-8")
	}
	if len(m.Parts) == 0 {
		return nil, invalid("a message must have at least one part")
	}
	dst = append(append(dst, `{"id":`...), quoted(id)...)
	dst = append(append(dst, `,"role":`...), quoted(m.Role)...)
	dst = append(dst, `,"parts":[`...)
	for i, p := range m.Parts {
		if !json.Valid(p) {
			return nil, invalid("part %d of the message is not valid JSON", i)
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, p...)
	}
	dst = append(dst, ']')
	if m.Metadata != nil {
		metadata, err := encode(m.Metadata)
		if err != nil {
			return nil, invalid("the metadata of the message cannot be encoded: %v", err)
		}
		dst = append(append(dst, `,"metadata":`...), metadata...)
	}
	if m.TokenCount != nil {
		dst = strconv.AppendInt(append(dst, `,"token_count":`...), *m.TokenCount, 10)
	}
	return append(dst, '}'), nil
}

// encode is json.Marshal without escaping for HTML, and without touching what
// is JSON already.
func encode(value any) ([]byte, error) {
	switch raw := value.(type) {
	case json.RawMessage:
		return checked(raw)
	case Part:
		return checked(json.RawMessage(raw))
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func checked(raw json.RawMessage) ([]byte, error) {
	if !json.Valid(raw) {
		return nil, errNotJSON
	}
	return raw, nil
}

var errNotJSON = errors.New("it is not valid JSON")

// quoted is a string as JSON.
func quoted(s string) []byte {
	b, _ := encode(s) // strings always encode
	return b
}
