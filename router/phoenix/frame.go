package phoenix

import (
	"errors"
	"strings"
)

// Version is a shape of frames.
type Version uint8

const (
	// V1 frames are objects, and do not carry a join reference back.
	V1 Version = 1
	// V2 frames are arrays of five.
	V2 Version = 2
)

// ErrVersion: the client asks for a version that is not spoken here.
var ErrVersion = errors.New("unsupported version of the Phoenix protocol")

// ParseVersion reads the vsn parameter of a connection. Absent means 1.0.0.
func ParseVersion(vsn string) (Version, error) {
	switch {
	case vsn == "", vsn == "1.0.0", minor(vsn, "1.0."):
		return V1, nil
	case vsn == "2.0.0", minor(vsn, "2.0."):
		return V2, nil
	}
	return 0, ErrVersion
}

// minor reports whether vsn is the prefix and a number of at most four digits.
func minor(vsn, prefix string) bool {
	rest, ok := strings.CutPrefix(vsn, prefix)
	return ok && rest != "" && len(rest) <= 4 && strings.Trim(rest, "0123456789") == ""
}

// Ref is a reference that a client made: opaque, echoed as it came. The zero
// value is null.
type Ref struct {
	Text string
	Set  bool
}

// RefOf returns the reference with the text.
func RefOf(text string) Ref { return Ref{text, true} }

// Or returns r, or other when r is null.
func (r Ref) Or(other Ref) Ref {
	if r.Set {
		return r
	}
	return other
}

// MaxRefBytes bounds references, as their length byte does in binary frames.
const MaxRefBytes = 255

// Frame is a frame from a client.
type Frame struct {
	// Shape is that of the frame, whatever the connection began with.
	Shape   Version
	JoinRef Ref
	Ref     Ref
	Topic   string
	Event   string
	// Payload is valid JSON, or of a binary frame any bytes, which then point
	// into what was parsed.
	Payload []byte
	Binary  bool
}

// Topics and events of the protocol itself.
const (
	TopicPhoenix   = "phoenix"
	EventHeartbeat = "heartbeat"
	EventJoin      = "phx_join"
	EventLeave     = "phx_leave"
	EventReply     = "phx_reply"
	EventClose     = "phx_close"
	EventError     = "phx_error"
)

// Statuses of replies.
const (
	StatusOK    = "ok"
	StatusError = "error"
)
