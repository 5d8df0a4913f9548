package phoenix

import "github.com/go-json-experiment/json/jsontext"

// AppendReply appends the reply to a frame; response is a JSON object.
func AppendReply(dst []byte, v Version, joinRef, ref Ref, topic, status, response string) []byte {
	dst = AppendOpening(dst, v, joinRef, ref, topic, EventReply)
	dst = append(dst, `{"status":"`...)
	dst = append(dst, status...)
	dst = append(dst, `","response":`...)
	dst = append(dst, response...)
	dst = append(dst, '}')
	return AppendClosing(dst, v, ref)
}

// AppendEvent appends an event; payload is a JSON object.
func AppendEvent(dst []byte, v Version, joinRef, ref Ref, topic, event, payload string) []byte {
	dst = AppendOpening(dst, v, joinRef, ref, topic, event)
	dst = append(dst, payload...)
	return AppendClosing(dst, v, ref)
}

// AppendOpening appends what is in front of a frame's payload.
func AppendOpening(dst []byte, v Version, joinRef, ref Ref, topic, event string) []byte {
	if v == V1 {
		dst = append(dst, `{"topic":`...)
		dst = appendText(dst, topic)
		dst = append(dst, `,"event":`...)
		dst = appendText(dst, event)
		return append(dst, `,"payload":`...)
	}
	dst = append(dst, '[')
	dst = appendRef(dst, joinRef)
	dst = append(dst, ',')
	dst = appendRef(dst, ref)
	dst = append(dst, ',')
	dst = appendText(dst, topic)
	dst = append(dst, ',')
	dst = appendText(dst, event)
	return append(dst, ',')
}

// AppendClosing appends what is behind it.
func AppendClosing(dst []byte, v Version, ref Ref) []byte {
	if v == V1 {
		dst = append(dst, `,"ref":`...)
		dst = appendRef(dst, ref)
		return append(dst, '}')
	}
	return append(dst, ']')
}

func appendRef(dst []byte, r Ref) []byte {
	if !r.Set {
		return append(dst, "null"...)
	}
	return appendText(dst, r.Text)
}

// appendText appends a JSON string. What is not UTF-8, as binary frames can
// hold, becomes U+FFFD.
func appendText(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}
