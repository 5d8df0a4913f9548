package phoenix

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrFrame: the frame is none of the protocol.
var ErrFrame = errors.New("not a Phoenix frame")

// ParseText parses a text frame. Its first byte tells the shape, because
// clients of one version are known to send the other's. The error wraps
// ErrFrame.
func ParseText(b []byte) (Frame, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(b), jsontext.AllowDuplicateNames(true))
	var f Frame
	var err error
	switch d.PeekKind() {
	case '[':
		f, err = parseArray(d)
	case '{':
		f, err = parseObject(d)
	default:
		err = errors.New("neither an array nor an object")
	}
	if err == nil {
		if _, end := d.ReadToken(); end != io.EOF {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		return Frame{}, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return f, nil
}

// parseArray reads [join_ref, ref, topic, event, payload]; more is ignored.
func parseArray(d *jsontext.Decoder) (f Frame, err error) {
	f.Shape = V2
	if _, err = d.ReadToken(); err != nil {
		return f, err
	}
	if f.JoinRef, err = readRef(d); err != nil {
		return f, err
	}
	if f.Ref, err = readRef(d); err != nil {
		return f, err
	}
	if f.Topic, err = readString(d); err != nil {
		return f, err
	}
	if f.Event, err = readString(d); err != nil {
		return f, err
	}
	if f.Payload, err = readPayload(d); err != nil {
		return f, err
	}
	for d.PeekKind() != ']' {
		if err = d.SkipValue(); err != nil {
			return f, err
		}
	}
	_, err = d.ReadToken()
	return f, err
}

// parseObject reads {"topic", "event", "payload", "ref"} and "join_ref" if it
// is there; other members are ignored.
func parseObject(d *jsontext.Decoder) (f Frame, err error) {
	f.Shape = V1
	if _, err = d.ReadToken(); err != nil {
		return f, err
	}
	var topic, event bool
	for d.PeekKind() != '}' {
		name, err := readString(d)
		if err != nil {
			return f, err
		}
		switch name {
		case "topic":
			f.Topic, err = readString(d)
			topic = true
		case "event":
			f.Event, err = readString(d)
			event = true
		case "payload":
			f.Payload, err = readPayload(d)
		case "ref":
			f.Ref, err = readRef(d)
		case "join_ref":
			f.JoinRef, err = readRef(d)
		default:
			err = d.SkipValue()
		}
		if err != nil {
			return f, err
		}
	}
	if _, err = d.ReadToken(); err != nil {
		return f, err
	}
	if !topic || !event {
		return f, errors.New("topic or event is missing")
	}
	if f.Payload == nil {
		f.Payload = []byte("{}")
	}
	return f, nil
}

func readRef(d *jsontext.Decoder) (Ref, error) {
	t, err := d.ReadToken()
	switch {
	case err != nil:
		return Ref{}, err
	case t.Kind() == 'n':
		return Ref{}, nil
	case t.Kind() != '"':
		return Ref{}, errors.New("a reference is neither a string nor null")
	}
	text := t.String()
	if len(text) > MaxRefBytes {
		return Ref{}, errors.New("a reference is too long")
	}
	return RefOf(text), nil
}

func readString(d *jsontext.Decoder) (string, error) {
	t, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	if t.Kind() != '"' {
		return "", errors.New("a string is missing")
	}
	return t.String(), nil
}

// readPayload copies: the decoder reuses what it hands out.
func readPayload(d *jsontext.Decoder) ([]byte, error) {
	if k := d.PeekKind(); k == ']' || k == '}' {
		return nil, errors.New("the payload is missing")
	}
	v, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	return bytes.Clone(v), nil
}

// kindPush is the only kind of binary frame that clients send.
const kindPush = 0

// ParseBinary parses a binary push: a kind, four lengths of one byte each,
// join_ref, ref, topic, event, and the data. The error wraps ErrFrame.
func ParseBinary(b []byte) (Frame, error) {
	const header = 5
	if len(b) < header || b[0] != kindPush {
		return Frame{}, fmt.Errorf("%w: not a binary push", ErrFrame)
	}
	lengths, rest := b[1:header], b[header:]
	var texts [4]string
	for i, n := range lengths {
		if int(n) > len(rest) {
			return Frame{}, fmt.Errorf("%w: a binary push breaks off", ErrFrame)
		}
		texts[i], rest = string(rest[:n]), rest[n:]
	}
	f := Frame{Shape: V2, Topic: texts[2], Event: texts[3], Payload: rest, Binary: true}
	// A length of 0 stands for null: no client makes an empty reference.
	if texts[0] != "" {
		f.JoinRef = RefOf(texts[0])
	}
	if texts[1] != "" {
		f.Ref = RefOf(texts[1])
	}
	return f, nil
}
