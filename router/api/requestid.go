package api

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strconv"
	"sync/atomic"
)

// maxRequestIDBytes bounds the X-Request-Id taken over from a client.
const maxRequestIDBytes = 128

// requestIDs makes ids that are unique across processes and cheap: random bytes
// drawn once, and a counter.
type requestIDs struct {
	prefix string
	next   atomic.Uint64
}

func newRequestIDs() *requestIDs {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return &requestIDs{prefix: hex.EncodeToString(random[:]) + "-"}
}

// of returns the client's request id if it is fit for logs and headers, else a
// new one.
func (ids *requestIDs) of(r *http.Request) string {
	if given := r.Header["X-Request-Id"]; len(given) == 1 && saneRequestID(given[0]) {
		return given[0]
	}
	var buf [32]byte
	id := append(buf[:0], ids.prefix...)
	return string(strconv.AppendUint(id, ids.next.Add(1), 36))
}

func saneRequestID(id string) bool {
	if id == "" || len(id) > maxRequestIDBytes {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.', c == ':', c == '/', c == '+', c == '=', c == '@', c == '~':
		default:
			return false
		}
	}
	return true
}
