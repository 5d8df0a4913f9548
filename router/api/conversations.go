package api

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// conversationFrameBytes is about what a conversation takes in JSON beside its
// id and metadata.
const conversationFrameBytes = 320

// timeFormat is RFC 3339 in UTC with microseconds, always six digits.
const timeFormat = "2006-01-02T15:04:05.000000Z"

func (a *API) putConversation(ctx context.Context, x *exchange, r *http.Request) error {
	declared := len(r.Header["Content-Type"])+len(r.Header["Content-Encoding"]) > 0
	if declared || r.ContentLength > 0 {
		if err := checkJSON(r.Header); err != nil {
			return err
		}
	}
	body, err := a.readBody(x, r)
	if err != nil {
		return err
	}
	req := rpc.PutRequest{Key: x.key}
	if len(body) > 0 {
		if !declared { // a chunked body, of which nothing was known before
			return &failure{kind: kindUnsupportedMedia}
		}
		if req.Metadata, err = x.batch.parseMetadata(body); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
	defer cancel()
	reply, err := a.backend.Put(ctx, &req)
	if err != nil {
		x.in = nil // the data plane may hold on to the metadata
		return err
	}
	x.out = appendConversation(x.out[:0], &reply.Conversation)
	x.send(http.StatusOK, x.out)
	return nil
}

// parseMetadata reads the body of a put and returns the span of its metadata,
// or nil when it is absent or null.
func (d *decoder) parseMetadata(body []byte) (metadata []byte, err error) {
	if err := d.start(body); err != nil {
		return nil, err
	}
	entered, err := d.enter('{')
	if err != nil {
		return nil, err
	}
	for more := entered; more; {
		if more, err = d.more(); err != nil {
			return nil, err
		} else if !more {
			break
		}
		name, err := d.name()
		if err != nil {
			return nil, err
		}
		wanted := string(name) == "metadata"
		raw, err := d.value()
		if err != nil {
			return nil, err
		}
		if wanted {
			metadata = raw
		}
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	switch {
	case !entered:
		return nil, fail(kindInvalidMetadata, "The body must be an object with an optional metadata.")
	case metadata == nil || isNull(metadata):
		return nil, nil
	case !isObject(metadata):
		return nil, fail(kindInvalidMetadata, "metadata must be an object.")
	case len(metadata) > rpc.MaxMetadataBytes:
		return nil, fail(kindInvalidMetadata, "metadata must not be larger than %d bytes.", rpc.MaxMetadataBytes)
	}
	return metadata, nil
}

func (a *API) getConversation(ctx context.Context, x *exchange, r *http.Request) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	opts, err := readOptions(q, r.Header)
	if err != nil {
		return err
	}
	ctx, cancel := a.readTimeout(ctx, opts)
	defer cancel()
	conv, err := a.backend.Conversation(ctx, x.key, opts)
	if err != nil {
		return err
	}
	x.lastSeq(conv.LastSeq)
	x.out = appendConversation(x.out[:0], conv)
	x.send(http.StatusOK, x.out)
	return nil
}

// readTimeout bounds a read, and more tightly one that waits for a sequence.
func (a *API) readTimeout(ctx context.Context, opts rpc.ReadOptions) (context.Context, context.CancelFunc) {
	if opts.MinSeq > 0 {
		return context.WithTimeout(ctx, a.cfg.MinSeqWait)
	}
	return context.WithTimeout(ctx, a.cfg.RequestTimeout)
}

func (a *API) deleteConversation(ctx context.Context, x *exchange, _ *http.Request) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
	defer cancel()
	if err := a.backend.Tombstone(ctx, x.key); err != nil {
		return err
	}
	x.WriteHeader(http.StatusNoContent)
	return nil
}

// allGroups is what a list reads.
var allGroups = func() []rpc.Group {
	groups := make([]rpc.Group, rpc.Groups)
	for i := range groups {
		groups[i] = rpc.Group(i)
	}
	return groups
}()

func (a *API) listConversations(ctx context.Context, x *exchange, r *http.Request) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	limit, _, err := listParam.read(q)
	if err != nil {
		return err
	}
	req := rpc.ListRequest{Groups: allGroups, Limit: int(limit)}
	if req.Consistency, err = readConsistency(q); err != nil {
		return err
	}
	if req.Prefix, err = textParam(q, "prefix"); err != nil {
		return err
	}
	if req.After, err = readCursor(q); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
	defer cancel()
	reply, err := a.backend.List(ctx, &req)
	if err != nil {
		return err
	}
	size := 0
	for i := range reply.Conversations {
		size += len(reply.Conversations[i].Metadata) + len(reply.Conversations[i].Key) + conversationFrameBytes
	}
	if err := a.reserve(x, int64(size)); err != nil {
		return err
	}
	x.out = append(slices.Grow(x.out[:0], size), `{"conversations":[`...)
	for i := range reply.Conversations {
		if i > 0 {
			x.out = append(x.out, ',')
		}
		x.out = appendConversation(x.out, &reply.Conversations[i])
	}
	x.out = append(x.out, ']')
	if n := len(reply.Conversations); n == int(limit) { // there may be more
		x.out = append(x.out, `,"next":`...)
		x.out = appendString(x.out, cursorAfter(reply.Conversations[n-1].Key))
	}
	x.out = append(x.out, '}')
	x.send(http.StatusOK, x.out)
	return nil
}

// cursorPrefix tells cursors of this form from those of another one.
const cursorPrefix = "k"

// cursorAfter makes the opaque cursor that a page ending at the key hands out.
func cursorAfter(key rpc.Key) string {
	return cursorPrefix + base64.RawURLEncoding.EncodeToString([]byte(key))
}

func readCursor(q url.Values) (string, error) {
	given := q.Get("after")
	if given == "" {
		return "", nil
	}
	encoded, ok := strings.CutPrefix(given, cursorPrefix)
	key, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err == nil {
		_, err = rpc.KeyOf(string(key))
	}
	if !ok || err != nil {
		return "", fail(kindInvalidParameter, "The parameter after must be the next of an earlier page.")
	}
	return string(key), nil
}

// appendConversation appends the conversation resource.
func appendConversation(dst []byte, c *rpc.Conversation) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, string(c.Key))
	dst = append(dst, `,"version":`...)
	dst = strconv.AppendUint(dst, c.Version, 10)
	dst = append(dst, `,"tombstoned":`...)
	dst = strconv.AppendBool(dst, c.Tombstoned)
	dst = append(dst, `,"metadata":`...)
	if len(c.Metadata) > 0 {
		dst = append(dst, c.Metadata...)
	} else {
		dst = append(dst, "{}"...)
	}
	dst = append(dst, `,"last_seq":`...)
	dst = strconv.AppendUint(dst, c.LastSeq, 10)
	dst = append(dst, `,"archived_seq":`...)
	dst = strconv.AppendUint(dst, c.ArchivedSeq, 10)
	dst = append(dst, `,"head":"`...)
	dst = hex.AppendEncode(dst, c.Head[:])
	dst = append(dst, `","created_at":"`...)
	dst = appendTime(dst, c.CreatedAt)
	dst = append(dst, `","updated_at":"`...)
	dst = appendTime(dst, c.UpdatedAt)
	return append(dst, `"}`...)
}

func appendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, timeFormat)
}
