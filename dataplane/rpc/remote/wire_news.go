package remote

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// This file writes and reads the frames of the Follow stream by hand, as wire.go
// does those of Write: news are the copy of every append that somebody watches.

// Field numbers of pb/dataplane.proto.
const (
	followSubscribe   = 2
	followUnsubscribe = 3

	subscribeID  = 1
	subscribeKey = 2

	newsSubscribed = 3
	newsNews       = 4
	newsEnded      = 5
	newsHeartbeat  = 6

	subscribedID    = 1
	subscribedReply = 2
	subscribedError = 3

	subscribeReplyExists     = 1
	subscribeReplyLastSeq    = 2
	subscribeReplyVersion    = 3
	subscribeReplyTombstoned = 4

	newsID         = 1
	newsLastSeq    = 2
	newsTombstoned = 3
	newsMessages   = 4

	newsMessageVersion = 1
	newsMessageJSON    = 2

	endedID    = 1
	endedError = 2
)

const (
	// maxNewsBytes and maxNewsMessages bound news that travel with their
	// messages; of more, only the last sequence travels. So nothing on the
	// stream waits long behind a big one.
	maxNewsBytes    = 512 << 10
	maxNewsMessages = 8192
	// maxNewsFrame bounds one gRPC message of the stream to the client.
	maxNewsFrame = maxFrameBytes + maxNewsBytes
)

// heartbeatFrame is a whole frame.
var heartbeatFrame = []byte{newsHeartbeat<<3 | byte(protowire.VarintType), 1}

func appendSubscribe(b []byte, id uint64, key rpc.Key) []byte {
	b = appendHead(b, followSubscribe, sizeVarint(id)+sizeBytes(len(key)))
	b = appendVarint(b, subscribeID, id)
	return appendBytes(b, subscribeKey, key)
}

func appendUnsubscribe(b []byte, id uint64) []byte { return appendVarint(b, followUnsubscribe, id) }

func appendSubscribed(b []byte, id uint64, r *rpc.SubscribeReply) []byte {
	size := sizeVarint(protowire.EncodeBool(r.Exists)) + sizeVarint(r.LastSeq) + sizeVarint(r.Version) +
		sizeVarint(protowire.EncodeBool(r.Tombstoned))
	b = appendHead(b, newsSubscribed, sizeVarint(id)+sizeNested(size))
	b = appendVarint(b, subscribedID, id)
	b = appendHead(b, subscribedReply, size)
	b = appendBool(b, subscribeReplyExists, r.Exists)
	b = appendVarint(b, subscribeReplyLastSeq, r.LastSeq)
	b = appendVarint(b, subscribeReplyVersion, r.Version)
	return appendBool(b, subscribeReplyTombstoned, r.Tombstoned)
}

// encodeError is err as a pb.Error. An empty one is unknown to the client.
func encodeError(err error) []byte {
	// Only a text that is not UTF-8 fails to encode, and errorToWire makes none.
	body, _ := proto.Marshal(errorToWire(err))
	return body
}

func appendRefused(b []byte, id uint64, body []byte) []byte {
	b = appendHead(b, newsSubscribed, sizeVarint(id)+sizeNested(len(body)))
	b = appendVarint(b, subscribedID, id)
	return append(appendHead(b, subscribedError, len(body)), body...)
}

func appendEnded(b []byte, id uint64, body []byte) []byte {
	b = appendHead(b, newsEnded, sizeVarint(id)+sizeNested(len(body)))
	b = appendVarint(b, endedID, id)
	return append(appendHead(b, endedError, len(body)), body...)
}

// sizeNews is the encoded length of News without its tag and length.
func sizeNews(id uint64, n *rpc.News) int {
	size := sizeVarint(id) + sizeVarint(n.LastSeq) + sizeVarint(protowire.EncodeBool(n.Tombstoned))
	for i := range n.Messages {
		size += sizeNested(sizeNewsMessage(&n.Messages[i]))
	}
	return size
}

func sizeNewsMessage(m *rpc.Message) int { return sizeVarint(m.Version) + sizeBytes(len(m.JSON)) }

// appendNews appends news; size is sizeNews.
func appendNews(b []byte, id uint64, n *rpc.News, size int) []byte {
	b = appendHead(b, newsNews, size)
	b = appendVarint(b, newsID, id)
	b = appendVarint(b, newsLastSeq, n.LastSeq)
	b = appendBool(b, newsTombstoned, n.Tombstoned)
	for i := range n.Messages {
		m := &n.Messages[i]
		b = appendHead(b, newsMessages, sizeNewsMessage(m))
		b = appendVarint(b, newsMessageVersion, m.Version)
		b = appendBytes(b, newsMessageJSON, m.JSON)
	}
	return b
}

// followOp is one wish of a client. Its key is its own memory.
type followOp struct {
	id        uint64
	key       rpc.Key
	subscribe bool
}

// decodeFollow appends what a FollowFrame after the first asks for.
func decodeFollow(frame []byte, ops []followOp) ([]followOp, error) {
	f := fields{rest: frame}
	for f.next() {
		op := followOp{}
		switch f.tag {
		case followSubscribe<<3 | nested:
			op.subscribe = true
			s := fields{rest: f.bytes}
			for s.next() {
				switch s.tag {
				case subscribeID<<3 | varint:
					op.id = s.value
				case subscribeKey<<3 | nested:
					op.key = rpc.Key(s.bytes)
				}
			}
			if s.bad || op.id == 0 {
				return ops, fmt.Errorf("%w: a subscription", errMalformed)
			}
		case followUnsubscribe<<3 | varint:
			op.id = f.value
		default:
			continue
		}
		if len(ops) == maxFrameEntries {
			return ops, fmt.Errorf("%w: more than %d subscriptions", errMalformed, maxFrameEntries)
		}
		ops = append(ops, op)
	}
	if f.bad {
		return ops, errMalformed
	}
	return ops, nil
}

