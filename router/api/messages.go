package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// tailMessages reads the newest messages.
func (a *API) tailMessages(ctx context.Context, x *exchange, r *http.Request) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	req, err := readTail(q, r.Header)
	if err != nil {
		return err
	}
	req.Key = x.key
	ctx, cancel := a.readTimeout(ctx, req.ReadOptions)
	defer cancel()
	page, err := a.backend.Tail(ctx, req)
	if err != nil {
		return err
	}
	return a.sendPage(x, page, []byte("]}"))
}

func readTail(q url.Values, h http.Header) (*rpc.TailRequest, error) {
	limit, _, err := limitParam.read(q)
	if err != nil {
		return nil, err
	}
	offset, _, err := offsetParam.read(q)
	if err != nil {
		return nil, err
	}
	before, bounded, err := beforeParam.read(q)
	if err != nil {
		return nil, err
	}
	if bounded && offset > 0 {
		return nil, fail(kindInvalidParameter, "The parameters offset and before cannot be combined.")
	}
	req := &rpc.TailRequest{Limit: int(limit), Offset: uint64(offset)}
	if bounded {
		req.Before = uint64(before)
	}
	req.ReadOptions, err = readOptions(q, h)
	return req, err
}

// replayMessages reads forward from a sequence.
func (a *API) replayMessages(ctx context.Context, x *exchange, r *http.Request) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	req, err := readReplay(q, r.Header)
	if err != nil {
		return err
	}
	req.Key = x.key
	ctx, cancel := a.readTimeout(ctx, req.ReadOptions)
	defer cancel()
	page, err := a.backend.Messages(ctx, req)
	if err != nil {
		return err
	}
	next := req.From
	if n := len(page.Messages); n > 0 {
		next = page.Messages[n-1].Seq + 1
	}
	rest := append(make([]byte, 0, 64), `],"next_from":`...)
	rest = strconv.AppendUint(rest, next, 10)
	rest = append(rest, `,"last_seq":`...)
	rest = strconv.AppendUint(rest, page.LastSeq, 10)
	return a.sendPage(x, page, append(rest, '}'))
}

func readReplay(q url.Values, h http.Header) (*rpc.MessagesRequest, error) {
	limit, _, err := limitParam.read(q)
	if err != nil {
		return nil, err
	}
	from, _, err := readFrom(q, fromParam)
	if err != nil {
		return nil, err
	}
	req := &rpc.MessagesRequest{From: uint64(from), Limit: int(limit)}
	req.ReadOptions, err = readOptions(q, h)
	return req, err
}

// readFrom returns `from`, or its alias `from_seq` where only that is given.
func readFrom(q url.Values, param intParam) (from int64, given bool, err error) {
	if from, given, err = param.read(q); err != nil {
		return 0, false, err
	}
	param.name = "from_seq"
	also, aliased, err := param.read(q)
	if err != nil || given || !aliased {
		return from, given, err
	}
	return also, true, nil
}

// pageChunkBytes is how much of a page is gathered before it is written, so
// that neither short messages cost a write each nor a long page a second copy.
const pageChunkBytes = maxPooledBytes - 4<<10

// sendPage writes {"messages":[…] and the rest, with the stored bytes of each
// message as they are.
func (a *API) sendPage(x *exchange, page *rpc.Page, rest []byte) error {
	const opening = `{"messages":[`
	size := len(opening) + len(rest)
	for i := range page.Messages {
		size += len(page.Messages[i].JSON)
	}
	size += max(len(page.Messages)-1, 0)
	if err := a.reserve(x, int64(size)); err != nil {
		return err
	}
	x.lastSeq(page.LastSeq)
	x.sendHeader(http.StatusOK, size)
	x.out = append(x.out[:0], opening...)
	for i := range page.Messages {
		if i > 0 {
			x.out = append(x.out, ',')
		}
		message := page.Messages[i].JSON
		if len(x.out)+len(message) > pageChunkBytes {
			if _, err := x.Write(x.out); err != nil {
				return nil // the client has gone
			}
			x.out = x.out[:0]
		}
		if len(message) > pageChunkBytes {
			if _, err := x.Write(message); err != nil {
				return nil
			}
			continue
		}
		x.out = append(x.out, message...)
	}
	x.out = append(x.out, rest...)
	_, _ = x.Write(x.out)
	return nil
}
