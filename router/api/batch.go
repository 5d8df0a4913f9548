package api

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

const (
	// maxRoleBytes bounds a message's role, decoded.
	maxRoleBytes = 64
	// maxTokenCount is the largest token count taken from a client: the largest
	// integer that every JSON reader holds exactly. A thousand of them still
	// fit an int64.
	maxTokenCount = 1<<53 - 1
	// contentOverhead is what the content of a message holds at most beside the
	// client's own bytes.
	contentOverhead = len(`"id":,"role":,"parts":,"metadata":{},"token_count":9007199254740991`)
)

// batch is the body of an append: parsed in one walk, checked, and turned into
// messages whose content are the client's bytes. It is reused from request to
// request.
type batch struct {
	decoder
	many      bool // the body has "messages", not "message"
	ifVersion uint64
	guarded   bool // the body has an if_version that is not null
	problem   *failure

	given    []givenMessage
	messages []rpc.NewMessage
	content  []byte // what messages point into
}

// givenMessage is one message as the client sent it. The spans point into the
// body and are nil for members that are absent.
type givenMessage struct {
	id, role, parts, metadata, tokens []byte
	name                              string // the id, decoded
	estimate                          uint64 // of the tokens
	badParts                          string // what is wrong with the parts
}

func (b *batch) reset() {
	b.release()
	b.many, b.ifVersion, b.guarded, b.problem = false, 0, false, nil
	clear(b.given)
	b.given = b.given[:0]
	clear(b.messages)
	b.messages = b.messages[:0]
	if cap(b.given) > 64 {
		b.given, b.messages = nil, nil
	}
	b.content = reuse(b.content)
}

// drop lets go of the memory that the messages use, for when the data plane may
// hold on to it because it did not say how the append ended.
func (b *batch) drop() { b.messages, b.content = nil, nil }

// complain notes what is wrong with the body. The first complaint counts, and
// only if the whole body is valid JSON.
func (b *batch) complain(k *kind, format string, args ...any) {
	if b.problem == nil {
		b.problem = fail(k, format, args...)
	}
}

// parse reads the body of an append into b.messages and b.ifVersion.
func (b *batch) parse(body []byte) error {
	if err := b.start(body); err != nil {
		return err
	}
	if err := b.walk(); err != nil {
		return err
	}
	if err := b.finish(); err != nil {
		return err
	}
	for i := range b.given {
		b.check(i)
	}
	if b.problem != nil {
		return b.problem
	}
	return b.build()
}

// walk visits the whole body, so that broken JSON anywhere beats everything
// else that may be wrong.
func (b *batch) walk() error {
	entered, err := b.enter('{')
	if err != nil {
		return err
	}
	if !entered {
		b.complain(kindInvalidMessage, "The body must be an object with a message or messages.")
		return nil
	}
	single := false
	for {
		if more, err := b.more(); err != nil {
			return err
		} else if !more {
			break
		}
		name, err := b.name()
		if err != nil {
			return err
		}
		switch string(name) {
		case "message":
			single = true
			err = b.walkMessage()
		case "messages":
			b.many = true
			err = b.walkMessages()
		case "if_version":
			err = b.walkVersion()
		default:
			_, err = b.value()
		}
		if err != nil {
			return err
		}
	}
	if single == b.many {
		b.complain(kindInvalidMessage, "The body must have either message or messages.")
	}
	return nil
}

func (b *batch) walkVersion() error {
	raw, err := b.value()
	if err != nil || isNull(raw) {
		return err
	}
	n, ok := parseCount(raw, 1<<64-1)
	if !ok {
		b.complain(kindInvalidParameter, "if_version must be an integer not below 0, or null.")
	}
	b.ifVersion, b.guarded = n, true
	return nil
}

func (b *batch) walkMessages() error {
	entered, err := b.enter('[')
	if err != nil {
		return err
	}
	if !entered {
		b.complain(kindInvalidMessage, "messages must be an array.")
		return nil
	}
	for n := 0; ; n++ {
		more, err := b.more()
		switch {
		case err != nil:
			return err
		case !more && n == 0:
			b.complain(kindInvalidMessage, "messages must not be empty.")
			return nil
		case !more:
			return nil
		case n >= rpc.MaxAppendMessages:
			b.complain(kindInvalidMessage, "messages must not hold more than %d messages.", rpc.MaxAppendMessages)
			_, err = b.value()
		default:
			err = b.walkMessage()
		}
		if err != nil {
			return err
		}
	}
}

func (b *batch) walkMessage() error {
	entered, err := b.enter('{')
	if err != nil {
		return err
	}
	if !entered {
		b.complain(kindInvalidMessage, "A message must be an object.")
		return nil
	}
	var m givenMessage
	for {
		if more, err := b.more(); err != nil {
			return err
		} else if !more {
			b.given = append(b.given, m)
			return nil
		}
		name, err := b.name()
		if err != nil {
			return err
		}
		switch string(name) {
		case "id":
			m.id, err = b.value()
		case "role":
			m.role, err = b.value()
		case "parts":
			err = b.walkParts(&m)
		case "metadata":
			m.metadata, err = b.value()
		case "token_count":
			m.tokens, err = b.value()
		default: // unknown members are ignored
			_, err = b.value()
		}
		if err != nil {
			return err
		}
	}
}