// eventKind says what an event is: its field number in NewsFrame.
type eventKind uint8

// event is one thing that a server says of one subscription. It holds nothing of
// the frame.
type event struct {
	kind  eventKind // newsSubscribed, newsNews or newsEnded
	id    uint64
	reply *rpc.SubscribeReply // of newsSubscribed, if there is no err
	news  rpc.News
	err   error // why there is no subscription, or why it ended
}

// decodeNews appends the events of a NewsFrame after the first, in their order.
func decodeNews(frame []byte, events []event) (_ []event, draining bool, err error) {
	f := fields{rest: frame}
	for f.next() {
		switch f.tag {
		case frameDraining<<3 | varint:
			draining = protowire.DecodeBool(f.value)
		case newsSubscribed<<3 | nested, newsNews<<3 | nested, newsEnded<<3 | nested:
			if len(events) == maxFrameEntries {
				return events, draining, fmt.Errorf("%w: more than %d events", errMalformed, maxFrameEntries)
			}
			events = append(events, event{kind: eventKind(f.tag >> 3)})
			if err := events[len(events)-1].decode(f.bytes); err != nil {
				return events, draining, err
			}
		}
	}
	if f.bad {
		return events, draining, errMalformed
	}
	return events, draining, nil
}

func (e *event) decode(msg []byte) error {
	switch e.kind {
	case newsNews:
		return e.decodeNews(msg)
	case newsEnded:
		f := fields{rest: msg}
		for f.next() {
			switch f.tag {
			case endedID<<3 | varint:
				e.id = f.value
			case endedError<<3 | nested:
				e.err = decodeError(f.bytes)
			}
		}
		if e.err == nil {
			e.err = fmt.Errorf("subscription ended: %w", rpc.ErrUnavailable)
		}
		return f.malformed()
	}
	return e.decodeSubscribed(msg)
}

func (e *event) decodeSubscribed(msg []byte) error {
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case subscribedID<<3 | varint:
			e.id = f.value
		case subscribedReply<<3 | nested:
			e.reply = &rpc.SubscribeReply{}
			if err := decodeSubscribeReply(e.reply, f.bytes); err != nil {
				return err
			}
		case subscribedError<<3 | nested:
			e.err = decodeError(f.bytes)
		}
	}
	if e.reply == nil && e.err == nil {
		e.err = fmt.Errorf("subscribe: answered by another kind of reply: %w", rpc.ErrUnavailable)
	}
	return f.malformed()
}

func decodeSubscribeReply(r *rpc.SubscribeReply, msg []byte) error {
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case subscribeReplyExists<<3 | varint:
			r.Exists = protowire.DecodeBool(f.value)
		case subscribeReplyLastSeq<<3 | varint:
			r.LastSeq = f.value
		case subscribeReplyVersion<<3 | varint:
			r.Version = f.value
		case subscribeReplyTombstoned<<3 | varint:
			r.Tombstoned = protowire.DecodeBool(f.value)
		}
	}
	return f.malformed()
}

// decodeNews copies the messages into one piece of memory of their own: who
// keeps one must not keep the whole frame.
func (e *event) decodeNews(msg []byte) error {
	messages, bytes := 0, 0
	f := fields{rest: msg}
	for f.next() {
		switch f.tag {
		case newsID<<3 | varint:
			e.id = f.value
		case newsLastSeq<<3 | varint:
			e.news.LastSeq = f.value
		case newsTombstoned<<3 | varint:
			e.news.Tombstoned = protowire.DecodeBool(f.value)
		case newsMessages<<3 | nested:
			messages++
			bytes += len(f.bytes)
		}
	}
	switch {
	case f.bad:
		return errMalformed
	case messages > maxNewsMessages || uint64(messages) > e.news.LastSeq:
		return fmt.Errorf("%w: news of %d messages up to %d", errMalformed, messages, e.news.LastSeq)
	case messages == 0:
		return nil
	}
	e.news.Messages = make([]rpc.Message, 0, messages)
	json := make([]byte, 0, bytes)
	for f = (fields{rest: msg}); f.next(); {
		if f.tag != newsMessages<<3|nested {
			continue
		}
		m := rpc.Message{Seq: e.news.LastSeq - uint64(messages-len(e.news.Messages)-1)}
		inner := fields{rest: f.bytes}
		for inner.next() {
			switch inner.tag {
			case newsMessageVersion<<3 | varint:
				m.Version = inner.value
			case newsMessageJSON<<3 | nested:
				start := len(json)
				json = append(json, inner.bytes...)
				m.JSON = json[start:len(json):len(json)]
			}
		}
		if inner.bad {
			return errMalformed
		}
		e.news.Messages = append(e.news.Messages, m)
	}
	return nil
}

func (f *fields) malformed() error {
	if f.bad {
		return errMalformed
	}
	return nil
}

// decodeError restores the error of a subscription.
func decodeError(body []byte) error {
	var e pb.Error
	if err := proto.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("%w: %w: error: %w", rpc.ErrUnavailable, errMalformed, err)
	}
	return errorFromWire(&e, rpc.ErrUnavailable)
}
