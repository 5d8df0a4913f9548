package archive

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// What jsonb is given at most. Postgres itself overflows its stack a little
// above 6,000 levels and refuses numbers of more than 131,072 digits; a number
// is stored small but printed in full, so that 1e131071 over and over would make
// rows that cannot be read.
const (
	maxJSONDepth    = 1000
	maxNumberDigits = 400
)

const replacement = `\ufffd`

// cleanJSON returns valid JSON that jsonb takes, and whether it says the same
// as the given: U+0000, lone surrogates and bytes that are not UTF-8 become
// U+FFFD, a number too long for numeric becomes a string of its text, and what
// is nested deeper than maxJSONDepth becomes null. It returns the given slice
// when nothing had to change.
func cleanJSON(in []byte) (out []byte, exact bool) {
	c := cleaner{in: in}
	for c.at < len(in) && c.run() {
	}
	if c.out == nil {
		return in, true
	}
	return append(c.out, in[c.copied:]...), false
}

type cleaner struct {
	in     []byte
	at     int
	depth  int
	copied int    // in[:copied] is in out
	out    []byte // nil until something had to change
}

// replace puts with in the place of in[from:to] and goes on after it.
func (c *cleaner) replace(from, to int, with ...string) {
	if c.out == nil {
		c.out = make([]byte, 0, len(c.in)+64)
	}
	c.out = append(c.out, c.in[c.copied:from]...)
	for _, s := range with {
		c.out = append(c.out, s...)
	}
	c.copied, c.at = to, to
}

// run handles one token; false ends the walk.
func (c *cleaner) run() bool {
	switch b := c.in[c.at]; b {
	case '"':
		return c.text()
	case '{', '[':
		if c.depth == maxJSONDepth {
			end := valueEnd(c.in, c.at)
			if end < 0 {
				return false
			}
			c.replace(c.at, end, "null")
			return true
		}
		c.depth++
	case '}', ']':
		c.depth--
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		c.number()
		return true
	}
	c.at++
	return true
}

func (c *cleaner) number() {
	start := c.at
	end := literalEnd(c.in, start)
	if c.at = end; longNumber(c.in[start:end]) {
		c.replace(start, end, `"`, string(c.in[start:end]), `"`)
	}
}

// longNumber reports whether a number has more digits than jsonb is given,
// written without its exponent.
func longNumber(number []byte) bool {
	if len(number) > maxNumberDigits {
		return true
	}
	e := bytes.IndexAny(number, "eE")
	if e < 0 {
		return false
	}
	exponent, err := strconv.Atoi(string(number[e+1:]))
	return err != nil || exponent > maxNumberDigits || exponent < -maxNumberDigits
}

// text handles a string.
func (c *cleaner) text() bool {
	for c.at++; c.at < len(c.in); {
		switch b := c.in[c.at]; {
		case b == '"':
			c.at++
			return true
		case b == '\\':
			if c.at+1 < len(c.in) && c.in[c.at+1] == 'u' {
				if r, n := escape(c.in[c.at:]); r == 0 || r == utf8.RuneError && !named(c.in[c.at:]) {
					c.replace(c.at, c.at+n, replacement)
				} else {
					c.at += n
				}
				continue
			}
			c.at += 2
		case b < utf8.RuneSelf:
			c.at++
		default:
			r, n := utf8.DecodeRune(c.in[c.at:])
			if r == utf8.RuneError && n == 1 {
				c.replace(c.at, c.at+1, replacement)
				continue
			}
			c.at += n
		}
	}
	return false
}

// named reports whether an escape is that of U+FFFD itself.
func named(in []byte) bool {
	return len(in) >= 6 && bytes.EqualFold(in[:6], []byte(replacement))
}

// escape decodes the \u escape that in starts with, with the second half of a
// surrogate pair, and returns how many bytes it takes. A lone surrogate is
// U+FFFD.
func escape(in []byte) (r rune, n int) {
	first, ok := hex4(in)
	switch {
	case !ok:
		return utf8.RuneError, min(len(in), 6)
	case first < 0xd800 || first > 0xdfff:
		return first, 6
	case first > 0xdbff || len(in) < 12 || in[6] != '\\' || in[7] != 'u':
		return utf8.RuneError, 6
	}
	second, ok := hex4(in[6:])
	if !ok || second < 0xdc00 || second > 0xdfff {
		return utf8.RuneError, 6
	}
	return (first-0xd800)<<10 | (second - 0xdc00) + 0x10000, 12
}

func hex4(in []byte) (rune, bool) {
	if len(in) < 6 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(in[2:6]), 16, 32)
	return rune(n), err == nil
}
