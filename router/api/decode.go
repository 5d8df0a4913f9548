package api

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxJSONDepth bounds the nesting of a body. It is far above what people write
// and far below what makes the parsers of other languages give up on reading
// the message back.
const maxJSONDepth = 512

// Lone surrogate escapes are let through here, because messages keep them byte
// for byte; raw bytes are checked to be UTF-8 before.
var allowSurrogates = jsontext.AllowInvalidUTF8(true)

// decoder walks one JSON text strictly: the grammar of RFC 8259, valid UTF-8,
// no duplicate member names in any object (names are compared decoded), no more
// than maxJSONDepth levels. Values are spans of the text, never copies. It is
// reused from text to text.
type decoder struct {
	text    []byte
	source  bytes.Buffer
	json    *jsontext.Decoder
	scratch []byte // decoded names with escapes in them
}

// start begins a text, which must not change until the last span was used.
func (d *decoder) start(text []byte) error {
	if !utf8.Valid(text) {
		return fail(kindInvalidJSON, "The request body is not valid UTF-8.")
	}
	d.text = text
	d.source = *bytes.NewBuffer(text)
	if d.json == nil {
		d.json = jsontext.NewDecoder(&d.source, allowSurrogates)
	} else {
		d.json.Reset(&d.source, allowSurrogates)
	}
	return nil
}

// finish checks that nothing follows the top-level value.
func (d *decoder) finish() error {
	switch _, err := d.json.ReadToken(); {
	case err == nil:
		return fail(kindInvalidJSON, "The request body holds more than one JSON value.")
	case err != io.EOF:
		return invalidJSON(err)
	}
	if tooDeep(d.text) {
		return fail(kindInvalidJSON, "The request body is nested deeper than %d levels.", maxJSONDepth)
	}
	return nil
}

// release lets go of the text.
func (d *decoder) release() {
	d.text = nil
	d.source = bytes.Buffer{}
	d.scratch = reuse(d.scratch)
	if d.json != nil {
		d.json.Reset(&d.source, allowSurrogates)
	}
}

// enter steps into the next value if it is of the kind, '{' or '['. If it is of
// another kind, it is skipped.
func (d *decoder) enter(want jsontext.Kind) (entered bool, err error) {
	if d.json.PeekKind() != want {
		_, err := d.value()
		return false, err
	}
	if _, err := d.json.ReadToken(); err != nil {
		return false, invalidJSON(err)
	}
	return true, nil
}

// more reports whether the array or object that was entered has another element
// or member; at its end it steps out.
func (d *decoder) more() (bool, error) {
	switch d.json.PeekKind() {
	case '}', ']', jsontext.KindInvalid:
		if _, err := d.json.ReadToken(); err != nil {
			return false, invalidJSON(err)
		}
		return false, nil
	}
	return true, nil
}

// name reads a member name, decoded. It is valid until the next call.
func (d *decoder) name() ([]byte, error) {
	raw, err := d.value()
	if err != nil {
		return nil, err
	}
	if !escaped(raw) {
		return unquoted(raw), nil
	}
	d.scratch, _ = jsontext.AppendUnquote(d.scratch[:0], raw)
	return d.scratch, nil
}

// value reads a whole value and returns its span of the text.
func (d *decoder) value() ([]byte, error) {
	v, err := d.json.ReadValue()
	if err != nil {
		return nil, invalidJSON(err)
	}
	end := int(d.json.InputOffset())
	return d.text[end-len(v) : end : end], nil
}

// offset is where the last token or value ended.
func (d *decoder) offset() int { return int(d.json.InputOffset()) }

// invalidJSON describes an error of the JSON grammar without its inner words.
func invalidJSON(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntax):
		return fail(kindInvalidJSON, "The request body holds an object with a duplicate member name, at byte %d.", syntax.ByteOffset)
	case errors.As(err, &syntax):
		return fail(kindInvalidJSON, "The request body is not valid JSON, at byte %d.", syntax.ByteOffset)
	default:
		return &failure{kind: kindInvalidJSON, cause: err}
	}
}

// tooDeep reports whether a valid JSON text is nested deeper than maxJSONDepth.
func tooDeep(text []byte) bool {
	if bytes.Count(text, []byte{'{'})+bytes.Count(text, []byte{'['}) <= maxJSONDepth {
		return false
	}
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth++; depth > maxJSONDepth {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}

// The functions below work on the span of one valid JSON value.

func isString(raw []byte) bool { return len(raw) > 0 && raw[0] == '"' }
func isObject(raw []byte) bool { return len(raw) > 0 && raw[0] == '{' }
func isNull(raw []byte) bool   { return len(raw) > 0 && raw[0] == 'n' }

func escaped(raw []byte) bool    { return bytes.IndexByte(raw, '\\') >= 0 }
func unquoted(raw []byte) []byte { return raw[1 : len(raw)-1] }

// parseCount parses a JSON number that is an integer of digits only, up to
// the given bound.
func parseCount(raw []byte, most uint64) (n uint64, ok bool) {
	if len(raw) == 0 || len(raw) > 20 {
		return 0, false
	}
	for _, c := range raw {
		if c < '0' || c > '9' {
			return 0, false
		}
		digit := uint64(c - '0')
		if n > (most-digit)/10 {
			return 0, false
		}
		n = n*10 + digit
	}
	return n, true
}

// decodedLen is the number of bytes that a JSON string decodes to in UTF-8. A
// lone surrogate counts as the three bytes of U+FFFD.
func decodedLen(raw []byte) int {
	s := unquoted(raw)
	n := len(s)
	for i := bytes.IndexByte(s, '\\'); i >= 0; {
		if s[i+1] != 'u' {
			n--
			i += 2
		} else {
			size, width := escapeLen(s[i:])
			n += width - size
			i += size
		}
		next := bytes.IndexByte(s[i:], '\\')
		if next < 0 {
			break
		}
		i += next
	}
	return n
}

// escapeLen tells how many bytes the \u escape at the start of s takes, with
// its second half if it is a surrogate pair, and how many it decodes to.
func escapeLen(s []byte) (size, width int) {
	switch r := hex4(s[2:6]); {
	case r < 0x80:
		return 6, 1
	case r < 0x800:
		return 6, 2
	case r >= 0xd800 && r < 0xdc00 && len(s) >= 12 && s[6] == '\\' && s[7] == 'u':
		if low := hex4(s[8:12]); low >= 0xdc00 && low < 0xe000 {
			return 12, 4
		}
	}
	return 6, 3
}

func hex4(s []byte) (r rune) {
	for _, c := range s {
		switch {
		case c <= '9':
			c -= '0'
		default:
			c = c | 0x20 - 'a' + 10
		}
		r = r<<4 | rune(c)
	}
	return r
}
