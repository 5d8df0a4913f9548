package archive

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// columns are what SQL sees of a message, taken from its JSON. They are a copy
// for queries: the JSON itself is archived beside them, byte for byte.
type columns struct {
	id       string
	role     string
	parts    []byte // JSON that jsonb takes, nil when the message has none
	metadata []byte
	tokens   int64
	inserted time.Time
	exact    bool
}

var errNotMessage = errors.New("not the JSON of a message")

// timeLayout is how a message renders its time.
const timeLayout = "2006-01-02T15:04:05.999999999Z07:00"

// parseColumns takes a message's JSON apart. Members it does not know are left
// to the JSON. It never refuses what is valid: what a column cannot hold is
// replaced, and exact is then false.
func parseColumns(message []byte) (columns, error) {
	c := columns{exact: true}
	var inserted string
	err := members(message, func(name, value []byte) {
		switch string(name) {
		case "id":
			c.id = c.text(value)
		case "role":
			c.role = c.text(value)
		case "parts":
			c.parts = c.json(value)
		case "metadata":
			c.metadata = c.json(value)
		case "token_count":
			c.tokens = c.count(value)
		case "inserted_at":
			inserted = c.text(value)
		}
	})
	if err != nil {
		return c, err
	}
	if c.inserted, err = time.Parse(timeLayout, inserted); err != nil {
		return c, errNotMessage
	}
	return c, nil
}

func (c *columns) json(value []byte) []byte {
	clean, exact := cleanJSON(value)
	c.exact = c.exact && exact
	return clean
}

// text decodes a JSON string for a text column, which cannot hold NUL.
func (c *columns) text(value []byte) string {
	clean, exact := cleanJSON(value)
	text, ok := unquote(clean)
	c.exact = c.exact && exact && ok
	return text
}

func (c *columns) count(value []byte) int64 {
	n, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil || n > math.MaxInt64 {
		c.exact = false
		return math.MaxInt64
	}
	return int64(n)
}

// unquote decodes a JSON string without surrogates of its own or NUL.
func unquote(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), true
	}
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' {
			b.WriteByte(inner[i])
			continue
		}
		i++
		if i == len(inner) {
			return b.String(), false
		}
		switch inner[i] {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			r, n := escape(inner[i-1:])
			b.WriteRune(r)
			i += n - 2
		default:
			b.WriteByte(inner[i])
		}
	}
	return b.String(), true
}

// members calls each for every member of a JSON object, in order. The object
// was valid JSON when it was stored; members only refuses what it cannot walk.
func members(object []byte, each func(name, value []byte)) error {
	i := space(object, 0)
	if i == len(object) || object[i] != '{' {
		return errNotMessage
	}
	i = space(object, i+1)
	if i < len(object) && object[i] == '}' {
		return nil
	}
	for {
		end := valueEnd(object, i)
		if end < 0 || object[i] != '"' {
			return errNotMessage
		}
		name := object[i+1 : end-1]
		i = space(object, end)
		if i == len(object) || object[i] != ':' {
			return errNotMessage
		}
		i = space(object, i+1)
		if end = valueEnd(object, i); end < 0 {
			return errNotMessage
		}
		each(name, object[i:end])
		i = space(object, end)
		switch {
		case i == len(object):
			return errNotMessage
		case object[i] == '}':
			return nil
		case object[i] != ',':
			return errNotMessage
		}
		i = space(object, i+1)
	}
}

func space(in []byte, i int) int {
	for i < len(in) && (in[i] == ' ' || in[i] == '\t' || in[i] == '\n' || in[i] == '\r') {
		i++
	}
	return i
}

// valueEnd returns where the JSON value that starts at i ends, or -1.
func valueEnd(in []byte, i int) int {
	depth := 0
	for i < len(in) {
		switch in[i] {
		case '"':
			if i = stringEnd(in, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return -1
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ':', ' ', '\t', '\n', '\r':
		default:
			end := literalEnd(in, i)
			if depth == 0 {
				return end
			}
			i = end
			continue
		}
		if depth == 0 {
			return -1
		}
		i++
	}
	return -1
}

// stringEnd returns where the string that starts at i ends, or -1.
func stringEnd(in []byte, i int) int {
	for i++; i < len(in); i++ {
		switch in[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// literalEnd returns where a number, true, false or null ends.
func literalEnd(in []byte, i int) int {
	for i++; i < len(in); i++ {
		switch in[i] {
		case ',', '}', ']', ' ', '\t', '\n', '\r', ':', '"', '{', '[':
			return i
		}
	}
	return i
}

// ValidKey reports whether a text column can hold the key as it is.
func ValidKey(key rpc.Key) bool {
	return len(key) > 0 && utf8.ValidString(string(key)) && strings.IndexByte(string(key), 0) < 0
}
