package api

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
)

const (
	// firstReadBytes is the first size of a body buffer. It grows with what has
	// arrived, not with what Content-Length promises.
	firstReadBytes = 4 << 10
	// freeBytes of a request's memory are not counted against the budget of
	// API.buffered; MaxInFlight bounds them.
	freeBytes = 32 << 10
	// parseFactor is how many times a body is held in memory at most: as read,
	// and as the content of its messages.
	parseFactor = 2
)

// readBody reads the whole body into x.in. The first failure of too long, too
// slow, cut short or no memory left ends it.
func (a *API) readBody(x *exchange, r *http.Request) ([]byte, error) {
	limit := a.cfg.MaxBodyBytes
	if r.ContentLength > limit {
		return nil, a.tooLarge(x)
	}
	buf := x.in[:0]
	if cap(buf) == 0 {
		buf = make([]byte, 0, firstReadBytes)
	}
	for {
		if len(buf) == cap(buf) {
			size := min(2*int64(cap(buf)), limit+1) // one more shows that it is too long
			if err := a.reserve(x, size*parseFactor); err != nil {
				x.Header()["Connection"] = []string{"close"}
				return nil, err
			}
			buf = append(make([]byte, 0, size), buf...)
		}
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		x.in = buf
		switch {
		case int64(len(buf)) > limit:
			return nil, a.tooLarge(x)
		case err == io.EOF:
			return buf, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, &failure{kind: kindRequestTimeout, cause: err}
		case err != nil:
			return nil, &failure{kind: kindIncompleteBody, cause: err}
		}
	}
}

func (a *API) tooLarge(x *exchange) *failure {
	// The rest of the body is not worth reading.
	x.Header()["Connection"] = []string{"close"}
	return fail(kindTooLarge, "The request body is larger than %d bytes.", a.cfg.MaxBodyBytes)
}

// reserve makes the exchange account for bytes of memory in all, from the
// budget that all requests share. release gives them back.
func (a *API) reserve(x *exchange, bytes int64) error {
	more := bytes - freeBytes - x.reserved
	if more <= 0 {
		return nil
	}
	if a.buffered.Add(more) > a.cfg.MaxBufferedBytes {
		a.buffered.Add(-more)
		return fail(kindOverloaded, "The server holds too many large requests. Nothing was written; it is safe to retry.")
	}
	x.reserved += more
	return nil
}

func (a *API) release(x *exchange) {
	if x.reserved != 0 {
		a.buffered.Add(-x.reserved)
		x.reserved = 0
	}
}

// checkJSON refuses a body that is not declared as plain JSON. A missing
// Content-Type is refused as well: a browser sends such a request for any web
// page without asking, so taking it would let pages write to servers on the
// visitor's machine.
func checkJSON(h http.Header) error {
	if coding := h["Content-Encoding"]; len(coding) > 0 && !(len(coding) == 1 && strings.EqualFold(coding[0], "identity")) {
		return &failure{kind: kindUnsupportedMedia}
	}
	types := h["Content-Type"]
	if len(types) == 1 && types[0] == "application/json" {
		return nil
	}
	if len(types) != 1 {
		return &failure{kind: kindUnsupportedMedia}
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil || media != "application/json" {
		return &failure{kind: kindUnsupportedMedia}
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return &failure{kind: kindUnsupportedMedia}
	}
	return nil
}