// walkParts notes the span of the parts, what is wrong with them, and the
// estimate of their tokens: a quarter of the bytes of each text, rounded down
// part by part.
func (b *batch) walkParts(m *givenMessage) error {
	entered, err := b.enter('[')
	if err != nil {
		return err
	}
	if !entered {
		m.badParts = "must be an array"
		return nil
	}
	start := b.offset() - 1
	for n := 0; ; n++ {
		more, err := b.more()
		if err != nil {
			return err
		}
		if !more {
			if n == 0 {
				m.badParts = "must not be empty"
			}
			m.parts = b.text[start:b.offset():b.offset()]
			return nil
		}
		if err := b.walkPart(m); err != nil {
			return err
		}
	}
}

func (b *batch) walkPart(m *givenMessage) error {
	entered, err := b.enter('{')
	if err != nil {
		return err
	}
	typed := false
	for entered {
		if entered, err = b.more(); err != nil || !entered {
			break
		}
		name, err := b.name()
		if err != nil {
			return err
		}
		isType, isText := string(name) == "type", string(name) == "text"
		raw, err := b.value()
		if err != nil {
			return err
		}
		switch {
		case isType:
			typed = isString(raw)
		case isText && isString(raw):
			m.estimate += uint64(decodedLen(raw) / 4)
		}
	}
	if err == nil && !typed && m.badParts == "" {
		m.badParts = "must hold only objects with a string type"
	}
	return err
}

// check applies the rules for one message, in a fixed order.
func (b *batch) check(i int) {
	m := &b.given[i]
	where := func() string {
		if b.many {
			return "messages[" + strconv.Itoa(i) + "]."
		}
		return "message."
	}
	if m.tokens != nil {
		if n, ok := parseCount(m.tokens, maxTokenCount); ok {
			m.estimate = n
		}
	}
	switch {
	case m.role == nil:
		b.complain(kindInvalidMessage, "%srole is missing.", where())
	case !b.fits(m.role, maxRoleBytes):
		b.complain(kindInvalidMessage, "%srole must be a string of 1 to %d bytes without NUL or lone surrogates.", where(), maxRoleBytes)
	case m.badParts != "":
		b.complain(kindInvalidMessage, "%sparts %s.", where(), m.badParts)
	case m.parts == nil:
		b.complain(kindInvalidMessage, "%sparts is missing.", where())
	case m.metadata != nil && !isObject(m.metadata):
		b.complain(kindInvalidMetadata, "%smetadata must be an object.", where())
	case m.id == nil || isNull(m.id):
		m.id = nil
	case !b.fits(m.id, rpc.MaxMessageIDBytes):
		b.complain(kindInvalidMessage, "%sid must be a string of 1 to %d bytes without NUL or lone surrogates.", where(), rpc.MaxMessageIDBytes)
	default:
		m.name = string(b.scratch)
	}
}

// fits reports whether a value is a string of 1 to most bytes without NUL and
// lone surrogates, and leaves it decoded in b.scratch.
func (b *batch) fits(raw []byte, most int) bool {
	if !isString(raw) {
		return false
	}
	b.scratch = b.scratch[:0]
	if !escaped(raw) {
		b.scratch = append(b.scratch, unquoted(raw)...)
	} else {
		var err error
		if b.scratch, err = jsontext.AppendUnquote(b.scratch, raw); err != nil {
			return false // a lone surrogate
		}
	}
	return len(b.scratch) > 0 && len(b.scratch) <= most && bytes.IndexByte(b.scratch, 0) < 0
}

// build lays the messages' content out in b.content.
func (b *batch) build() error {
	size := 0
	for i := range b.given {
		m := &b.given[i]
		size += len(m.id) + len(m.role) + len(m.parts) + len(m.metadata) + contentOverhead
	}
	b.content = slices.Grow(b.content[:0], size)
	for i := range b.given {
		m := &b.given[i]
		start := len(b.content)
		if m.id != nil {
			b.content = append(b.content, `"id":`...)
			b.content = append(b.content, m.id...)
			b.content = append(b.content, ',')
		}
		message := rpc.NewMessage{ID: m.name, TokenCount: m.estimate}
		compared := len(b.content)
		b.content = append(b.content, `"role":`...)
		b.content = append(b.content, m.role...)
		b.content = append(b.content, `,"parts":`...)
		b.content = append(b.content, m.parts...)
		b.content = append(b.content, `,"metadata":`...)
		if m.metadata != nil {
			b.content = append(b.content, m.metadata...)
		} else {
			b.content = append(b.content, "{}"...)
		}
		if m.name != "" {
			// Members of an object in a fixed order frame the three values
			// unambiguously.
			message.Digest = sha256.Sum256(b.content[compared:])
		}
		b.content = append(b.content, `,"token_count":`...)
		b.content = strconv.AppendUint(b.content, m.estimate, 10)
		message.Content = b.content[start:len(b.content):len(b.content)]
		if len(message.Content) > rpc.MaxMessageBytes {
			return fail(kindTooLarge, "A message is larger than %d bytes.", rpc.MaxMessageBytes)
		}
		b.messages = append(b.messages, message)
	}
	if len(b.content) > rpc.MaxAppendBytes {
		return fail(kindTooLarge, "The messages of the request are together larger than %d bytes.", rpc.MaxAppendBytes)
	}
	return nil
}
