package stream

import (
	"bytes"
	"compress/flate"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Frame is one message as clients get it. It is shared by all of them and never
// changes.
type Frame struct {
	Seq uint64
	// Payload is {"type":"message","seq":N,"version":V,"message":{…}}.
	Payload []byte
	// Arrived is when the data node told of the message, zero when it was read
	// from the log.
	Arrived time.Time

	deflated atomic.Pointer[[]byte]
}

const (
	payloadOpening = `{"type":"message","seq":`
	payloadVersion = `,"version":`
	payloadMessage = `,"message":`
	// maxPayloadFrame is more than a payload takes beside the message.
	maxPayloadFrame = len(payloadOpening) + len(payloadVersion) + len(payloadMessage) + 2*20 + 1
)

func appendPayload(dst []byte, m *rpc.Message) []byte {
	dst = append(dst, payloadOpening...)
	dst = strconv.AppendUint(dst, m.Seq, 10)
	dst = append(dst, payloadVersion...)
	dst = strconv.AppendUint(dst, m.Version, 10)
	dst = append(dst, payloadMessage...)
	dst = append(dst, m.JSON...)
	return append(dst, '}')
}

// framesOf encodes a run of messages into one buffer of their own, so that
// nothing of what they were received in is held.
func framesOf(messages []rpc.Message) (frames []Frame, size int) {
	for i := range messages {
		size += len(messages[i].JSON) + maxPayloadFrame
	}
	frames = make([]Frame, len(messages))
	buf := make([]byte, 0, size)
	for i := range messages {
		at := len(buf)
		buf = appendPayload(buf, &messages[i])
		frames[i].Seq = messages[i].Seq
		frames[i].Payload = buf[at:len(buf):len(buf)]
	}
	return frames, size
}

// Deflated returns the payload as permessage-deflate without context takeover
// sends it, or nil when that would not be smaller. It is made for the first
// client that wants it and kept with the frame.
func (f *Frame) Deflated() []byte {
	if done := f.deflated.Load(); done != nil {
		return *done
	}
	packed := deflate(f.Payload)
	if len(packed) >= len(f.Payload) {
		packed = nil
	}
	f.deflated.Store(&packed)
	return packed
}

// deflaters holds the compressors of the process. One takes some hundred KB, so
// no connection owns one.
var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is valid
	return w
}}

// deflateTail ends what Flush writes, and is left out of a frame (RFC 7692).
var deflateTail = []byte{0, 0, 0xff, 0xff}

func deflate(payload []byte) []byte {
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	var out bytes.Buffer
	out.Grow(len(payload) / 2)
	w.Reset(&out)
	_, _ = w.Write(payload) // a bytes.Buffer takes everything
	_ = w.Flush()
	return bytes.TrimSuffix(out.Bytes(), deflateTail)
}
