package socket

import (
	"bytes"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fastpaca/fastpaca/router/phoenix"
	"github.com/fastpaca/fastpaca/router/stream"
)

// joinFrom reads from a join's payload where to begin: {"from": N}, or
// {"cursor": N} for N+1, or 0 for now.
func joinFrom(f *phoenix.Frame) (from uint64, ok bool) {
	if f.Binary {
		return 0, false
	}
	if !bytes.HasPrefix(f.Payload, []byte("{")) {
		return 0, string(f.Payload) == "null"
	}
	var params struct {
		From   jsontext.Value `json:"from"`
		Cursor jsontext.Value `json:"cursor"`
	}
	if err := json.Unmarshal(f.Payload, &params, jsontext.AllowDuplicateNames(true)); err != nil {
		return 0, false
	}
	if given(params.From) {
		return ParseFrom(string(params.From))
	}
	if !given(params.Cursor) {
		return 0, true
	}
	last, ok := parseSeq(string(params.Cursor))
	return last + 1, ok
}

func given(v jsontext.Value) bool { return len(v) > 0 && string(v) != "null" }

// ParseFrom reads a sequence to begin at: an integer in digits, of any length;
// below 1 is taken as 1.
func ParseFrom(s string) (from uint64, ok bool) {
	from, ok = parseSeq(s)
	return max(from, 1), ok
}

// parseSeq reads a sequence. Negative is taken as 0, and what is beyond any log
// as the largest that a client can mean.
func parseSeq(s string) (seq uint64, ok bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && !outOfRange(err) || len(s) > 0 && s[0] == '+' {
		return 0, false
	}
	return min(uint64(max(n, 0)), math.MaxInt64-1), true
}

func outOfRange(err error) bool {
	e, ok := err.(*strconv.NumError)
	return ok && e.Err == strconv.ErrRange
}

// joinResponse is what an accepted join is told: nothing while the conversation
// does not exist.
func joinResponse(s *stream.State) string {
	if !s.Exists {
		return "{}"
	}
	b := append(make([]byte, 0, 80), `{"last_seq":`...)
	b = strconv.AppendUint(b, s.LastSeq, 10)
	b = append(b, `,"version":`...)
	b = strconv.AppendUint(b, s.Version, 10)
	b = append(b, `,"tombstoned":`...)
	b = strconv.AppendBool(b, s.Tombstoned)
	return string(append(b, '}'))
}

// bucket bounds a rate: size at once, and rate more each second.
type bucket struct {
	size, rate int64
	used       int64
	at         int64 // second of the last take
}

func (b *bucket) take(now int64) bool {
	b.used = max(b.used-(now-b.at)*b.rate, 0)
	b.at = now
	if b.used >= b.size {
		return false
	}
	b.used++
	return true
}
