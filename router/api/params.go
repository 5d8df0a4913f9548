package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// intParam is an integer parameter. What is no integer is refused; an integer
// outside the range is moved to its nearer end, as clients expect of pages.
type intParam struct {
	name        string
	description string
	byDefault   int64
	min, max    int64 // max 0 means none
	example     int64
}

var (
	limitParam  = intParam{"limit", "How many messages to return at most. Values outside the range are moved to its nearer end. A page may hold fewer because its size is bounded too.", 100, 1, rpc.MaxPageMessages, 20}
	listParam   = intParam{"limit", "How many conversations to return at most. Values outside the range are moved to its nearer end.", 100, 1, 1000, 50}
	offsetParam = intParam{"offset", "How many of the newest messages to skip. It counts from the newest message at the time of the request, so pages shift while messages arrive; use `before` for stable pages. A negative value is taken as 0.", 0, 0, 0, 20}
	beforeParam = intParam{"before", "Return messages below this sequence only. Not to be combined with `offset`.", 0, 1, 0, 101}
	fromParam   = intParam{"from", "The first sequence wanted. 0 is taken as 1.", 1, 1, 0, 50}
)

func (p intParam) document() *huma.Param {
	schema := &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: number(p.min)}
	if p.byDefault != 0 || p.name == "offset" {
		schema.Default = p.byDefault
	}
	if p.max > 0 {
		schema.Maximum = number(p.max)
	}
	return &huma.Param{Name: p.name, In: "query", Description: p.description, Schema: schema, Example: p.example}
}

// read returns the value of the parameter and whether it was given.
func (p intParam) read(q url.Values) (value int64, given bool, err error) {
	values := q[p.name]
	if len(values) == 0 {
		return p.byDefault, false, nil
	}
	n, ok := parseInteger(values[0])
	if !ok {
		return 0, true, fail(kindInvalidParameter, "The parameter %s must be an integer.", p.name)
	}
	if p.max > 0 {
		n = min(n, p.max)
	}
	return max(n, p.min), true, nil
}

// parseInteger parses a decimal integer of any length; what does not fit is
// moved to the nearer end of int64.
func parseInteger(s string) (int64, bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" {
		return 0, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
	}
	n, _ := strconv.ParseInt(s, 10, 64) // out of range yields the nearer end
	return n, true
}

func number(n int64) *float64 {
	f := float64(n)
	return &f
}

// parseQuery decodes the query string strictly: broken escapes are refused, and
// so is a parameter that is given twice, because two readers could take it for
// two different requests.
func parseQuery(r *http.Request) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(kindInvalidParameter, "The query string is not valid.")
	}
	for _, values := range q {
		if len(values) > 1 {
			return nil, fail(kindInvalidParameter, "A parameter is given more than once.")
		}
	}
	return q, nil
}

// textParam reads a parameter that is compared with conversation ids.
func textParam(q url.Values, name string) (string, error) {
	value := q.Get(name)
	if len(value) > rpc.MaxKeyBytes || !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
		return "", fail(kindInvalidParameter, "The parameter %s must be valid UTF-8 without NUL, and at most %d bytes.", name, rpc.MaxKeyBytes)
	}
	return value, nil
}

var levels = map[string]rpc.Consistency{
	"":             rpc.Leader,
	"leader":       rpc.Leader,
	"linearizable": rpc.Linearizable,
	"stale":        rpc.Stale,
}

func readConsistency(q url.Values) (rpc.Consistency, error) {
	level, ok := levels[q.Get("consistency")]
	if !ok {
		return 0, fail(kindInvalidParameter, "The parameter consistency must be leader, linearizable or stale.")
	}
	return level, nil
}

// readOptions reads what all reads of one conversation share.
func readOptions(q url.Values, h http.Header) (rpc.ReadOptions, error) {
	level, err := readConsistency(q)
	if err != nil {
		return rpc.ReadOptions{}, err
	}
	opts := rpc.ReadOptions{Consistency: level}
	switch given := h["X-Fastpaca-Min-Seq"]; {
	case len(given) == 0:
	case len(given) > 1:
		return opts, fail(kindInvalidParameter, "The header X-Fastpaca-Min-Seq is given more than once.")
	default:
		n, ok := parseInteger(given[0])
		if !ok || n < 0 {
			return opts, fail(kindInvalidParameter, "The header X-Fastpaca-Min-Seq must be an integer not below 0.")
		}
		opts.MinSeq = uint64(n)
	}
	return opts, nil
}

// readIdempotencyKey returns the key, or empty when there is none. An empty
// header is refused: the client believes to be protected and is not.
func readIdempotencyKey(h http.Header) (string, error) {
	given := h["Idempotency-Key"]
	if len(given) == 0 {
		return "", nil
	}
	key := given[0]
	if len(given) > 1 || key == "" || len(key) > rpc.MaxIdempotencyKeyBytes || !utf8.ValidString(key) {
		return "", fail(kindInvalidParameter, "The header Idempotency-Key must be given once, as 1 to %d bytes of UTF-8.", rpc.MaxIdempotencyKeyBytes)
	}
	return key, nil
}
